"""How fast a training goes, and what it will take: said early, and only where it is worth saying."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

_EARLY = (1, 2, 5, 10)  # steps after a start that are told, before those of the log
_MEASURED_STEPS = 10  # or so many seconds, whichever comes first, tell what is left; the first step is set aside
_MEASURED_S = 15.0
_WORTH_TELLING_S = 60.0


class Pace:
    """Pictures per second, smoothed, and the seconds that are left.

    Args:
        batch_size: Pictures of a step.
        steps: Left in this stage.
        later: Left in the stages after it.
        clock: Seconds from any start on.
    """

    def __init__(
        self, batch_size: int, steps: int, later: int = 0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._batch_size = batch_size
        self._left = steps
        self._later = later
        self._done = 0
        self._measured_s = 0.0
        self._smooth = 0.0
        self._told = False
        self.restart()

    def restart(self) -> None:
        """What went before was no step."""
        self._last = self._clock()

    def tick(self) -> dict[str, float]:
        """One step is done; what of it goes into the log."""
        now = self._clock()
        seconds = max(1e-9, now - self._last)
        self._last = now
        self._left -= 1
        self._done += 1
        if self._done > 1:  # the first one also makes what all others use
            self._measured_s += seconds
        self._smooth = seconds if self._done <= 2 else 0.9 * self._smooth + 0.1 * seconds
        return {"pictures_per_s": round(self._batch_size / self._smooth, 2), "eta_s": round(self._left * self._smooth)}

    def early(self) -> bool:
        """Whether this step is one of the first, which are told although the log leaves them out."""
        return self._done in _EARLY

    def expectation(self) -> str:
        """Once, as soon as it is known: what the whole will take; empty before, and where it is a matter of seconds."""
        if self._told or (self._done <= _MEASURED_STEPS and self._measured_s < _MEASURED_S):
            return ""
        self._told = True
        each = self._measured_s / (self._done - 1)
        left_s = each * (self._left + self._later)
        if left_s < _WORTH_TELLING_S:
            return ""
        steps = self._left + self._later
        return (
            f"expect  about {_time(left_s)} for the {steps} steps left, at {each:.2g} s each as measured on the first"
            f" {self._done - 1}; validations come on top. Ctrl-C saves, and says how to go on"
        )


def _time(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} minute{'s' if round(minutes) != 1 else ''}"
    return f"{minutes / 60:.1f} hours" if minutes < 48 * 60 else f"{minutes / 60 / 24:.1f} days"
