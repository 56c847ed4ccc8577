"""An end in order: SIGTERM, which init systems and container engines send, does what Ctrl-C does; and it is quick."""

from __future__ import annotations

import atexit
import contextlib
import gc
import signal
import threading
from types import FrameType
from typing import Iterator, Optional

__all__ = ["Terminated", "exit_quickly", "sigterm_raises"]


class Terminated(SystemExit):
    """SIGTERM came; where nobody catches it, the process exits with 143 (128 + 15)."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self) -> None:
        super().__init__(self.exit_code)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """While the block runs, SIGTERM raises :class:`Terminated` in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's; who calls from another one handles them there
        return

    def stop(number: int, frame: Optional[FrameType]) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_quickly() -> None:
    """Spare the garbage collector its last walk through all that was imported: a third of a second of each stop."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
