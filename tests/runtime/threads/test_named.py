"""Threads whose end is awaited."""

from __future__ import annotations

import subprocess
import sys

_INTERRUPTED_JOIN = """
import signal, threading, time
from rtda_runtime.threads.named import NamedThread

def interrupt(number, frame):
    raise KeyboardInterrupt

release = threading.Event()
thread = NamedThread("rtda-test", lambda: release.wait() and None)
thread.start()
signal.signal(signal.SIGALRM, interrupt)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    thread.join_until(time.monotonic() + 600)
    raise SystemExit("not interrupted")
except KeyboardInterrupt:
    pass
assert thread.is_alive() and not thread.join_until(time.monotonic())
release.set()
assert thread.join_until(time.monotonic() + 600) and not thread.is_alive()
"""


def test_a_signal_does_not_make_a_running_thread_pass_for_ended() -> None:
    """In a process of its own, because the timer that ends tests takes too long uses the same signal."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_JOIN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
