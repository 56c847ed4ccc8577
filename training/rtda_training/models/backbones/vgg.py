"""VGG-16 without ImageNet's last layer, under torchvision's parameter names.

The names are a contract: a standard ImageNet file loads as it is (``backbone_weights``). Its two fully connected layers
are convolutions here; torchvision's matrices hold the same numbers in the same order.

Source: Simonyan and Zisserman, Very Deep Convolutional Networks (ICLR 2015), configuration D, no batch norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from rtda_deploy.errors import ConfigError
from rtda_training.models.blocks import initialise

__all__ = ["VGG16"]

_GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and 3x3 convolutions before each pooling
_HIDDEN = 4096  # channels of fc6 and fc7
_FC6_KERNEL = 7  # ImageNet's map before the classifier: 224 / 32


class VGG16(nn.Module):
    """The five convolution groups of VGG-16, at strides 2 to 32, and its two hidden layers as convolutions.

    Args:
        hidden: Channels of both hidden layers. 4096 is the published network, and the only one that an ImageNet file
            fits; fewer make a small one: fc6 alone holds 103 of 134 million parameters.

    Attributes:
        channels: Of the four outputs.
        hidden: As given.
        discarded: Prefix of names in an ImageNet file that have no use here: its last layer.

    Raises:
        ConfigError: If ``hidden`` is not positive.
    """

    name = "vgg16"
    channels = (128, 256, 512, 512)
    discarded = "classifier.6."

    def __init__(self, hidden: int = _HIDDEN) -> None:
        super().__init__()
        if hidden < 1:
            raise ConfigError(f"hidden must be positive, got {hidden}", hint=f"VGG-16 has {_HIDDEN}")
        self.hidden = hidden
        layers: list[nn.Module] = []
        in_channels = 3
        for out_channels, depth in _GROUPS:
            for _ in range(depth):
                layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
                in_channels = out_channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Conv2d(in_channels, hidden, _FC6_KERNEL, padding=_FC6_KERNEL // 2),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(),
        )
        # With a ReLU's gain: without batch norms it is what carries a signal through 15 layers.
        initialise(self, negative_slope=0.0)

    @property
    def is_published(self) -> bool:
        """Whether the hidden layers have the published width."""
        return self.hidden == _HIDDEN

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The maps after the second to the fifth pooling, at strides 4, 8, 16 and 32."""
        pooled: list[Tensor] = []
        x = image
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(x)
        _, x4, x8, x16, x32 = pooled
        return x4, x8, x16, x32

    def fc7(self, x32: Tensor) -> Tensor:
        """The hidden layers on the last map: (N, 512, H/32, W/32) -> (N, hidden, H/32, W/32)."""
        out: Tensor = self.classifier(x32)
        return out
