"""One limit for every wait of the tests: for what should come at once, and on a busy machine comes late.

A test waits for what it expects (an event, the end of a process) and looks at what came, never at how long that took. A
wait that lasts so long has failed. What hangs without a limit of its own, such as a program that a test starts, is
ended by pytest's ``timeout``, which is longer.
"""

import time
from typing import Any, Callable

PATIENCE_S = 600.0


def wait_for(condition: Callable[[], Any], what: str = "it") -> None:
    """Return once ``condition()`` is true; fail if it does not become so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.002)
