"""What is known of frames that were chosen from footage: ``frames.json`` beside them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import file_error, utf8_text
from rtda_training.data.footage.asked import HoldBack

__all__ = ["FRAMES", "RECORD", "SHEET", "SPLITS", "FootageRecord", "KeptFrame", "KeptRecording"]

RECORD = "frames.json"
FRAMES = "frames"  # folder of the pictures
SHEET = "sheet.jpg"  # what was kept and dropped, to look at
SPLITS = ("train", "val")  # of chosen frames: val is the part at the end that is held back


@dataclasses.dataclass(frozen=True)
class KeptFrame:
    """A frame that was chosen.

    Attributes:
        file: Below the folder of frames: ``drive/000123.450s.png``, by its recording and its time there.
        recording: Position of its recording.
        number: Its place among all frames of the recording.
        time_s: Seconds after the recording's first frame.
        stamp_ns: Its own stamp: of a bag nanoseconds since 1970, of a video after the first frame.
        at_s: Seconds after the start of the footage, all recordings one behind the other.
    """

    file: str
    recording: int
    number: int
    time_s: float
    stamp_ns: int
    at_s: float

    @property
    def key(self) -> str:
        """Its file without the suffix."""
        return self.file[: -len(".png")]


@dataclasses.dataclass(frozen=True)
class KeptRecording:
    """One recording of the footage.

    Attributes:
        name: For messages.
        folder: Of its frames.
        files: What it was read from.
        topic: Of a bag.
        frames: How many it holds.
        begins_s: When it begins, seconds after the start of the footage.
        length_s: Of the part that was asked for.
        size: Width x height of its first frame.
        notes: What a person should know.
        damaged: Frames that could not be decoded whole, and were left out.
    """

    name: str
    folder: str
    files: Tuple[str, ...]
    topic: str
    frames: int
    begins_s: float
    length_s: float
    size: str
    notes: Tuple[str, ...]
    damaged: int


@dataclasses.dataclass(frozen=True)
class FootageRecord:
    """The choice as a whole.

    Attributes:
        key: Another where anything differs that the choice depends on.
        address: As it was typed when the frames were chosen.
        every_s: Seconds between the frames that were looked at; None: every frame.
        looked_at: How many these were.
        dropped: By the reason, those that were not kept, called as their files would be.
        why: What each reason means, with its threshold.
        recordings: In the order of the timeline.
        frames: Those that were kept, in the order of their files.
        notes: What a person should know about the choice.
    """

    key: str
    address: str
    every_s: Optional[float]
    looked_at: int
    dropped: Dict[str, List[str]]
    why: Dict[str, str]
    recordings: Tuple[KeptRecording, ...]
    frames: Tuple[KeptFrame, ...]
    notes: Tuple[str, ...] = ()

    @property
    def length_s(self) -> float:
        """Of all recordings together."""
        return self.recordings[-1].begins_s + self.recordings[-1].length_s

    @property
    def total(self) -> int:
        """Frames of all recordings."""
        return sum(recording.frames for recording in self.recordings)

    def held_back_s(self, hold_back: HoldBack) -> float:
        """Length of the piece at the end that is not trained on.

        Raises:
            DataError: If it is as long as the footage.
        """
        return hold_back.of(self.length_s, self.address)

    def part(self, split: str, hold_back: HoldBack) -> List[KeptFrame]:
        """The chosen frames of ``train``, ``val`` or ``all``."""
        begins_s = round(self.length_s - self.held_back_s(hold_back), 6)
        return [frame for frame in self.frames if split == "all" or (frame.at_s >= begins_s) == (split == "val")]

    def doubts(self) -> Tuple[str, ...]:
        """What a person should know of the recordings and of the choice."""
        told = []
        for recording in self.recordings:
            told += [f"{recording.name}: {text}" for text in recording.notes]
            if recording.damaged:
                told.append(f"{recording.name}: {recording.damaged} damaged frames were left out")
        return (*told, *self.notes)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready."""
        values: Dict[str, Any] = dataclasses.asdict(self)
        return values

    def text(self) -> str:
        """What stands in ``frames.json``."""
        return utf8_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False)) + "\n"

    @classmethod
    def read(cls, folder: Path) -> FootageRecord:
        """The record of a folder.

        Raises:
            DataError: If it is broken.
        """
        path, hint = folder / RECORD, f"delete the folder, it is made again: rm -r {folder}"
        try:
            content = path.read_bytes()
        except OSError as err:
            raise file_error(err, path, "read") from err
        with parsing(DataError, f"{path} is no record of frames", hint=hint):
            values = json_values(content, str(path), DataError, hint=hint)
            recordings = tuple(
                KeptRecording(**{**entry, "files": tuple(entry["files"]), "notes": tuple(entry["notes"])})
                for entry in values.pop("recordings")
            )
            frames = tuple(KeptFrame(**entry) for entry in values.pop("frames"))
            return cls(**{**values, "recordings": recordings, "frames": frames, "notes": tuple(values["notes"])})
