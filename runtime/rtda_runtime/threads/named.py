"""Threads with a name that Python, the debugger and ``top -H`` show."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Callable

__all__ = ["NamedThread", "give_way"]

_log = logging.getLogger(__name__)

_KERNEL_NAME = 15  # characters the kernel keeps
_MOMENT_S = 0.2  # a new thread that has not said its name by then was never made


class NamedThread(threading.Thread):
    """A thread that never keeps the program from ending: one stuck inside a driver would do so for ever.

    Args:
        name: Its name for Python; the kernel shows the first 15 characters.
        work: What it does; called once, without arguments.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._asked = False
        self._done = threading.Event()

    def run(self) -> None:
        """Body of the thread."""
        with contextlib.suppress(OSError):  # Python tells the kernel by itself only from 3.14 on
            comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
            comm.write_text(self.name[:_KERNEL_NAME], encoding="ascii", errors="replace")
        try:
            self._work()
        finally:
            self._done.set()

    def start(self) -> None:
        """Start it; where Ctrl-C comes in between, :meth:`began` tells whether it runs."""
        self._asked = True
        super().start()

    def began(self) -> bool:
        """Whether it runs or ran; one that was just asked to start is given a moment."""
        deadline_s = time.monotonic() + _MOMENT_S
        while self._asked and self.ident is None and time.monotonic() < deadline_s:
            time.sleep(_MOMENT_S / 100)
        return self.ident is not None

    def join_until(self, deadline_s: float) -> bool:
        """Wait for its end until ``time.monotonic()`` reaches ``deadline_s``; tells whether it ended.

        A thread that was not started has ended, and so, for itself, has the calling one.
        """
        if self.ident is None or self is threading.current_thread():
            return True
        # Not join() alone: an exception from a signal's handler in it makes Python take a running thread for ended.
        if not self._done.wait(max(0.0, deadline_s - time.monotonic())):
            return False
        self.join(_MOMENT_S)
        return True


def give_way(nice: int) -> None:
    """Lower the priority of the calling thread, on Linux alone; threads that it starts from now on have it, too.

    Args:
        nice: As of ``nice(1)``, 0 to 19: at 10 a thread gets about a tenth of a core that another one wants, at 19 a
            seventieth.
    """
    if not sys.platform.startswith("linux"):
        return  # elsewhere the priority is that of the process
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except OSError as err:
        _log.debug("%s keeps its priority: %s", threading.current_thread().name, err)
