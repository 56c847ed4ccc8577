"""Which time between false alarms a calibration supports, and how much footage a longer one needs."""

from __future__ import annotations

import math
import re
from typing import Union

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_runtime.shift.conformal import least_p
from rtda_runtime.shift.cusum import log_bets, log_spans

__all__ = ["apart_seconds", "duration_s", "duration_text", "footage_needed_s", "longest_s", "reachable_s"]

_DELAY = 20  # independent blocks, each further than all of the calibration, in which an alarm has to come
_LEAST_S = 60.0  # an alarm that is false every minute is none
_LEAST_INDEPENDENT = 20  # blocks of a signal that promises anything by itself
_MOST_INDEPENDENT = 10**6
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def reachable_s(independent: float, block_s: float, memory: float, signals: int) -> float:
    """The longest time between false alarms at which a signal still has a say, seconds; 0: none.

    Where every block is as far as the furthest of the calibration, its alarm has to come within twenty independent
    ones: with few blocks none of them is evidence enough for a rarer one.

    Args:
        independent: Blocks of the calibration / memory.
        block_s: Seconds of a block.
        memory: Blocks that are alike.
        signals: Tested together.
    """
    bet = float(log_bets(np.array([least_p(independent)]))[0])
    if bet <= 0:
        return 0.0
    return math.exp(min(log_spans(_DELAY * bet, int(independent)), 100.0)) * block_s * memory / signals


def longest_s(independent: float, block_s: float, memory: float, signals: int) -> float:
    """The longest time between false alarms that so many independent blocks support by themselves, seconds; 0: none.

    It is :func:`reachable_s`, and no more than what a calibration can answer for: it says nothing of what is rarer than
    one of its n blocks; two such blocks that are independent come once in n^2, and no rarer alarm is promised.
    """
    if independent < _LEAST_INDEPENDENT:
        return 0.0
    promised = independent**2 * block_s * memory / signals
    found = min(reachable_s(independent, block_s, memory, signals), promised)
    return found if found >= _LEAST_S else 0.0


def footage_needed_s(apart_s: float, block_s: float, memory: float, signals: int) -> float:
    """Seconds of footage whose blocks support false alarms ``apart_s`` apart, if they are like those that are there."""
    low, high = 2, _MOST_INDEPENDENT
    while low < high:
        middle = (low + high) // 2
        enough = longest_s(middle, block_s, memory, signals) >= apart_s
        low, high = (low, middle) if enough else (middle + 1, high)
    return low * memory * block_s


def duration_s(text: str, option: str = "--shift") -> float:
    """Seconds of ``2h``, ``30m``, ``90s``, ``1d`` or ``1h30m``.

    Raises:
        ConfigError: If it is none of these, or not positive.
    """
    found = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd])", text.strip().lower())
    spelled = "".join(f"{number}{unit}" for number, unit in found)
    total = sum(float(number) * _UNITS[unit] for number, unit in found)
    if spelled != re.sub(r"\s", "", text.lower()) or not 0 < total < math.inf:
        raise ConfigError(
            f"{option} takes a time between false alarms, got {text!r}", hint=f"{option} 2h   (or 30m, 1h30m, 1d)"
        )
    return total


def apart_seconds(asked: Union[str, float]) -> float:
    """Seconds between false alarms, given as such or as ``2h``.

    Raises:
        ConfigError: If it is none, or not positive.
    """
    if isinstance(asked, str):
        return duration_s(asked)
    if not 0 < asked < float("inf"):
        raise ConfigError(f"seconds between false alarms must be positive, got {asked}", hint="shift='2h', or 7200.0")
    return float(asked)


def duration_text(seconds: float) -> str:
    """For people, rounded down: ``50 s``, ``41 min``, ``2.5 h``, ``3 days``."""
    if seconds < 120:
        return f"{int(seconds)} s"
    if seconds < 7200:
        return f"{int(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{int(seconds / 360) / 10:g} h"
    return f"{int(seconds / 86400)} days"
