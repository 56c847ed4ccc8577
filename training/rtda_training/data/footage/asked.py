"""What is asked of footage as a data set: which frames are looked at, how many are kept, how much is held back."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import List, Optional, Union

from rtda_deploy.errors import ConfigError, DataError
from rtda_runtime.sources.footage.address import FOOTAGE_OPTIONS, FootageAddress, parse_seconds
from rtda_training.data.address import DataAddress
from rtda_training.data.footage.select import SelectOptions, parse_count

__all__ = ["DEFAULT_HOLD_BACK", "FRAME_OPTIONS", "AskedFrames", "HoldBack", "places"]

DEFAULT_HOLD_BACK = "20%"
FRAME_OPTIONS = ("select", "count", "hold_back")  # of the address, beside those of the footage itself
_LEAST_EVERY_S = 0.5  # nearer frames differ by little
_CANDIDATES = 4  # frames that are looked at for each that is kept
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclasses.dataclass(frozen=True)
class HoldBack:
    """How much of the end is kept for ranking: a share of the whole time, or seconds.

    Attributes:
        text: As typed.
        share: 0 to 1; 0 where seconds were typed.
        seconds: 0 where a share was typed.
    """

    text: str
    share: float
    seconds: float

    @classmethod
    def parse(cls, text: str, where: str) -> HoldBack:
        """``20%``, ``60s``, ``1:30`` or ``0``.

        Raises:
            ConfigError: If it is none of them, or everything.
        """
        percent = _PERCENT.fullmatch(text.strip())
        share = float(percent.group(1)) / 100 if percent else 0.0
        if share >= 1:
            raise ConfigError(
                f"{where}: hold_back={text} leaves nothing to train on", hint=f"such as hold_back={DEFAULT_HOLD_BACK}"
            )
        return cls(text, share, 0.0 if percent else parse_seconds(text, f"{where}: hold_back="))

    def of(self, length_s: float, where: str) -> float:
        """Seconds that are held back of so many.

        Raises:
            DataError: If it is all of them.
        """
        found = self.share * length_s + self.seconds
        if found and found >= length_s > 0:
            raise DataError(
                f"hold_back={self.text} leaves nothing to train on: {where} is {length_s:.1f} s long",
                hint="hold less back, such as hold_back=20%, or nothing: hold_back=0",
            )
        return found


@dataclasses.dataclass(frozen=True)
class AskedFrames:
    """The address of footage with what else is asked of it.

    Attributes:
        footage: Which recordings, which part of them, at which rate.
        select: Whether frames are chosen; else all of that rate are taken.
        count: At most so many are kept; 0: all that pass; a float: that share of those looked at.
        hold_back: The part at the end that is not trained on.
    """

    footage: FootageAddress
    select: bool
    count: Union[int, float]
    hold_back: HoldBack

    @classmethod
    def of(cls, address: DataAddress) -> AskedFrames:
        """Read the options of an address of the kind ``video`` or ``bag``.

        Raises:
            ConfigError: If an option is unknown or makes no sense.
        """
        address.allow(
            "list", *(key for key in FOOTAGE_OPTIONS if key != "topic" or address.kind == "bag"), *FRAME_OPTIONS
        )
        own = {key: value for key, value in address.options.items() if key in FOOTAGE_OPTIONS}
        footage = FootageAddress.of(address.kind, address.path, own)
        select = address.choice("select", ("auto", "none")) != "none"
        if not select and "count" in address.options:
            raise ConfigError(
                f"{address}: select=none takes every frame, count= chooses so many",
                hint="leave one of the two away; every=2s takes fewer",
            )
        count = parse_count(address.options["count"]) if "count" in address.options else SelectOptions().count
        hold_back = HoldBack.parse(
            address.options.get("hold_back", DEFAULT_HOLD_BACK), f"{address.kind}:{address.path}"
        )
        return cls(footage, select, count, hold_back)

    def every_s(self, length_s: float) -> Optional[float]:
        """Seconds between frames that are looked at, of footage of this length; None: every frame."""
        if self.footage.every_s is not None or not self.select:
            return self.footage.every_s
        if isinstance(self.count, float) or not self.count:
            return _LEAST_EVERY_S
        return max(_LEAST_EVERY_S, length_s / (_CANDIDATES * self.count))


def places(address: DataAddress) -> List[Path]:
    """The files and folders that an address of footage names, for those who must not write there."""
    return FootageAddress(address.kind, address.path).places()
