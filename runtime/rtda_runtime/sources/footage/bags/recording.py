"""One topic of pictures of a bag as a recording."""

from __future__ import annotations

import contextlib
import itertools
import logging
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.border import reason
from rtda_deploy.errors import FrameError, RtdaError, SourceError
from rtda_runtime.sources.footage.bags.messages import PictureMessage, VideoMessage, picture_message
from rtda_runtime.sources.footage.bags.storage import MessageReader, Storage, Topic
from rtda_runtime.sources.footage.bags.video import CODECS, Codec, VideoDecoder, bgr_of, video_facts
from rtda_runtime.sources.footage.base import RecordedFrame, Recording
from rtda_runtime.sources.image_messages import (
    CompressedMessage,
    ImageMessage,
    frame_from_compressed,
    frame_from_image,
)

__all__ = ["BagRecording", "Part"]

_log = logging.getLogger(__name__)

_TRIED = 100  # messages, before a recording whose first ones are damaged is given up
_UNKNOWN = np.iinfo(np.int64).min  # the stamp of a message that was not read yet

_Read = Callable[[int], PictureMessage]
_Decoded = Tuple[int, Union[np.ndarray, RtdaError]]


class Part(NamedTuple):
    """A topic in one file of a bag."""

    storage: Storage
    topic: Topic


class _Index(NamedTuple):
    """Every message in the order of log times: int64 (N,), which part, int64 (N, 2)."""

    log_ns: np.ndarray
    parts: np.ndarray
    places: np.ndarray

    def only(self, wanted: np.ndarray) -> _Index:
        return _Index(self.log_ns[wanted], self.parts[wanted], self.places[wanted])


class BagRecording(Recording):
    """Pictures in the order in which they were logged.

    Stamps are in the messages, so that :attr:`notes` say of a camera's clock that jumped back once its frames are read.

    Args:
        files: Of the bag.
        parts: Those that hold the topic, in their order.
        name: For messages.

    Raises:
        SourceError: If no picture in it can be decoded.
    """

    kind = "bag"

    def __init__(self, files: Sequence[Path], parts: Sequence[Part], name: str) -> None:
        self.name = name
        self.files = tuple(files)
        self.topic = parts[0].topic.name
        self._parts = parts
        self.notes = self._known = [note for part in parts for note in part.storage.notes]
        self._index = self._ordered()
        self._stamps = np.full(len(self._index.log_ns), _UNKNOWN, np.int64)
        self._codec: Optional[str] = None
        self._parameters: Dict[int, bytes] = {}  # of key frames that do not bring their own
        self.keys = np.ones(len(self._index.log_ns), bool)
        if parts[0].topic.kind == "foxglove/CompressedVideo":
            self._look_at_video()
        log_ns = self._index.log_ns
        self.times_ns = log_ns - log_ns[0] if len(log_ns) else log_ns
        self.size_wh = self._first_size()

    def frames(self, numbers: Sequence[int]) -> Generator[RecordedFrame, None, None]:
        numbers = [int(number) for number in numbers]
        given, trouble = 0, None
        with contextlib.ExitStack() as stack:
            stack.callback(self._tell)
            read = self._reader(stack)
            decoded = self._video(numbers, read) if self._codec else self._pictures(numbers, read)
            for number, picture in decoded:
                if isinstance(picture, RtdaError):
                    self.damaged += 1
                    trouble = trouble or picture
                else:
                    given += 1
                    yield RecordedFrame(picture, number, int(self.times_ns[number]), int(self._stamps[number]))
        if trouble is not None and not given:
            message = f"{self.name}: none of {len(numbers)} pictures can be decoded; the first: {trouble.message}"
            raise SourceError(message, why=trouble.why, hint=trouble.hint) from trouble

    def _tell(self) -> None:
        stamps = self._stamps[self._stamps != _UNKNOWN]
        so = "the frames are in the order in which they were logged"
        found = _jumps(stamps, "the stamps of its messages jump", so)
        if found and len(self.notes) == len(self._known):
            _log.warning("%s: %s", self.name, found[0])  # whoever shows notes did so when it was opened
        self.notes = [*self._known, *found]

    def _ordered(self) -> _Index:
        entries = [part.storage.entries(part.topic) for part in self._parts]
        log_ns = np.concatenate([entry.log_ns for entry in entries])
        parts = np.repeat(np.arange(len(entries)), [len(entry.log_ns) for entry in entries])
        self._known += _jumps(log_ns, "the recorder's clock jumps", "its messages are in the order of that clock")
        order = np.argsort(log_ns, kind="stable")
        return _Index(log_ns, parts, np.concatenate([entry.places for entry in entries])).only(order)

    def _first_size(self) -> Tuple[int, int]:
        """Of the first frame that can be decoded."""
        with contextlib.closing(self.frames(range(min(self.num_frames, _TRIED)))) as frames:
            first = next(frames)
        self.damaged = 0
        return first.image.shape[1], first.image.shape[0]

    def _reader(self, stack: contextlib.ExitStack) -> _Read:
        """What reads a message by its number; a file is opened when it is first needed."""
        opened: Dict[int, MessageReader] = {}

        def read(number: int) -> PictureMessage:
            which = int(self._index.parts[number])
            storage, topic = self._parts[which]
            try:
                if which not in opened:
                    opened[which] = stack.enter_context(storage.reader())
                place, inner = self._index.places[number].tolist()
                content = opened[which]((place, inner))
            except (RtdaError, KeyboardInterrupt):
                raise
            except Exception as err:  # of a library on broken bytes, or of the disk
                hint = "copy the bag again; has it changed since it was opened?"
                raise SourceError("a message cannot be read", why=reason(err), hint=hint) from err
            message = picture_message(topic.kind, topic.wire, content)
            self._stamps[number] = message.header.stamp_ns or self._index.log_ns[number]
            return message

        return read

    def _pictures(self, numbers: Sequence[int], read: _Read) -> Iterator[_Decoded]:
        for number in numbers:
            try:
                yield number, _picture(read(number))
            except (FrameError, SourceError) as err:
                yield number, err

    def _video(self, numbers: Sequence[int], read: _Read) -> Iterator[_Decoded]:
        """From the last key frame before each that is wanted; after a damaged message, from the next key frame."""
        keys = np.flatnonzero(self.keys)
        for key, group in itertools.groupby(numbers, lambda number: int(keys[keys <= number][-1])):
            yield from self._since_key(key, list(group), read)

    def _since_key(self, key: int, wanted: List[int], read: _Read) -> Iterator[_Decoded]:
        decoder = VideoDecoder(str(self._codec))
        trouble: RtdaError = SourceError("a picture of its video is missing", hint="it is damaged, or was cut")
        try:
            for number in range(key, wanted[-1] + 1):
                message = read(number)
                decoded = decoder.feed(self._parameters.get(number, b"") + bytes(message.data), number)
                yield from _asked(decoded, wanted, trouble)
            yield from _asked(decoder.rest(), wanted, trouble)
        except (FrameError, SourceError) as err:
            trouble = err
        for number in wanted:
            yield number, trouble

    def _look_at_video(self) -> None:
        """Finds the pictures and those that begin anew; what comes before the first of these is left out."""
        with contextlib.ExitStack() as stack:
            pictures, keys = self._video_facts(self._reader(stack))
        if not pictures.any():
            raise SourceError(
                f"{self.name} holds no picture of {self._codec}", hint="Annex B is read: 00 00 01 before each unit"
            )
        if not keys.any():
            raise SourceError(
                f"{self.name} holds no key frame in {int(pictures.sum())} frames of {self._codec}",
                why="each frame of it needs the one before",
                hint="record for longer, or let the encoder send key frames (IDR with SPS) more often",
            )
        first = int(np.argmax(keys))
        left_out = int(pictures[:first].sum())
        if left_out:
            self._known.append(f"it begins between two key frames: {left_out} frames before the first are left out")
        wanted = np.flatnonzero(pictures & (np.arange(len(pictures)) >= first))
        self._parameters = {int(np.searchsorted(wanted, number)): kept for number, kept in self._parameters.items()}
        self._index, self._stamps, self.keys = self._index.only(wanted), self._stamps[wanted], keys[wanted]

    def _video_facts(self, read: _Read) -> Tuple[np.ndarray, np.ndarray]:
        """Reads every message: bool (N,), whether it holds a picture, and one that can be decoded alone."""
        count = len(self._stamps)
        pictures, keys = np.ones(count, bool), np.zeros(count, bool)  # a message that cannot be read is a lost picture
        seen: Dict[int, bytes] = {}
        for number in range(count):
            with contextlib.suppress(FrameError):
                message = read(number)
                assert isinstance(message, VideoMessage)
                codec = self._codec_of(message)
                facts = video_facts(bytes(message.data), codec)
                seen.update(facts.parameters)
                pictures[number] = facts.picture
                keys[number] = facts.key and set(codec.parameters[:2]) <= set(seen)
                lacks = [seen[kind] for kind in codec.parameters if kind in seen and kind not in facts.parameters]
                if keys[number] and lacks:
                    self._parameters[number] = b"".join(lacks)
        return pictures, keys

    def _codec_of(self, message: VideoMessage) -> Codec:
        name = {"hevc": "h265"}.get(message.format.lower(), message.format.lower())
        if name not in CODECS:
            raise SourceError(
                f"{self.name} holds video of format {message.format!r}", hint=f"known: {', '.join(CODECS)}, JPEG, PNG"
            )
        self._codec = name
        return CODECS[name]


def _picture(message: PictureMessage) -> np.ndarray:
    if isinstance(message, ImageMessage):
        frame = frame_from_image(message)
        return frame if frame.flags.writeable else frame.copy()
    assert isinstance(message, CompressedMessage)
    return frame_from_compressed(message)


def _asked(decoded: List[Tuple[int, Any]], wanted: List[int], trouble: RtdaError) -> Iterator[_Decoded]:
    """Those that are wanted, which are taken off the list; one that a later one overtook is missing."""
    for number, picture in decoded:
        while wanted and wanted[0] < number:
            yield wanted.pop(0), trouble
        if wanted and wanted[0] == number:
            yield wanted.pop(0), bgr_of(picture)


def _jumps(times_ns: np.ndarray, what: str, so: str) -> List[str]:
    """A sentence where times are less than the ones before them."""
    steps = np.diff(times_ns)
    back = steps[steps < 0]
    if not len(back):
        return []
    often = "once" if len(back) == 1 else f"{len(back)} times"
    return [f"{what} back {often}, by up to {-int(back.min()) / 1e9:.3g} s; {so}"]
