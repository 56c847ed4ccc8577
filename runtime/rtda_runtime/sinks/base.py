"""What every sink promises."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Mapping, Optional, Type, TypeVar

from rtda_runtime.result import Result

__all__ = ["Sink"]

_Self = TypeVar("_Self", bound="Sink")


class Sink(abc.ABC):
    """Something that takes results: a video file, a folder of masks."""

    @abc.abstractmethod
    def write(self, result: Result) -> Mapping[str, float]:
        """Take one result; gives the milliseconds spent per stage, such as ``overlay`` and ``encode``."""

    @abc.abstractmethod
    def close(self) -> None:
        """Finish what is being written. Calling it again does nothing."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
