"""What reaches a running command from outside: single keys typed into the terminal, and signals.

SIGTERM, which init systems and container engines send, stops it as Ctrl-C does: in order, and quickly.

A second signal does not interrupt what the first began to finish.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Callable, Iterator, List, Optional, Type

__all__ = ["Keys", "Terminated", "exit_quickly", "stops_in_order"]

_PATIENCE_S = 3.0  # a stop may take so long before one more signal ends it


class Terminated(SystemExit):
    """SIGTERM came; where nobody catches it, the process exits with 143 (128 + 15)."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self) -> None:
        super().__init__(self.exit_code)


@contextlib.contextmanager
def stops_in_order(first: Optional[Callable[[int], bool]] = None) -> Iterator[None]:
    """While the block runs, SIGINT raises ``KeyboardInterrupt`` and SIGTERM :class:`Terminated` in the main thread.

    The first of them does. The next is passed over, because people and init systems send several and what is being
    finished would be broken; one more, or one that comes after ``_PATIENCE_S``, raises again.

    Args:
        first: Given the first signal's number; where it gives True, it sees to the end and nothing is raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's; who calls from another one handles them there
        return

    arrived_s: List[float] = []
    process = os.getpid()

    def stop(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != process and number == signal.SIGINT:
            return  # a worker: whoever started it ends it
        arrived_s.append(time.monotonic())
        if len(arrived_s) == 1 and os.getpid() == process and first is not None and first(number):
            return
        if len(arrived_s) == 2 and arrived_s[1] - arrived_s[0] < _PATIENCE_S:
            return
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a background job ignores it
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived_s:
            atexit.register(_ignore_signals)


def _ignore_signals() -> None:
    """All is finished: a second signal that comes while Python ends would change the exit code to its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def exit_quickly() -> None:
    """Skip the last garbage collection over all that was imported, which takes a third of a second at each stop."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


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
