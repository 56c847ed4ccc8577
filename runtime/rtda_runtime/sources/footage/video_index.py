"""The index of a video: which frames it holds, when each is shown, and where decoding has to begin for it.

Packets are read without being decoded. Where they carry times of their own these give the order in which frames are
shown; bare streams and AVI files of pictures that are not stored in that order have none, and are decoded once.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from rtda_runtime.sources.feeds import DemuxedFeed, Feed
from rtda_runtime.sources.ffmpeg import pyav

__all__ = ["VideoIndex", "index_video", "numbered_packets"]

_USUAL_FPS = 25.0  # where nothing says the rate; FFmpeg's own for bare streams
_NO_TIME = np.iinfo(np.int64).min


@dataclasses.dataclass(frozen=True)
class VideoIndex:
    """N frames in P packets.

    Attributes:
        times_ns: int64 (N,), nanoseconds after the first frame, ascending.
        keys: bool (N,), frames that are decoded without any other.
        numbers: int64 (P,), in the order of the file: the number of the frame that a packet holds; -1: none is shown.
        starts: int64 (P,), the packet at which decoding begins for this one.
        pts: int64 (P,), the packet's own time in the file, which no other has; None: there are no such times, and the
            file is read from its beginning.
        counted: Frames were counted by decoding: their number is their place among all that are decoded.
        notes: What a person should know.
    """

    times_ns: np.ndarray
    keys: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    pts: Optional[np.ndarray]
    counted: bool = False
    notes: Tuple[str, ...] = ()


class _Packets(NamedTuple):
    pts: np.ndarray  # int64 (P,), _NO_TIME: none
    keys: np.ndarray  # bool (P,)
    shown: np.ndarray  # bool (P,)
    notes: List[str]


def index_video(feed: Feed) -> VideoIndex:
    """Read all packets of a feed that was just opened; it is at its end afterwards.

    ``counted`` is set where the order of frames is not known without decoding; the caller decodes then.
    """
    found = _read(feed)
    first = int(np.argmax(found.keys)) if found.keys.any() else 0
    found.shown[:first] = False
    if first:
        found.notes.append(f"begins between two key frames: {first} frames before the first one cannot be decoded")
    shown = np.flatnonzero(found.shown)
    pts = found.pts[shown]
    timed = feed.timed and len(shown) > 0 and bool((pts != _NO_TIME).all()) and len(np.unique(pts)) == len(pts)
    reordered = bool(getattr(feed.decoder, "has_b_frames", False))
    if reordered and (not timed or _is_untimed_container(feed, pts)):
        return _unordered(feed, found)
    order = np.argsort(pts, kind="stable") if timed else np.arange(len(shown))
    numbers = np.full(len(found.pts), -1, np.int64)
    numbers[shown[order]] = np.arange(len(shown))
    unique = timed and len(np.unique(found.pts)) == len(found.pts)
    return VideoIndex(
        times_ns=_times_ns(feed, pts[order] if timed else None, len(shown)),
        keys=found.keys[shown[order]],
        numbers=numbers,
        starts=_starts(found.keys, found.pts if timed else None, first),
        pts=found.pts if unique else None,
        notes=tuple(found.notes),
    )


def numbered_packets(feed: Feed, first: int = 0) -> Iterator[Tuple[int, Any]]:
    """Packets that hold something, with their place in the file; the empty one at the end of the file is left out."""
    return ((first + place, packet) for place, packet in enumerate(packet for packet in feed.packets if packet.size))


def _read(feed: Feed) -> _Packets:
    av: Any = pyav()
    pts: List[int] = []
    keys: List[bool] = []
    shown: List[bool] = []
    notes: List[str] = []
    try:
        for _, packet in numbered_packets(feed):
            pts.append(_NO_TIME if packet.pts is None else packet.pts)
            keys.append(feed.jpeg or bool(packet.is_keyframe))
            shown.append(not getattr(packet, "is_discard", False))
    except av.FFmpegError:
        notes.append(f"cannot be read on after {len(pts)} frames")
    claimed = int(feed.stream.frames) if isinstance(feed, DemuxedFeed) else 0
    if len(pts) < claimed and not notes:
        notes.append(f"is cut off: {len(pts)} of {claimed} frames are there")
    return _Packets(np.array(pts, np.int64), np.array(keys, bool), np.array(shown, bool), notes)


def _is_untimed_container(feed: Feed, pts: np.ndarray) -> bool:
    """AVI has no times of its own; FFmpeg makes up ascending ones where it cannot tell how frames are ordered."""
    container = feed.container.format.name if isinstance(feed, DemuxedFeed) else ""
    return "avi" in container.split(",") and bool((np.diff(pts) > 0).all())


def _starts(keys: np.ndarray, pts: Optional[np.ndarray], first: int) -> np.ndarray:
    """For each packet the last key frame before it that is not shown after it; where there is none, the first one."""
    place = np.arange(len(keys))
    before = np.maximum.accumulate(np.where(keys, place, -1))
    starts = before.copy()
    if pts is None:
        return np.maximum(starts, first)
    while True:
        leads = (starts >= 0) & (pts[starts] > pts)
        if not leads.any():
            return np.maximum(starts, first)
        earlier = np.where(starts > 0, before[np.maximum(starts - 1, 0)], -1)
        starts = np.where(leads, earlier, starts)


def _times_ns(feed: Feed, pts: Optional[np.ndarray], count: int) -> np.ndarray:
    if pts is None:
        step_ns = 1_000_000_000 / Fraction(feed.fps or _USUAL_FPS)
        return np.array([round(number * step_ns) for number in range(count)], np.int64)
    assert isinstance(feed, DemuxedFeed)
    tick_ns = 1_000_000_000 * Fraction(feed.stream.time_base)
    first = int(pts[0]) if count else 0
    return np.array([round((int(one) - first) * tick_ns) for one in pts], np.int64)


def _unordered(feed: Feed, found: _Packets) -> VideoIndex:
    """Until it is decoded: each packet might be a frame."""
    count = len(found.pts)
    return VideoIndex(
        times_ns=_times_ns(feed, None, count),
        keys=np.arange(count) == 0,
        numbers=np.arange(count),
        starts=np.zeros(count, np.int64),
        pts=None,
        counted=True,
        notes=(*found.notes, "has no times of its own: frames are counted, and have the times of its rate"),
    )
