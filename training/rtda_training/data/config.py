"""How a picture is changed on its way into the network: the tables ``[augment]`` and ``[input]`` of a recipe."""

from __future__ import annotations

import dataclasses

from rtda_deploy.errors import ConfigError
from rtda_deploy.spec import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["AugmentConfig", "InputConfig"]


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Changes to each picture of both domains, drawn anew each time; 0 or false switches one off."""

    flip: bool = True
    scale_min: float = 1.0  # a crop of the network's size from the picture scaled by a factor in this range
    scale_max: float = 1.0
    brightness: float = 0.0  # largest relative change
    contrast: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0  # probability of a Gaussian blur, sigma 0.3..1.5 pixels

    def __post_init__(self) -> None:
        if not 0.25 <= self.scale_min <= self.scale_max <= 4.0:
            raise ConfigError(
                f"augment.scale_min {self.scale_min} and scale_max {self.scale_max} must lie in 0.25..4",
                hint="1 and 1 leave pictures as they are",
            )
        for name in ("brightness", "contrast", "saturation", "blur"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"augment.{name} must lie between 0 and 1, got {getattr(self, name)}", hint="0 switches it off"
                )


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How pixels become the network's input; goes into the ModelSpec."""

    channel_order: str = "rgb"
    pixel_scale: float = 1.0 / 255.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "linear"
