"""How many frames are collected, and how much of the disk they may take; as it is typed and as numbers."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Callable, Dict, Mapping, Tuple

from rtda_deploy.errors import ConfigError
from rtda_runtime.sources.footage.address import parse_seconds

__all__ = ["LIMITS", "CollectOptions", "parse_bytes"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LONGEST = 30  # characters; a size with more is none, and may be too large for a number
_LEAST_DISK = 10**5  # bytes; what a frame of 640x480 takes with its mask and confidence
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"


def parse_bytes(text: str, what: str = "") -> int:
    """``5GB``, ``500 MB`` or ``1.5GiB`` in bytes; a kilobyte has 1000. Without a unit only 0 is a size.

    Raises:
        ConfigError: If it is not of this form; ``what`` stands before it.
    """
    found = re.fullmatch(_NUMBER + r"\s*([A-Za-z]*)", text.strip())
    if not found or found[2].upper() not in _UNITS or len(text) > _LONGEST:
        raise ConfigError(f"{what}{text} is no size on a disk", hint="such as 5GB, 500MB, 1.5TB")
    if not found[2] and float(found[1]):
        raise ConfigError(f"{what}{text} has no unit", hint=f"{what.rpartition(' ')[2]}{found[1]}GB, or MB, TB")
    return round(float(found[1]) * _UNITS[found[2].upper()])


def _disk(text: str, what: str) -> int:
    """What frames may take: not less than some of them do."""
    found = parse_bytes(text, what)
    if found < _LEAST_DISK:
        raise ConfigError(f"{what}{text} has room for no frame", hint="such as disk=5GB")
    return found


def _share(text: str, what: str) -> float:
    found = re.fullmatch(_NUMBER + r"\s*(%?)", text.strip())
    if not found:
        raise ConfigError(f"{what}{text} is no share", hint="such as 5% or 0.05")
    return float(found[1]) / (100.0 if found[2] else 1.0)


def _count(text: str, what: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise ConfigError(f"{what}{text} is no number of frames", hint="such as 500")
    return int(text)


def _rate(text: str, what: str) -> float:
    if not re.fullmatch(_NUMBER, text.strip()):
        raise ConfigError(f"{what}{text} is no number", hint="such as 6, or 0.5: one frame in two minutes")
    return float(text)


def _switch(text: str, what: str) -> bool:
    if text.strip().lower() not in ("on", "off"):
        raise ConfigError(f"{what}{text} is neither on nor off", hint="flip=off runs no second engine")
    return text.strip().lower() == "on"


# What may be typed as KEY=VALUE: the field of CollectOptions, and what reads the value.
LIMITS: Dict[str, Tuple[str, Callable[[str, str], Any]]] = {
    "minute": ("per_minute", _rate),
    "gap": ("gap_s", parse_seconds),
    "disk": ("disk_bytes", _disk),
    "free": ("free_bytes", parse_bytes),
    "class": ("per_class", _count),
    "control": ("control", _share),
    "flip": ("flip", _switch),
}


@dataclasses.dataclass(frozen=True)
class CollectOptions:
    """What is collected.

    Attributes:
        per_minute: Frames that may be kept in a minute, the best of each 60 / per_minute seconds.
        gap_s: Seconds between two frames that are kept, at least.
        disk_bytes: What all kept frames may take; a better frame replaces the least valuable one.
        free_bytes: What stays free of the disk, whoever fills it.
        per_class: Frames that may be kept for one class, the one that the network was least sure of.
        control: Share of the frames that is drawn at random, so that it is known what the others are compared with.
        flip: Whether a second engine looks at chosen frames and their mirror images.
        when: An expression; frames of which it holds go before all others. Empty: there is none.
        blur: Names of classes whose pixels are blurred in the pictures that are written.
    """

    per_minute: float = 6.0
    gap_s: float = 2.0
    disk_bytes: int = 5 * 10**9
    free_bytes: int = 2 * 10**9
    per_class: int = 500
    control: float = 0.05
    flip: bool = True
    when: str = ""
    blur: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("per_minute", "disk_bytes", "per_class"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(
                    f"collecting: {name} must be positive, got {getattr(self, name):g}", hint="leave it out"
                )
        for name in ("gap_s", "free_bytes"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(f"collecting: {name} is {getattr(self, name):g}", hint="0 or more")
        if not 0.0 <= self.control <= 1.0:
            raise ConfigError(f"collecting: control is {self.control:g}", hint="a share, such as 5% or 0.05")

    @classmethod
    def typed(cls, values: Mapping[str, str], **others: Any) -> CollectOptions:
        """Of what was typed, such as ``{"disk": "5GB", "minute": "6"}``.

        Args:
            values: By the keys of :data:`LIMITS`.
            others: Fields as they are.

        Raises:
            ConfigError: If a key is unknown, or a value is not of its form.
        """
        for key, text in values.items():
            if key not in LIMITS:
                known = ", ".join(f"{name}=" for name in LIMITS)
                raise ConfigError(f"collecting knows no limit {key!r}", hint=f"known: {known}")
            name, read = LIMITS[key]
            others[name] = read(text, f"collecting: {key}=")
        return cls(**others)

    @property
    def window_s(self) -> float:
        """So long frames are compared before the best is kept, seconds."""
        return max(60.0 / self.per_minute, self.gap_s)
