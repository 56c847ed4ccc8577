"""Power mode, clocks, temperature and power of a Jetson while something runs on it; of other machines nothing."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, Optional, Type

from rtda_deploy.errors import DeviceError
from rtda_runtime.machine.jetson import read_board
from rtda_runtime.machine.tegrastats import Reading, Tegrastats, summarize_readings

__all__ = ["BoardWatch"]

_EVERY_MS = 1000
_KEPT = 3600  # readings: an hour
_FRESH_S = 5.0


class BoardWatch:
    """Power mode and clocks once, temperature and power as it goes.

    Args:
        root: Where ``/etc``, ``/proc`` and ``/sys`` begin.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.board = read_board(root)
        self._watch: Optional[Tegrastats] = None

    def __enter__(self) -> BoardWatch:
        if self.board.is_jetson and shutil.which("tegrastats") is not None:
            with contextlib.suppress(DeviceError):
                self._watch = Tegrastats(_EVERY_MS, kept=_KEPT)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._watch is not None:
            self._watch.close()

    @property
    def clocks_locked(self) -> Optional[bool]:
        """Whether the GPU's clock cannot move; None where that is not known."""
        clock = self.board.gpu_clock
        return None if clock is None else clock.locked

    def line(self) -> str:
        """``MODE_30W_ALL, clocks not locked``; empty where nothing is known."""
        parts = [self.board.power_mode.name] if self.board.power_mode is not None else []
        locked = self.clocks_locked
        if locked is not None:
            parts.append("clocks locked" if locked else "clocks not locked")
        return ", ".join(parts)

    def now(self) -> str:
        """``54 °C 18.4 W``, as far as the board shows it; empty where it does not."""
        reading = self._newest()
        if reading is None:
            return ""
        parts = [f"{reading.hottest_c:.0f} °C"] if reading.hottest_c is not None else []
        if reading.power_w is not None:
            parts.append(f"{reading.power_w:.1f} W")
        return " ".join(parts)

    def to_dict(self) -> Optional[Dict[str, Any]]:
        """The board and what was read while it ran, JSON-ready; None where this is no Jetson."""
        if not self.board.is_jetson:
            return None
        readings = self._watch.between(0.0, float("inf")) if self._watch is not None else []
        return {**self.board.to_dict(), "telemetry": summarize_readings(readings).to_dict() if readings else None}

    def _newest(self) -> Optional[Reading]:
        if self._watch is None:
            return None
        now = self._watch.now_s()
        readings = self._watch.between(now - _FRESH_S, now)
        return readings[-1] if readings else None
