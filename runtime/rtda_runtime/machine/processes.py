"""What belongs to the process that opened it: threads, a GPU's memory, a camera. Other processes open their own."""

from __future__ import annotations

from typing import NoReturn

from rtda_deploy.errors import RtdaError

__all__ = ["OfOneProcess"]


class _NotPicklableError(RtdaError, TypeError):
    """A ``TypeError`` too, which is what ``pickle`` and its users expect."""


class OfOneProcess:
    """Cannot be pickled, nor copied, and says what to do instead."""

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise _NotPicklableError(
            f"a {name} can be neither pickled nor copied",
            why="its engine, memory and threads belong to the process that opened it",
            hint=f"give the other process the path of the model, and call {name}.open(path) there",
        )
