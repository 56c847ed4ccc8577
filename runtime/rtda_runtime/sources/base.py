"""What every source of frames promises."""

from __future__ import annotations

import abc
import dataclasses
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Tuple, Type, TypeVar

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CLOCK", "Frame", "Source"]

CLOCK = "monotonic"  # CLOCK_MONOTONIC, what time.perf_counter_ns and time.monotonic_ns read on Linux

_Self = TypeVar("_Self", bound="Source")


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 (H, W, 3) BGR, C-contiguous; a new array for each frame.
        captured_ns: When it was captured, nanoseconds on the clock of ``time.perf_counter_ns``. A recording's frames
            carry the time they were read.
        sequence: 0, 1, 2 ... in the order of the source.
    """

    image: np.ndarray
    captured_ns: int
    sequence: int


class Source(abc.ABC):
    """Something that gives frames, from one thread.

    Attributes:
        name: The address as typed, any password masked.
        live: A camera: frames come whether or not they are read. False: a recording, which waits.
        fps: Frames per second, where the source says so.
        size_wh: Width and height of its (first) frame.
        num_frames: Length, where it has one; a video file's own claim, which may be wrong.
        clock: Clock of ``captured_ns``.
    """

    name: str
    live: bool
    fps: Optional[float] = None
    size_wh: Tuple[int, int]
    num_frames: Optional[int] = None
    clock: str = CLOCK

    @abc.abstractmethod
    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        """The next frame, or None at the end of the source and ever after.

        Raises:
            CameraError: If a live source gave no frame for ``timeout_s``, or is gone.
            SourceError: If a recording cannot be read on, or the source is closed.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the device or file. Calling it again does nothing."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
