"""A video read by PyAV: an index of all its packets, and frames by number."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import sys
from pathlib import Path
from typing import Any, Dict, Generator, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from rtda_deploy.pictures.whole import jpeg_is_whole
from rtda_runtime.sources.base import RefusedError
from rtda_runtime.sources.feeds import DemuxedFeed, Feed, open_film_feed
from rtda_runtime.sources.ffmpeg import pyav
from rtda_runtime.sources.film_errors import film_error
from rtda_runtime.sources.footage.base import RecordedFrame, Recording
from rtda_runtime.sources.footage.video_index import (
    VideoIndex,
    VideoPackets,
    index_by_decoding,
    index_by_times,
    numbered_packets,
    read_packets,
)
from rtda_runtime.sources.shown import ShownPictures

__all__ = ["VideoRecording"]

_WORTH_SEEKING = 100  # packets; fewer are read over in less time than a jump takes
_SKIPS_UNREFERRED = ("h264", "hevc", "mpeg2video", "mpeg4")  # frames that no other is made from need not be decoded
_TS_MARGIN_S = 1  # MPEG-TS has no index: a jump leads to when a packet was sent, which is before it is shown
_MOST_AHEAD = 16  # frames that a decoder may give before an earlier one: the largest buffer of H.264 and HEVC


class _Run(NamedTuple):
    """Packets that are decoded one after the other, by a decoder that knows nothing of those before."""

    first: int
    last: int
    numbers: Set[int]  # the frames that are wanted
    alone: bool  # each is decoded without any other


class VideoRecording(Recording):
    """The first video of a file, cover pictures aside.

    Args:
        path: A file that was checked to be there.

    Raises:
        SourceError: If it is no video, or holds no frame that can be decoded.
    """

    kind = "video"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.files = (path,)
        self._path = path
        self._index = self._read_index()
        self.times_ns, self.keys, self.notes = self._index.times_ns, self._index.keys, self._index.notes
        self.size_wh = self._size_of_first()

    def frames(self, numbers: Sequence[int]) -> Iterator[RecordedFrame]:
        if not len(numbers):
            return
        given = 0
        for number, image in self._decoded(numbers):
            time_ns = int(self.times_ns[number])
            given += 1
            yield RecordedFrame(image, number, time_ns, time_ns)
        if not given:
            raise film_error(
                self._path, f"holds no frame that can be decoded among the {len(numbers)} that were asked for"
            )

    def _open(self) -> Feed:
        av: Any = pyav()
        try:
            return open_film_feed(self._path)
        except (av.FFmpegError, RefusedError) as err:
            raise film_error(self._path, err) from err

    def _size_of_first(self) -> Tuple[int, int]:
        with contextlib.closing(self._decoded(range(len(self.times_ns)))) as frames:
            for _, image in frames:
                self.damaged = 0
                return (image.shape[1], image.shape[0])
        raise film_error(self._path, "holds no frame that can be decoded")

    def _read_index(self) -> VideoIndex:
        with contextlib.closing(self._open()) as feed:
            packets = read_packets(feed)
        if packets.tells_order and packets.keys.any():
            return self._without_leading(packets, index_by_times(packets))
        with contextlib.closing(self._open()) as feed:
            return index_by_decoding(packets, _Decoder(feed).all_places())

    def _without_leading(self, packets: VideoPackets, index: VideoIndex) -> VideoIndex:
        """The index without the frames that are shown before the first key frame, and cannot be decoded."""
        leading = range(int(np.flatnonzero(index.keys)[0]) if index.keys.any() else 0)
        if not leading:
            return index
        with contextlib.closing(self._open()) as feed:
            decoder = _Decoder(feed, index)
            found = [number for run in _runs(index, leading) for number, _ in decoder.decode(run)]
        lost = np.isin(index.numbers, sorted(set(leading) - set(found)))
        return index_by_times(dataclasses.replace(packets, shown=packets.shown & ~lost))

    def _decoded(self, numbers: Sequence[int]) -> Generator[Tuple[int, np.ndarray], None, None]:
        with contextlib.closing(self._open()) as feed:
            decoder = _Decoder(feed, self._index)
            for run in _runs(self._index, numbers):
                found = 0
                for number, image in decoder.decode(run):
                    found += 1
                    yield number, image
                self.damaged += len(run.numbers) - found


class _Decoder:
    """Decodes runs of packets, in the order of the file."""

    def __init__(self, feed: Feed, index: Optional[VideoIndex] = None) -> None:
        self._feed = feed
        self._numbers = index.numbers if index is not None else np.zeros(0, np.int64)
        self._pts = index.pts if index is not None else None
        self._counted = index is not None and index.counted
        self._skips = index is not None and not index.counted and feed.decoder.name in _SKIPS_UNREFERRED
        self._failed = pyav().FFmpegError
        self._packets = numbered_packets(feed)
        self._next = 0  # the packet that is read next
        self._shown = ShownPictures()

    def decode(self, run: _Run) -> Iterator[Tuple[int, np.ndarray]]:
        """The frames of a run that are whole, by their numbers."""
        waiting: List[int] = []  # a heap of numbers
        images: Dict[int, np.ndarray] = {}
        wanted = sorted(run.numbers, reverse=True)
        for number, picture in self._numbered(self._pictures(run)):
            late = not wanted or number < wanted[-1]  # one after it was given already
            if number not in run.numbers or number in images or late or picture.is_corrupt:
                continue
            images[number] = self._shown.image(picture)
            heapq.heappush(waiting, number)
            while waiting and (waiting[0] == wanted[-1] or len(waiting) > _MOST_AHEAD):
                done = heapq.heappop(waiting)
                while wanted and wanted[-1] <= done:
                    wanted.pop()
                yield done, images.pop(done)
        while waiting:
            done = heapq.heappop(waiting)
            yield done, images.pop(done)

    def all_places(self) -> List[int]:
        """The packets of all pictures that the file gives, in the order in which they come."""
        whole = _Run(0, sys.maxsize - 1, set(), alone=False)
        return [int(picture.pts) for picture in self._pictures(whole) if picture.pts is not None]

    def _numbered(self, pictures: Iterator[Any]) -> Iterator[Tuple[int, Any]]:
        if self._counted:
            yield from enumerate(pictures)
            return
        for picture in pictures:
            if picture.pts is not None and 0 <= picture.pts < len(self._numbers):
                yield int(self._numbers[picture.pts]), picture

    def _pictures(self, run: _Run) -> Iterator[Any]:
        """Decode a run; each picture carries the place of its packet in the file as its time."""
        self._go_to(run.first)
        for place, packet in self._read_to(run.last):
            if place < run.first or (run.alone and int(self._numbers[place]) not in run.numbers):
                continue
            if self._feed.jpeg and not jpeg_is_whole(bytes(packet)):
                continue
            if self._skips:
                wanted = int(self._numbers[place]) in run.numbers
                self._feed.decoder.skip_frame = "DEFAULT" if wanted else "NONREF"
            packet.pts, packet.dts = place, None
            with contextlib.suppress(self._failed):  # each decoder has its own words for damage
                yield from self._feed.decoder.decode(packet)
        with contextlib.suppress(self._failed):
            yield from self._feed.decoder.decode(None)
        self._feed.decoder.flush_buffers()

    def _read_to(self, last: int) -> Iterator[Tuple[int, Any]]:
        while self._next <= last:
            try:
                place, packet = next(self._packets)
            except (StopIteration, self._failed):
                self._next = last + 1
                return
            self._next = place + 1
            yield place, packet

    def _go_to(self, place: int) -> None:
        """Be at a packet or before it."""
        pts, feed = self._pts, self._feed
        if pts is not None and isinstance(feed, DemuxedFeed) and place - self._next >= _WORTH_SEEKING:
            margin = round(_TS_MARGIN_S / feed.stream.time_base) if feed.container.format.name == "mpegts" else 0
            with contextlib.suppress(self._failed):
                feed.container.seek(int(pts[place]) - margin, stream=feed.stream)
            self._packets = self._from_here(feed, pts, place)

    def _from_here(self, feed: DemuxedFeed, pts: np.ndarray, place: int) -> Iterator[Tuple[int, Any]]:
        """Packets after a jump, which may have led to before the wanted one; where it led elsewhere, from the start."""
        found = numbered_packets(feed)
        packet = next(found, (0, None))[1]
        here = [] if packet is None or packet.pts is None else [int(one) for one in np.flatnonzero(pts == packet.pts)]
        if here and here[0] <= place:
            yield here[0], packet
            yield from ((here[0] + number, later) for number, later in found)
            return
        self._pts = None  # no more jumps
        feed.container.seek(0)
        yield from numbered_packets(feed)


def _runs(index: VideoIndex, numbers: Sequence[int]) -> List[_Run]:
    """What has to be decoded for these frames. Runs do not overlap."""
    wanted = [int(number) for number in numbers]
    if index.counted:
        return [_Run(0, len(index.numbers) - 1, set(wanted), alone=False)]
    places = np.full(len(index.times_ns), -1, np.int64)
    shown = np.flatnonzero(index.numbers >= 0)
    places[index.numbers[shown]] = shown
    alone = bool(index.keys.all())
    runs: List[_Run] = []
    for number in wanted:
        place = int(places[number])
        start = int(index.starts[place])
        near = start - runs[-1].last < (_WORTH_SEEKING if alone else 1) if runs else False
        if near or (runs and start == runs[-1].first):
            runs[-1].numbers.add(number)
            runs[-1] = runs[-1]._replace(last=max(runs[-1].last, place))
        else:
            runs.append(_Run(start, place, {number}, alone))
    return runs
