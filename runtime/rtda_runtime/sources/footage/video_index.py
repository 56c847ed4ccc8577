"""The index of a video: which frames it holds, when each is shown, and where decoding has to begin for it.

Packets are read without being decoded. Their own times give the order in which frames are shown. Bare streams, AVI
and MPEG-1 files lack some; where their pictures are not stored in the order of showing, they are decoded once.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from rtda_runtime.sources.feeds import DemuxedFeed, Feed, is_cover
from rtda_runtime.sources.ffmpeg import pyav
from rtda_runtime.sources.footage.video_keys import believes_all_keys, is_shown, stands_alone, unit_length_bytes

__all__ = ["VideoIndex", "VideoPackets", "index_by_decoding", "index_by_times", "numbered_packets", "read_packets"]

_USUAL_FPS = 25.0  # where nothing says the rate; FFmpeg's own for bare streams
_NO_TIME = np.iinfo(np.int64).min
_MAKES_UP_TIMES = ("avi", "mpeg")  # what FFmpeg makes up for them is wrong where pictures are reordered
_NEAR_END = 0.9  # of its claimed length; a video that ends before lacks a part
_TS_PACKETS = (188, 192, 204)  # bytes of a packet of MPEG-TS, with a time before it, with a checksum after it
_JUMP_S = 0.5  # a key frame that is shown so long before an earlier one: the clock was set back, or files were joined


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
        counted: Packets hold several frames: the number of a frame is its place among all that are decoded.
        notes: What a person should know.
    """

    times_ns: np.ndarray
    keys: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    pts: Optional[np.ndarray]
    counted: bool = False
    notes: Tuple[str, ...] = ()


@dataclasses.dataclass
class VideoPackets:
    """What the packets of a file say, in its order.

    Attributes:
        pts: int64 (P,), their own times, in ticks.
        keys: bool (P,), what is decoded without any other.
        shown: bool (P,), what is to be seen.
        clock: int64 (P,), the same where they do not jump back.
        timed: Every one that is shown has a time of its own in ``clock``, which tells the order.
        reordered: Pictures are not stored in the order in which they are shown.
        tick_ns: Of ``pts``.
        step_ns: From one frame to the next, where there are no times.
        notes: What a person should know.
    """

    pts: np.ndarray
    clock: np.ndarray
    keys: np.ndarray
    shown: np.ndarray
    timed: bool
    reordered: bool
    tick_ns: Fraction
    step_ns: Fraction
    notes: List[str]

    @property
    def tells_order(self) -> bool:
        """Whether the order in which frames are shown is known without decoding."""
        return self.timed or not self.reordered


def read_packets(feed: Feed) -> VideoPackets:
    """Read all packets of a feed that was just opened; it is at its end afterwards."""
    pts, keys, shown, notes = _read(feed)
    stream = feed.stream if isinstance(feed, DemuxedFeed) else None
    codec = feed.decoder.codec
    if len(keys) > 1 and all(keys) and not believes_all_keys(codec.name, getattr(codec, "intra_only", True)):
        keys = [place == 0 for place in range(len(keys))]
        notes.append("does not tell its key frames: each frame is reached from the first")
    container = feed.container.format.name if isinstance(feed, DemuxedFeed) else ""
    reordered = bool(getattr(feed.decoder, "has_b_frames", False))
    found = VideoPackets(
        pts=np.array(pts, np.int64),
        clock=np.array(pts, np.int64),
        keys=np.array(keys, bool),
        shown=np.array(shown, bool),
        timed=False,
        reordered=reordered,
        tick_ns=1_000_000_000 * Fraction(stream.time_base if stream is not None else 1),
        step_ns=1_000_000_000 / Fraction(feed.fps or _USUAL_FPS),
        notes=notes,
    )
    if feed.timed and not (reordered and container in _MAKES_UP_TIMES):
        _find_times(found)
    if isinstance(feed, DemuxedFeed):
        notes.extend(_lacking(feed, found))
    return found


def _find_times(packets: VideoPackets) -> None:
    shown = packets.pts[packets.shown]
    if (shown == _NO_TIME).any():
        return
    clock, jumps = _without_jumps(packets)
    if len(np.unique(clock[packets.shown])) < len(shown):
        return
    packets.clock, packets.timed = clock, True
    if jumps:
        packets.notes.append(f"its clock jumps back ({jumps} times): there the times go on from the frame before")


def _lacking(feed: DemuxedFeed, packets: VideoPackets) -> Iterator[str]:
    """What a file says of itself and does not hold."""
    count, claimed = len(packets.pts), int(feed.stream.frames)
    length_s, last_s = float(feed.container.duration or 0) / 1e6, None
    if packets.timed and packets.shown.any():
        clock = packets.clock[packets.shown]
        last_s = float((int(clock.max() - clock.min()) * packets.tick_ns + packets.step_ns) / 1_000_000_000)
    if count < claimed:
        # An edit list of mp4 leaves frames away; the length that the file claims is that of the rest.
        edited = "mp4" in feed.container.format.name and last_s is not None
        if not edited or float(last_s or 0.0) <= length_s - float(packets.step_ns) / 2e9:
            yield f"is cut off: {count} of {claimed} frames are there"
    elif last_s is not None and not claimed and last_s < _NEAR_END * length_s:
        yield f"is cut off, or its sound is longer: it ends at {last_s:.3g} of {length_s:.3g} s"
    size = int(feed.container.size or 0)
    if feed.container.format.name == "mpegts" and all(size % packet for packet in _TS_PACKETS):
        yield "is cut off: its last packet is not whole"
    videos = sum(not is_cover(stream) for stream in feed.container.streams.video)
    if videos > 1:
        yield f"holds {videos} videos: the first one is read"


def index_by_times(packets: VideoPackets) -> VideoIndex:
    """The index where :attr:`VideoPackets.tells_order`."""
    first = _first_key(packets)
    shown = np.flatnonzero(packets.shown & (np.arange(len(packets.pts)) >= first))
    clock = packets.clock if packets.timed else np.arange(len(packets.pts))
    order = shown[np.argsort(clock[shown], kind="stable")]
    return _index(packets, order, clock, [*packets.notes, *_missed(first)])


def index_by_decoding(packets: VideoPackets, places: Sequence[int]) -> VideoIndex:
    """The index where the order is not known before.

    Args:
        places: The packet of each frame that decoding gave, in the order it gave them.
    """
    order = np.array(places, np.int64)
    notes = [*packets.notes, *_missed(_first_key(packets))]
    if len(np.unique(order)) == len(order):
        clock = np.full(len(packets.pts), -1, np.int64)
        clock[order] = np.arange(len(order))
        return _index(packets, order, clock, notes)
    return VideoIndex(
        times_ns=_rated(packets, len(order)),
        keys=np.arange(len(order)) == 0,
        numbers=np.arange(len(packets.pts)),
        starts=np.zeros(len(packets.pts), np.int64),
        pts=None,
        counted=True,
        notes=(*notes, "packs several frames together: each is reached from the first"),
    )


def numbered_packets(feed: Feed, first: int = 0) -> Iterator[Tuple[int, Any]]:
    """Packets that hold something, with their place in the file; the empty one at the end of the file is left out."""
    return ((first + place, packet) for place, packet in enumerate(packet for packet in feed.packets if packet.size))


def _read(feed: Feed) -> Tuple[List[int], List[bool], List[bool], List[str]]:
    av: Any = pyav()
    pts: List[int] = []
    keys: List[bool] = []
    shown: List[bool] = []
    codec = feed.decoder.codec.name
    length_bytes = unit_length_bytes(codec, feed.decoder.extradata)
    try:
        for _, packet in numbered_packets(feed):
            key = feed.jpeg or (packet.is_keyframe and stands_alone(codec, bytes(packet), length_bytes))
            pts.append(_NO_TIME if packet.pts is None else packet.pts)
            keys.append(bool(key))
            seen = codec != "vp8" or is_shown(codec, bytes(packet))
            shown.append(seen and not getattr(packet, "is_discard", False))
    except av.FFmpegError:
        return pts, keys, shown, [f"cannot be read on after {len(pts)} frames"]
    return pts, keys, shown, []


def _first_key(packets: VideoPackets) -> int:
    return int(np.argmax(packets.keys)) if packets.keys.any() else 0


def _missed(first: int) -> List[str]:
    if not first:
        return []
    return [f"begins between two key frames: what stands before the first one is lost ({first} of its packets)"]


def _index(packets: VideoPackets, order: np.ndarray, clock: np.ndarray, notes: Sequence[str]) -> VideoIndex:
    """The index of frames whose packets are ``order``; ``clock`` (P,) tells which of two packets is shown first."""
    numbers = np.full(len(packets.pts), -1, np.int64)
    numbers[order] = np.arange(len(order))
    unique = packets.timed and len(np.unique(packets.pts)) == len(packets.pts)
    if packets.timed:
        ticks = [int(one) for one in clock[order]]
        times_ns = np.array([round((one - ticks[0]) * packets.tick_ns) for one in ticks], np.int64)
    else:
        times_ns = _rated(packets, len(order))
    return VideoIndex(
        times_ns=times_ns,
        keys=packets.keys[order],
        numbers=numbers,
        starts=_starts(packets.keys, clock),
        pts=packets.pts if unique else None,
        notes=tuple(notes),
    )


def _rated(packets: VideoPackets, count: int) -> np.ndarray:
    return np.array([round(number * packets.step_ns) for number in range(count)], np.int64)


def _starts(keys: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """For each packet the last key frame before it that is not shown after it; where there is none, the first one."""
    place = np.arange(len(keys))
    before = np.maximum.accumulate(np.where(keys, place, -1))  # the last key frame up to each packet
    starts = before.copy()
    while True:
        leads = (starts >= 0) & (clock[starts] > clock)
        if not leads.any():
            return np.maximum(starts, int(np.argmax(keys)) if len(keys) else 0)
        starts = np.where(leads, np.where(starts > 0, before[starts - 1], -1), starts)


def _without_jumps(packets: VideoPackets) -> Tuple[np.ndarray, int]:
    """The times of packets, in ticks; where they jump back, they go on from the latest one. And how often they do."""
    clock = packets.pts.copy()
    far = int(_JUMP_S * 1_000_000_000 / packets.tick_ns)
    step = max(1, round(packets.step_ns / packets.tick_ns))
    latest = int(clock[0]) if len(clock) else 0
    shift = jumps = 0
    for place, time in enumerate(packets.pts):
        if time == _NO_TIME:
            continue
        if packets.keys[place] and int(time) + shift < latest - far:
            shift = latest + step - int(time)
            jumps += 1
        clock[place] = int(time) + shift
        latest = max(latest, int(clock[place]))
    return clock, jumps
