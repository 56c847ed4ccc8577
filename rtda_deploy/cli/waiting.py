"""How long threads of torch look out for one another before they sleep."""

from __future__ import annotations

import os

__all__ = ["wait_briefly"]

# GNU OpenMP spins for milliseconds at the end of each parallel loop. Where another program has one of the cores, every
# loop then waits for it: a training on two cores beside one busy process made 0.7 pictures a second, with this 5.5.
_SPINS = "1000"
_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly() -> None:
    """Shorten GNU OpenMP's spinning for what is imported later; a user's own setting stays."""
    if not any(name in os.environ for name in _VARIABLES):
        os.environ[_VARIABLES[0]] = _SPINS
