"""What every source of frames promises."""

from __future__ import annotations

import abc
import dataclasses
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from rtda_deploy.errors import CameraError, SourceError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "CLOCK",
    "LIVE",
    "LOST",
    "STALE",
    "Frame",
    "GrabbingSource",
    "RefusedError",
    "Source",
    "capture_time_ns",
    "frame_rate",
    "mode_text",
    "stale_after_s",
]

CLOCK = "monotonic"  # CLOCK_MONOTONIC, what time.perf_counter_ns and time.monotonic_ns read on Linux

LIVE, STALE, LOST = "live", "stale", "lost"  # states of a source
_STALE_PERIODS, _STALE_AT_LEAST_S = 3.0, 0.5

CATCH_UP_S = 10.0  # of nothing but old frames; then a new connection is quicker than catching up
TOO_SLOW = f"gave only old frames for {CATCH_UP_S:.0f} s: decoding is too slow here, choose its smaller stream"
_OLDEST_NS = 10_000_000_000  # an older time is on another clock, or invalid
_MOST_FPS = 1000.0  # above: a time base, not a rate

_NOTHING: Mapping[str, str] = MappingProxyType({})
_Self = TypeVar("_Self", bound="Source")


class RefusedError(CameraError):
    """A camera that will answer the same at every attempt: a wrong password, an unknown codec."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 (H, W, 3) BGR, C-contiguous; its memory is not reused while it, or a view of it, is referenced.
        captured_ns: When it was captured, nanoseconds on the clock of ``time.perf_counter_ns``; which moment that is
            says :attr:`Source.stamp`. A recording's frames carry the time they were read.
        sequence: 0, 1, 2 ... in the order of the source; a frame that was left out leaves a gap.
        recorded_ns: Where the recording shows it, nanoseconds after its first frame; None: a camera, or pictures.
    """

    image: np.ndarray
    captured_ns: int
    sequence: int
    recorded_ns: Optional[int] = None


class Source(abc.ABC):
    """A camera or recording that is read by one thread.

    Attributes:
        name: The address as typed, any password masked.
        live: A camera: frames come whether or not they are read. False: a recording, which waits.
        paced: A recording whose frames come at their own times, one after the other.
        fps: Frames per second, where the source says so.
        size_wh: Width and height of its (first) frame.
        num_frames: Length, where it has one; a video file's own claim, which may be wrong.
        names: File name of each frame by its number, of a folder or a pattern; else empty.
        clock: Clock of ``captured_ns``.
        stamp: Which moment ``captured_ns`` is: ``driver`` (the camera driver filled its buffer), ``pipeline``
            (GStreamer's source element made the buffer), ``arrival`` (decoded here) or ``read`` (recordings).
        asked: What was asked of a camera, such as ``{"size": "1280x720", "fps": "30", "format": "MJPG"}``.
        granted: What it gives, under the same keys; empty where nothing is known.
        state: ``live``, ``stale`` (no frame for three periods) or ``lost`` (being opened again). Any thread may read
            it. Without reconnecting (:class:`rtda_runtime.sources.reconnect.ReconnectingSource`) always ``live``.
        losses: How many times it was lost so far.
        damaged: Frames left out so far because they were not whole.
        outdated: Frames of a camera left out so far because they were old when they came
            (:class:`rtda_runtime.sources.lateness.Lateness`).
        on_state: Called at each change, in the thread that reads, with the new state and a sentence for the user.
    """

    name: str
    live: bool
    paced: bool = False
    fps: Optional[float] = None
    size_wh: Tuple[int, int]
    num_frames: Optional[int] = None
    names: Sequence[str] = ()
    clock: str = CLOCK
    stamp: str = "read"
    asked: Mapping[str, str] = _NOTHING
    granted: Mapping[str, str] = _NOTHING
    on_state: Optional[Callable[[str, str], None]] = None

    @property
    def state(self) -> str:
        return LIVE

    @property
    def losses(self) -> int:
        return 0

    @property
    def damaged(self) -> int:
        return 0

    @property
    def outdated(self) -> int:
        return 0

    @abc.abstractmethod
    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        """The next frame, or None at the end of the source and ever after.

        Raises:
            CameraError: If a live source gave no frame for ``timeout_s``, or is gone. A network stream waits for its
                own limit of a few seconds where that is longer.
            SourceError: If a recording cannot be read on, or the source is closed.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the device or file. Calling it again does nothing."""

    def interrupt(self) -> None:  # noqa: B027  (most sources have no wait to end)
        """End the waits of :meth:`read` from another thread; it then raises. A driver that is stuck stays so."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _closed_error(self) -> SourceError:
        return SourceError(f"{self.name} is closed", hint="open it again")


class GrabbingSource(Source):
    """A source whose constructor grabs the first frame, which proves it and gives its size.

    Between opening it and the first read a network may be loaded, which takes seconds. A recording's first frame counts
    as read when it is asked for. A camera's is old by then: it is left out, as frames that waited in a buffer are.
    """

    _clock: Callable[[], int]
    _first: Optional[Frame] = None
    _next = 0
    _given = 0
    _damaged = 0
    _outdated = 0
    _ended = False
    _closed = False

    @property
    def damaged(self) -> int:
        return self._damaged

    @property
    def outdated(self) -> int:
        return self._outdated

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self._closed:
            raise self._closed_error()
        frame, self._first = self._first, None
        if frame is not None:
            frame = self._fresh(frame)
        if frame is None and not self._ended:
            frame = self._grab(timeout_s)
        if frame is None:
            self._ended = True
            return None
        self._next = frame.sequence + 1
        self._given += 1
        return frame

    @abc.abstractmethod
    def _grab(self, timeout_s: float) -> Optional[Frame]:
        """Frame number ``_next``, or None at the end; not called after it. Raises what :meth:`read` does."""

    def _fresh(self, first: Frame) -> Optional[Frame]:
        """The first frame with the time at which it is read; None for a camera's that is old by now."""
        now_ns = self._clock()
        if not self.live:
            return dataclasses.replace(first, captured_ns=now_ns)
        if (now_ns - first.captured_ns) / 1e9 <= stale_after_s([1 / self.fps] if self.fps else []):
            return first
        self._next = first.sequence
        self._leave_out_old()
        return None

    def _leave_out_damaged(self) -> None:
        self._damaged += 1
        self._next += 1

    def _leave_out_old(self) -> None:
        self._outdated += 1
        self._next += 1


def capture_time_ns(stamp_ns: int, now_ns: int, *, known: bool = False) -> Optional[int]:
    """``stamp_ns`` if it can be the time of a frame that is here now; else None.

    Args:
        known: Earlier stamps showed that it is on our clock: then a frame may be as old as it says.
    """
    return stamp_ns if 0 < stamp_ns <= now_ns and (known or now_ns - stamp_ns < _OLDEST_NS) else None


def mode_text(size_wh: Optional[Tuple[int, int]], fps: Optional[float], fourcc: Optional[str] = None) -> Dict[str, str]:
    """A camera's mode as :attr:`Source.asked` and :attr:`Source.granted` tell it, without what is not known."""
    size = f"{size_wh[0]}x{size_wh[1]}" if size_wh else None
    found = {"size": size, "fps": f"{fps:g}" if fps else None, "format": fourcc}
    return {key: value for key, value in found.items() if value}


def stale_after_s(periods_s: Iterable[float]) -> float:
    """How long nothing may come before it counts as stale, given the usual times between two frames."""
    return max(_STALE_AT_LEAST_S, *(_STALE_PERIODS * period_s for period_s in periods_s), 0.0)


def frame_rate(claimed: float) -> Optional[float]:
    """Frames per second that a library claims; None where it cannot be a rate."""
    return float(claimed) if 0 < claimed < _MOST_FPS else None
