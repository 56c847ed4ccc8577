"""One pass over footage: frames are decoded, looked at and written, and those that are not chosen are taken away."""

from __future__ import annotations

import os
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.files import file_error
from rtda_deploy.optional import require
from rtda_runtime.sources.footage.base import RecordedFrame, Recording, numbers_every
from rtda_runtime.sources.footage.kinds import open_footage
from rtda_training.data.footage.asked import AskedFrames
from rtda_training.data.footage.record import FRAMES, RECORD, FootageRecord, KeptFrame, KeptRecording
from rtda_training.data.footage.select import SelectOptions, Selector
from rtda_training.readers import Progress

__all__ = ["cannot_keep", "choose_into"]

_AHEAD = 4  # frames that wait to be written
_LEVEL = 1  # of PNG's compression; at 9 a street picture takes many times as long and is little smaller
_LONGEST = 80  # characters of a folder's name
_ALONE_S = 0.04  # how long a recording of one frame is


class _Part(NamedTuple):
    """What is looked at of one recording."""

    recording: Recording
    folder: str
    numbers: List[int]
    from_s: float
    begins_s: float
    length_s: float


class _Seen(NamedTuple):
    """A frame that was looked at."""

    kept: KeptFrame
    written: bool


def choose_into(
    work: Path, asked: AskedFrames, address: str, key: str, progress: Optional[Progress] = None
) -> FootageRecord:
    """Choose frames, write them below ``work/frames`` and the record beside it.

    Args:
        work: An empty folder.
        asked: What is wanted.
        address: As typed, for messages and the record.
        key: Of the choice, for the record.
        progress: Called with (done, total) frames that were looked at.

    Raises:
        DataError: If no frame is left.
        SourceError: If the footage cannot be read.
        FileAccessError: If the disk is full; it says how much is needed.
    """
    parts, every_s = _parts(asked, address)
    selector = Selector(SelectOptions(count=asked.count)) if asked.select else None
    seen = _look(work / FRAMES, parts, selector, progress)
    places: Set[int] = set(range(len(seen)))
    dropped: Dict[str, List[str]] = {}
    notes: Tuple[str, ...] = ()
    if selector is not None:
        chosen = selector.choose()
        places, notes = set(chosen.places), tuple(chosen.notes)
        for reason, frame in zip(chosen.reasons, seen):
            if reason:
                dropped.setdefault(reason, []).append(frame.kept.key)
        dropped = {reason: dropped[reason] for reason in chosen.counts if reason in dropped}
    for place, frame in enumerate(seen):
        if frame.written and place not in places:
            (work / FRAMES / frame.kept.file).unlink()
    kept = sorted((seen[place].kept for place in places), key=lambda frame: frame.file.split("/"))
    record = FootageRecord(
        key=key,
        address=address,
        every_s=every_s,
        looked_at=len(seen),
        dropped=dropped,
        why={} if selector is None else _words(selector.options, dropped),
        recordings=tuple(map(_kept_recording, parts)),
        frames=tuple(kept),
        notes=notes,
    )
    if not kept:
        raise _all_dropped(record)
    (work / RECORD).write_bytes(record.text().encode("utf-8"))
    return record


def _words(options: SelectOptions, reasons: Iterable[str]) -> Dict[str, str]:
    """What each reason means, with its threshold."""
    words = {
        "dark": f"95 % of the pixels are below {options.dark_light:g} of 255",
        "bright": f"more than {options.bright_share:.0%} of the pixels are clipped",
        "blurred": f"less than {options.blur_local:.0%} as sharp as the frames around it, or {options.blur_clip:.0%} as"
        " the best of the recording",
        "near-duplicate": f"less than {options.moved_share:.0%} changed against a frame before",
        "less diverse": "more like others than those that are kept",
    }
    return {reason: words[reason] for reason in reasons if reason in words}


def _all_dropped(record: FootageRecord) -> DataError:
    counts = ", ".join(f"{len(names)} {reason}" for reason, names in record.dropped.items())
    return DataError(
        f"no frame of {record.address} is left of {record.looked_at} that were looked at",
        why=counts or "none could be decoded",
        hint="?select=none takes them as they are",
    )


def _parts(asked: AskedFrames, address: str) -> Tuple[List[_Part], Optional[float]]:
    """What is looked at of each recording, one behind the other, and the seconds between two frames."""
    recordings = open_footage(asked.footage)
    begins, spans = asked.footage.from_s or 0.0, []
    for recording in recordings:
        own_s = recording.duration_s
        pace = own_s / (recording.num_frames - 1) if recording.num_frames > 1 else _ALONE_S
        ends = min(own_s + pace, asked.footage.to_s or own_s + pace)
        spans.append(max(0.0, ends - begins))
    every_s = asked.every_s(sum(spans))
    folders = _folders(recordings)
    parts, at_s = [], 0.0
    for recording, folder, span in zip(recordings, folders, spans):
        numbers = numbers_every(recording, every_s, asked.footage.from_s, asked.footage.to_s)
        parts.append(_Part(recording, folder, numbers, begins, at_s, span))
        at_s += span
    if not any(part.numbers for part in parts):
        longest = max(recording.duration_s for recording in recordings)
        raise DataError(
            f"{address}: nothing lies between from= and to=", hint=f"it ends {longest:.1f} s after its first frame"
        )
    return parts, every_s


def _look(
    folder: Path, parts: Sequence[_Part], selector: Optional[Selector], progress: Optional[Progress]
) -> List[_Seen]:
    """Every frame of the parts, in their order; those that may be chosen are written."""
    total = sum(len(part.numbers) for part in parts)
    seen: List[_Seen] = []
    writer = _Writer(folder)
    try:
        with writer:
            for found in _looked_at(parts, selector, writer):
                seen.append(found)
                if progress is not None:
                    progress(len(seen), total)
    except OSError as err:
        taken = writer.size / writer.count if writer.count else _bytes_of(parts[0])
        raise cannot_keep(
            err, folder, f"{total} frames are looked at, which may take {taken * total / 1e6:.1f} MB"
        ) from err
    if progress is not None and len(seen) < total:
        progress(total, total)  # the rest is damaged
    return seen


def _looked_at(parts: Sequence[_Part], selector: Optional[Selector], writer: _Writer) -> Iterator[_Seen]:
    for place, part in enumerate(parts):
        if selector is not None:
            selector.begin()
        names: Set[str] = set()
        for frame in part.recording.frames(part.numbers) if part.numbers else ():
            kept = _kept_frame(place, part, frame, names)
            may = selector is None or selector.look(frame.image) is None
            if may:
                writer.write(kept.file, frame.image)
            yield _Seen(kept, may)


def cannot_keep(err: OSError, folder: Path, why: str) -> FileAccessError:
    """The error of a cache that cannot be written to."""
    return FileAccessError(
        file_error(err, folder, "write to").message,
        why=why,
        hint="name a folder on another disk with RTDA_CACHE=DIR, or take fewer: ?every=, ?count=",
    )


def _bytes_of(part: _Part) -> float:
    width, height = part.recording.size_wh
    return 3.0 * width * height


def _kept_frame(place: int, part: _Part, frame: RecordedFrame, names: Set[str]) -> KeptFrame:
    name = f"{frame.time_ns / 1e9:010.3f}s"
    name = f"{name}-{frame.number}" if name in names else name  # two frames of one time
    names.add(name)
    time_s = round(frame.time_ns / 1e9, 6)
    at_s = round(part.begins_s + time_s - part.from_s, 6)
    return KeptFrame(f"{part.folder}/{name}.png", place, frame.number, time_s, frame.stamp_ns, at_s)


def _kept_recording(part: _Part) -> KeptRecording:
    recording = part.recording
    return KeptRecording(
        name=recording.name,
        folder=part.folder,
        files=tuple(str(path) for path in recording.files),
        topic=recording.topic,
        frames=recording.num_frames,
        begins_s=round(part.begins_s, 6),
        length_s=round(part.length_s, 6),
        size=f"{recording.size_wh[0]}x{recording.size_wh[1]}",
        notes=tuple(recording.notes),
        damaged=recording.damaged,
    )


def _folders(recordings: Sequence[Recording]) -> List[str]:
    """A folder's name for each recording: its file's, with more of the path where several are called alike."""
    paths = [recording.files[0].parent if _is_folder(recording) else recording.files[0] for recording in recordings]
    found = [_plain(path.stem) for path in paths]
    if len(set(found)) < len(found):
        shared = os.path.commonpath([str(path.absolute().parent) for path in paths])
        found = [_plain(os.path.relpath(str(path.absolute()), shared).replace(os.sep, "-")) for path in paths]
    return [name if found.index(name) == place else f"{name}-{place + 1}" for place, name in enumerate(found)]


def _is_folder(recording: Recording) -> bool:
    return recording.kind == "bag" and (recording.files[0].parent / "metadata.yaml").is_file()


def _plain(name: str) -> str:
    """A name that every file system takes and that is not hidden."""
    plain = re.sub(r"[^\w.+-]+", "_", name).strip("._")[-_LONGEST:]
    return plain or "footage"


class _Writer:
    """Writes pictures on a thread of its own, beside what is decoded; it may be a few behind.

    Attributes:
        size: Bytes that were written.
        count: Pictures that were.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cv2: Any = require("cv2", extra="training", purpose="to keep frames")
        self._pending: Deque[Future[None]] = deque()
        self.size = self.count = 0

    def __enter__(self) -> _Writer:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rtda-frames")
        return self

    def write(self, name: str, image: np.ndarray) -> None:
        """Write uint8 (H, W, 3) BGR, losslessly; an earlier picture's error comes out here."""
        if len(self._pending) >= _AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._store, self._folder / name, image))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            while self._pending:
                done = self._pending.popleft()
                if error is not None:
                    done.cancel()
                else:
                    done.result()
        finally:
            self._pool.shutdown()

    def _store(self, path: Path, image: np.ndarray) -> None:
        encoded, content = self._cv2.imencode(".png", image, [self._cv2.IMWRITE_PNG_COMPRESSION, _LEVEL])
        if not encoded:
            raise DataError(f"cannot encode {path.name} as PNG", hint="memory may be short (free -h); run it again")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.tobytes())
        self.size += len(content)
        self.count += 1
