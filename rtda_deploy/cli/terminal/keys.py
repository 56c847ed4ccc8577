"""Single keys typed into the terminal while a command runs."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from types import TracebackType
from typing import Any, Optional, Type

__all__ = ["Keys"]


class Keys:
    """Reads keys without waiting for Enter, where stdin is a terminal; Ctrl-C stays what it is.

    The terminal is as before when the block is left.
    """

    def __init__(self, wanted: bool = True) -> None:
        self.active = False
        self._wanted = wanted
        self._before: Any = None

    def __enter__(self) -> Keys:
        if self._wanted and sys.stdin is not None and sys.stdin.isatty():
            import termios
            import tty

            with contextlib.suppress(OSError, ValueError, termios.error):
                terminal = sys.stdin.fileno()
                if os.tcgetpgrp(terminal) == os.getpgrp():  # in the background, asking would stop the process
                    self._before = termios.tcgetattr(terminal)
                    tty.setcbreak(terminal, termios.TCSANOW)
                    self.active = True
        return self

    def pressed(self) -> str:
        """The next key that was pressed, at once; empty where there is none."""
        if not self.active:
            return ""
        terminal = sys.stdin.fileno()
        ready, _, _ = select.select([terminal], [], [], 0)
        return os.read(terminal, 1).decode("ascii", "replace") if ready else ""

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self.active:
            import termios

            self.active = False
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)
