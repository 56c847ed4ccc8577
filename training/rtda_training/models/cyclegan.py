"""The networks of CycleGAN, with which BDL turns pictures of one domain into the other's style.

Both generators are one module, and both discriminators: several processes need one forward a step.

Instance norm has no weights here, as published; it also undoes the bias of the convolution before it, which stays in
the parameter counts all the same.

Source: Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (ICCV 2017),
appendix 7.2; generator after Johnson et al. (ECCV 2016), discriminator after Isola et al., pix2pix (CVPR 2017).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from rtda_deploy.errors import ConfigError, ModelError

__all__ = ["Discriminators", "Generator", "Generators", "PatchDiscriminator", "Translated"]

_STD = 0.02  # of every weight at the start
_SIZE_MULTIPLE = 4  # two halvings that are doubled back
_LEAST_SIDE = 8  # the map between them is then 2x2: one value alone has no variance, and nothing to reflect
_NEGATIVE_SLOPE = 0.2  # of the discriminator's LeakyReLUs
_MOST_CHANNELS = 8  # of the discriminator, in widths


class Generator(nn.Module):
    """A picture of one domain in the style of the other: float32 (N, 3, H, W) in -1..1, both ways.

    11,378,179 parameters as published (width 64, 9 blocks). The map grows back by transposed convolutions, the
    "fractional-strided" ones of the paper: resizing before a plain convolution avoids their faint checkerboard, at
    four times the multiply-adds in these two layers.

    Args:
        width: Channels of the first layer; four times as many between the halvings.
        blocks: Residual blocks there.

    Raises:
        ConfigError: If ``width`` is not positive or ``blocks`` is negative.
    """

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        if width < 1 or blocks < 0:
            raise ConfigError(
                f"a generator needs a width of at least 1 and 0 blocks or more, got {width} and {blocks}",
                hint="published: width 64, 9 blocks",
            )
        self.width, self.blocks = width, blocks
        self.layers = nn.Sequential(
            *_normed(nn.Conv2d(3, width, 7, padding=3, padding_mode="reflect")),
            *_normed(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)),
            *_normed(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)),
            *(ResidualBlock(4 * width) for _ in range(blocks)),
            *_normed(nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1)),
            *_normed(nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1)),
            nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        height, width = _picture_hw(image)
        if height % _SIZE_MULTIPLE or width % _SIZE_MULTIPLE or min(height, width) < _LEAST_SIDE:
            raise ModelError(
                f"expected height and width in multiples of {_SIZE_MULTIPLE}, at least {_LEAST_SIDE}, "
                f"got {height}x{width} (HxW)",
                hint=f"nearest that works: {_nearest(height)}x{_nearest(width)}",
            )
        translated: Tensor = self.layers(image)
        return translated


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm beside a shortcut; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normed(nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class PatchDiscriminator(nn.Module):
    """Whether each patch of a picture is real: float32 (N, 3, H, W) in -1..1 -> logits (N, 1, h, w), no sigmoid.

    With three layers a patch is 70x70 pixels and there is one in every 8: h = H/8 - 2. 2,764,737 parameters as
    published (width 64, 3 layers).

    Args:
        width: Channels of the first layer; they double with each further one, up to 8 widths.
        layers: Layers of stride 2.

    Raises:
        ConfigError: If a number is not positive.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if width < 1 or layers < 1:
            raise ConfigError(
                f"a discriminator needs a width and layers of at least 1, got {width} and {layers}",
                hint="published: width 64, 3 layers",
            )
        channels = [width * min(2**depth, _MOST_CHANNELS) for depth in range(layers + 1)]
        steps: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(_NEGATIVE_SLOPE, True)]
        for depth in range(1, layers + 1):
            stride = 2 if depth < layers else 1
            steps += [
                nn.Conv2d(channels[depth - 1], channels[depth], 4, stride=stride, padding=1),
                nn.InstanceNorm2d(channels[depth]),
                nn.LeakyReLU(_NEGATIVE_SLOPE, True),
            ]
        self.layers = nn.Sequential(*steps, nn.Conv2d(channels[-1], 1, 4, padding=1))
        self.least_side = 3 * 2**layers  # each of the two layers of stride 1 takes one value off the map
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        height, width = _picture_hw(image)
        if min(height, width) < self.least_side:
            raise ModelError(
                f"this discriminator takes pictures of {self.least_side}x{self.least_side} or more, "
                f"got {height}x{width} (HxW)",
                hint="give it larger pictures, or fewer layers",
            )
        logits: Tensor = self.layers(image)
        return logits


def _normed(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU(inplace=True)


def _initialise(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(child.weight, std=_STD)
            assert child.bias is not None
            nn.init.zeros_(child.bias)


def _picture_hw(image: Tensor) -> tuple[int, int]:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ModelError(
            f"expected pictures (N, 3, H, W), got {tuple(image.shape)}",
            hint="a single picture (3, H, W) becomes a batch by image[None]",
        )
    return int(image.shape[2]), int(image.shape[3])


def _nearest(length: int) -> int:
    return max(_LEAST_SIDE, (length + _SIZE_MULTIPLE // 2) // _SIZE_MULTIPLE * _SIZE_MULTIPLE)


class Translated(NamedTuple):
    """What both generators make of a source and a target batch; all float32 (N, 3, H, W) in -1..1."""

    target: Tensor  # of the source batch
    source: Tensor  # of the target batch
    source_again: Tensor
    target_again: Tensor
    source_kept: Tensor  # source by the generator of source pictures; a copy of the batch where it is not asked for
    target_kept: Tensor


class Generators(nn.Module):
    """Both generators as one module: one forward a step, as several processes need it."""

    def __init__(self, width: int, blocks: int, *, keeps: bool) -> None:
        super().__init__()
        self.to_target = Generator(width, blocks)
        self.to_source = Generator(width, blocks)
        self._keeps = keeps

    def forward(self, source: Tensor, target: Tensor) -> Translated:
        made_target = self.to_target(source)
        made_source = self.to_source(target)
        source_again = self.to_source(made_target)
        target_again = self.to_target(made_source)
        source_kept = self.to_source(source) if self._keeps else source
        target_kept = self.to_target(target) if self._keeps else target
        return Translated(made_target, made_source, source_again, target_again, source_kept, target_kept)


class Discriminators(nn.Module):
    """Both discriminators as one module, one forward a step; scores of real and made pictures of each domain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_source = PatchDiscriminator(width)
        self.of_target = PatchDiscriminator(width)

    def forward(
        self, source: Tensor, made_source: Tensor, target: Tensor, made_target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (
            self.of_source(source),
            self.of_source(made_source),
            self.of_target(target),
            self.of_target(made_target),
        )
