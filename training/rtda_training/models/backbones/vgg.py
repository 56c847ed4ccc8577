"""VGG-16 without ImageNet's last layer, under torchvision's parameter names.

The names are a contract: a standard ImageNet file loads as it is (``load_backbone_weights``). Its two fully connected
layers are convolutions here; torchvision's matrices hold the same numbers in the same order.

Source: Simonyan and Zisserman, Very Deep Convolutional Networks (ICLR 2015), configuration D, no batch norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from rtda_deploy.errors import ConfigError
from rtda_training.models.backbones.base import Backbone, Channels, Features
from rtda_training.models.blocks import initialise

__all__ = ["HIDDEN", "STAGES", "VGG16"]

# The convolutions that lead to each map by torchvision's numbers; the hidden layers, which read the last one, with it.
STAGES = (
    tuple(f"features.{place}." for place in (0, 2, 5, 7)),
    tuple(f"features.{place}." for place in (10, 12, 14)),
    tuple(f"features.{place}." for place in (17, 19, 21)),
    (*(f"features.{place}." for place in (24, 26, 28)), "classifier."),
)

_DEPTHS = (2, 2, 3, 3, 3)  # 3x3 convolutions before each pooling
HIDDEN = 4096  # channels of fc6 and fc7
_FC6_KERNEL = 7  # ImageNet's map before the classifier: 224 / 32


class VGG16(Backbone):
    """The five convolution groups of VGG-16, at strides 2 to 32, and its two hidden layers as convolutions.

    Args:
        name: ``"vgg16"``.
        channels: Of the last four groups; the first has half as many as the second.
        output_stride: 32.
        hidden: Channels of both hidden layers. 4096 is the published network, and the only one that an ImageNet file
            fits; fewer make a small one: fc6 alone holds 103 of 134 million parameters.

    Raises:
        ConfigError: If ``hidden`` is not positive.
    """

    def __init__(self, name: str, channels: Channels, output_stride: int, hidden: int = HIDDEN) -> None:
        super().__init__(name, channels, output_stride)
        if hidden < 1:
            raise ConfigError(f"hidden must be positive, got {hidden}", hint=f"VGG-16 has {HIDDEN}")
        self.hidden = hidden
        layers: list[nn.Module] = []
        in_channels = 3
        for out_channels, depth in zip((channels[0] // 2, *channels), _DEPTHS, strict=True):
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

    def forward(self, image: Tensor) -> Features:
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
