"""What every recording promises, and how frames are chosen from the times of all of them."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

__all__ = ["RecordedFrame", "Recording", "numbers_every"]


class RecordedFrame(NamedTuple):
    """One picture of a recording.

    Attributes:
        image: uint8 (H, W, 3) BGR, upright, C-contiguous; it is the caller's.
        number: Its place among all frames of the recording, 0, 1, 2 ...
        time_ns: When it is shown, nanoseconds after the recording's first frame; never less than the one before.
        stamp_ns: Its own stamp: a message's ``header.stamp`` in nanoseconds since 1970, else when it was recorded; of a
            video ``time_ns``. It may jump back where a clock did.
    """

    image: np.ndarray
    number: int
    time_ns: int
    stamp_ns: int


class Recording(abc.ABC):
    """One video, or one topic of pictures of a bag. What it holds is known when it is open; nothing is decoded yet.

    Attributes:
        kind: ``video`` or ``bag``.
        name: Its file, and the topic where it has several; for messages, and unique among the files of a footage.
        files: The files it is read from.
        topic: The topic of a bag; empty for a video.
        times_ns: int64 (N,), when each frame is shown, nanoseconds after the first; ascending, two may be equal.
        keys: bool (N,), frames that are decoded without any other.
        size_wh: Width and height of its first frame as shown.
        notes: What a person should know: that it is cut off, that its clock jumped back.
        damaged: Frames asked for so far that could not be decoded whole, and were left out.
    """

    kind: str
    name: str
    files: Tuple[Path, ...]
    topic: str = ""
    times_ns: np.ndarray
    keys: np.ndarray
    size_wh: Tuple[int, int]
    notes: Sequence[str] = ()
    damaged: int = 0

    @property
    def num_frames(self) -> int:
        """How many frames it holds."""
        return len(self.times_ns)

    @property
    def duration_s(self) -> float:
        """From its first frame to its last."""
        return float(self.times_ns[-1] - self.times_ns[0]) / 1e9 if len(self.times_ns) else 0.0

    @abc.abstractmethod
    def frames(self, numbers: Sequence[int]) -> Iterator[RecordedFrame]:
        """The frames of these numbers, in one pass; a frame that is damaged is left out and counted.

        No more is decoded than these frames need: of a video in which all of them are key frames, nothing else.

        Args:
            numbers: Ascending, each once.

        Raises:
            SourceError: If it cannot be read on, or nothing that was asked for can be decoded.
        """


def numbers_every(
    recording: Recording,
    every_s: Optional[float] = None,
    from_s: Optional[float] = None,
    to_s: Optional[float] = None,
) -> List[int]:
    """The frames of a part of a recording at a rate: in each interval of ``every_s`` the first.

    Where an interval is as long as the longest way between two key frames or longer, it is the first key frame, which
    is decoded alone. The same arguments give the same frames.

    Args:
        recording: Its times and key frames are looked at.
        every_s: Seconds; None: every frame.
        from_s: Seconds after the first frame; None: from the start.
        to_s: Seconds after the first frame, itself not in it; None: to the end.
    """
    times = recording.times_ns
    first = 0 if from_s is None else int(np.searchsorted(times, round(from_s * 1e9), side="left"))
    end = len(times) if to_s is None else int(np.searchsorted(times, round(to_s * 1e9), side="left"))
    numbers = np.arange(first, end)
    if every_s is None or not len(numbers):
        return [int(number) for number in numbers]
    step_ns = max(1, round(every_s * 1e9))
    keys = numbers[recording.keys[first:end]]
    if len(keys) > 1 and keys[0] == first and _longest_gap(times[[*keys, end - 1]]) <= step_ns:
        numbers = keys
    slots = (times[numbers] - times[first]) // step_ns
    return [int(number) for number in numbers[np.r_[True, slots[1:] != slots[:-1]]]]


def _longest_gap(times_ns: np.ndarray) -> int:
    return int(np.diff(times_ns).max())
