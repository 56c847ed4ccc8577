"""What every sink promises."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Mapping, Optional, Type, TypeVar

from rtda_runtime.result import Result

__all__ = ["Sink"]

_Self = TypeVar("_Self", bound="Sink")


class Sink(abc.ABC):
    """Something that takes results: a video file, a folder of masks, viewers.

    In a pipeline each sink has a thread of its own, which makes every call of :meth:`write` and the last one of
    :meth:`close`. An exception of :meth:`write` stops this sink alone; the pipeline tells of it and goes on.

    Attributes:
        note: What to tell a person once it is open, such as where to look. It may hold a token: not for logs.
        name: What its thread (``rtda-<name>``), statistics and messages call it.
        keeps: Nothing may be lost: under the policy ``every`` the pipeline waits for it. False: it takes the newest
            result when it is ready for one, and the others are counted as its own drops.
    """

    name: str = "sink"
    keeps: bool = False
    note: str = ""

    @abc.abstractmethod
    def write(self, result: Result) -> Mapping[str, float]:
        """Take one result; gives the milliseconds spent per stage, such as ``overlay`` and ``encode``."""

    def on_state(self, state: str, sentence: str) -> None:  # noqa: B027, most sinks need not know
        """Told, from the reader's thread, when the source becomes ``live``, ``stale`` or ``lost``; must not wait."""

    @abc.abstractmethod
    def close(self) -> None:
        """Finish what is being written. Calling it again does nothing."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
