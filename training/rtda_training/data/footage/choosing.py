"""One pass over footage: frames are decoded, looked at and written, and those that are not chosen are taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from rtda_deploy.border import parsing
from rtda_deploy.errors import DataError, SourceError
from rtda_runtime.sources.footage.base import RecordedFrame, Recording, numbers_every
from rtda_runtime.sources.footage.frame_names import frame_name, recording_folders
from rtda_runtime.sources.footage.kinds import open_footage
from rtda_training.data.footage.asked import AskedFrames
from rtda_training.data.footage.frame_writer import FrameWriter
from rtda_training.data.footage.record import FRAMES, RECORD, SHEET, FootageRecord, KeptFrame, KeptRecording
from rtda_training.data.footage.select import SelectOptions, Selector
from rtda_training.data.footage.sheet import contact_sheet, jpeg
from rtda_training.data.footage.thumbnails import Thumbnails
from rtda_training.readers import Progress

__all__ = ["choose_into"]

_ALONE_S = 0.04  # how long a recording of one frame is


class _Part(NamedTuple):
    """What is looked at of one recording."""

    recording: Recording
    folder: str
    numbers: List[int]
    from_s: float
    begins_s: float
    length_s: float


class _Held(NamedTuple):
    """The piece at the end that is held back: where it begins, seconds on the timeline, and its share of the time."""

    begins_s: float
    share: float


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
    pictures = Thumbnails()
    length_s = round(parts[-1].begins_s, 6) + round(parts[-1].length_s, 6)
    held_s = asked.hold_back.of(length_s, address)
    divided = _Held(round(length_s - held_s, 6), held_s / length_s) if held_s else None
    seen = _look(work / FRAMES, parts, selector, divided, pictures, progress)
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
    if selector is not None:
        (work / SHEET).write_bytes(_sheet(record, seen, chosen.reasons, pictures))
    return record


def _sheet(record: FootageRecord, seen: Sequence[_Seen], reasons: Sequence[str], pictures: Thumbnails) -> bytes:
    times_s = [frame.kept.at_s for frame in seen]
    recordings = [(recording.name, recording.begins_s) for recording in record.recordings]
    drawn = contact_sheet(record.address, times_s, reasons, pictures, why=record.why, recordings=recordings)
    return jpeg(drawn)


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
    folders = recording_folders(recordings)
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
    folder: Path,
    parts: Sequence[_Part],
    selector: Optional[Selector],
    held: Optional[_Held],
    pictures: Thumbnails,
    progress: Optional[Progress],
) -> List[_Seen]:
    """Every frame of the parts, in their order; those that may be chosen are written."""
    total = sum(len(part.numbers) for part in parts)
    seen: List[_Seen] = []
    with FrameWriter(folder, total) as writer:
        for place, part in enumerate(parts):
            if selector is not None:
                selector.begin()
            names: Set[str] = set()
            for frame in _frames(part):
                kept = _kept_frame(place, part, frame, names)
                reason = None
                if selector is not None:
                    if held is not None and kept.at_s >= held.begins_s:
                        selector.divide(held.share)
                        held = None
                    reason = selector.look(frame.image)
                    pictures.add(len(seen), selector.thumbnail, reason)
                if reason is None:
                    writer.write(kept.file, frame.image)
                seen.append(_Seen(kept, reason is None))
                if progress is not None:
                    progress(len(seen), total)
    if progress is not None and len(seen) < total:
        progress(total, total)  # the rest is damaged
    return seen


def _frames(part: _Part) -> Iterator[RecordedFrame]:
    hint = "does a player show it to its end? name a part of it with from= and to="
    with parsing(SourceError, f"{part.recording.name} cannot be read", hint=hint):
        if part.numbers:
            yield from part.recording.frames(part.numbers)


def _kept_frame(place: int, part: _Part, frame: RecordedFrame, names: Set[str]) -> KeptFrame:
    name = frame_name(frame.time_ns, frame.number, names)
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
