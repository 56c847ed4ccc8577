"""Which frames of a recording are worth training on: those that can be seen, are sharp, are new, and differ most.

Frames are looked at once, in order, and forgotten; what was measured on them is kept, about 4 kB for each that may be
chosen. The criteria, in this order, are light, blur, what was seen just before, and diversity::

    selector = Selector(SelectOptions(count=500))
    for frame in recording.frames(numbers):
        if selector.look(frame.image) is None:
            ...  # may be chosen: keep its pixels for now
    chosen = selector.choose()

The same frames in the same order give the same choice, whatever the number of threads.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Tuple, Union

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_training.data.footage.blur import Sharpness
from rtda_training.data.footage.diversity import describe, most_diverse
from rtda_training.data.footage.measures import Measures, measure
from rtda_training.data.footage.novelty import Seen

__all__ = ["REASONS", "Chosen", "SelectOptions", "Selector", "parse_count"]

REASONS = ("dark", "bright", "blurred", "near-duplicate", "less diverse")  # why a frame is dropped, in this order
_DOUBTED_SHARE, _LEAST_DOUBTED = 0.9, 20  # of the frames, for one reason: it is said, of so many or more
_TAKE_ALL = "if that is what the robot sees, take them with ?select=none and a coarse ?every="
_MEANT = {
    "dark": _TAKE_ALL,
    "bright": _TAKE_ALL,
    "blurred": _TAKE_ALL,
    "near-duplicate": f"the camera stands still, or there is hardly any texture; {_TAKE_ALL}",
}


@dataclass(frozen=True)
class SelectOptions:
    """How frames are chosen. Figures of real drives are in docs/results/footage.md."""

    count: Union[int, float] = 500  # at most so many frames; 0: all that pass; 0.1: a tenth of those looked at
    dark_light: float = 20.0  # grey level; dark is a frame with 95 % of its pixels below
    bright_share: float = 0.6  # of pixels that are clipped; bright is a frame with more
    blur_local: float = 0.5  # of the running median of sharpness; blurred is a frame with less
    blur_clip: float = 0.4  # of the sharpness that the best quarter of the recording reaches
    blur_window: int = 101  # frames of the running median, half of them after the frame
    moved_share: float = 0.3  # of what has texture; a frame in which less changed is a near-duplicate
    window: int = 8  # frames that may be chosen, before it, that a frame is compared with
    hash_bits: int = 4  # of 64; a frame with a dHash as near as that ...
    hash_window: int = 256  # ... to one of so many frames before is a near-duplicate ...
    hash_moved_share: float = 0.5  # ... where less than this share changed

    def __post_init__(self) -> None:
        if self.count < 0 or (isinstance(self.count, float) and not 0.0 < self.count <= 1.0):
            raise ConfigError(
                f"count={self.count} is no number of frames", hint="try count=500, count=10%, or 0 for all"
            )

    def limit(self, looked_at: int) -> Optional[int]:
        """How many frames of so many are chosen at most; None: all that pass."""
        if isinstance(self.count, float):
            return max(1, math.ceil(self.count * looked_at))
        return self.count or None


def parse_count(text: str) -> Union[int, float]:
    """``500`` frames, or ``10%`` of those that are looked at.

    Raises:
        ConfigError: If it is neither.
    """
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", text.strip())
    if found and found[1]:
        return int(found[1])
    if found and 0.0 < float(found[2]) <= 100.0:
        return float(found[2]) / 100.0
    raise ConfigError(
        f"count={text} is no number of frames", hint="such as count=500, count=10%, or 0 for all that pass"
    )


@dataclass(frozen=True)
class Chosen:
    """What was chosen of the frames that were looked at; a place is the number of a call of ``look``, from 0.

    Attributes:
        places: Of the frames to keep, ascending.
        reasons: Why each place is dropped, one of ``REASONS``; empty for those to keep.
        counts: How many were dropped for each reason of ``REASONS``, in this order.
        notes: What a person should know about the choice.
    """

    places: Tuple[int, ...]
    reasons: Tuple[str, ...]
    counts: Dict[str, int]
    notes: Tuple[str, ...] = ()


def _doubts(counts: Dict[str, int], looked_at: int) -> Tuple[str, ...]:
    """What is said where one reason took nearly everything: a camera that hangs on a wall, a night, a field of snow."""
    return tuple(
        f"{count} of {looked_at} frames that were looked at were dropped as {reason}: {_MEANT[reason]}"
        for reason, count in counts.items()
        if reason in _MEANT and looked_at >= _LEAST_DOUBTED and count > _DOUBTED_SHARE * looked_at
    )


@dataclass(frozen=True)
class _Candidate:
    place: int
    piece: int
    recording: int
    descriptor: np.ndarray  # float32 (D,)


class Selector:
    """Looks at frames in order and chooses from them.

    Args:
        options: Thresholds, and how many to choose.
        describe: Gives what a frame looks like, float (D,), from a frame, uint8 (H, W, 3) BGR: the pooled features of a
            network. None: colours and edges on a grid.
    """

    def __init__(
        self,
        options: SelectOptions = SelectOptions(),
        *,
        describe: Optional[Callable[[np.ndarray], np.ndarray]] = None,
    ) -> None:
        self.options = options
        self._describe = describe
        self._reasons: List[str] = []
        self._shares = [1.0]  # of count, of each piece that is chosen apart
        self._sharpness: List[Sharpness] = []  # of each recording
        self._candidates: List[_Candidate] = []
        self._repeats: Counter[int] = Counter()  # near-duplicates of a place that may be chosen
        self._small = np.zeros((0, 0, 3), np.uint8)
        self.begin()

    @property
    def thumbnail(self) -> np.ndarray:
        """The frame last looked at, uint8 (h, 160, 3) BGR; the next call makes another."""
        return self._small

    def begin(self) -> None:
        """Another recording begins: its frames are not compared with those before, only chosen among all."""
        options = self.options
        self._sharpness.append(Sharpness(options.blur_local, options.blur_clip, options.blur_window))
        self._seen = self._nothing_seen()

    def divide(self, share: float) -> None:
        """The frames from here on are chosen apart, as is what is held back: for what was seen before they are new.

        Args:
            share: Of ``count`` that is theirs; the frames before have the rest.
        """
        self._shares = [1.0 - share, share]
        self._seen = self._nothing_seen()

    def _nothing_seen(self) -> Seen:
        options = self.options
        return Seen(
            moved=options.moved_share,
            window=options.window,
            hash_bits=options.hash_bits,
            hash_window=options.hash_window,
            hash_moved=options.hash_moved_share,
        )

    def look(self, image: np.ndarray) -> Optional[str]:
        """Look at the next frame.

        Args:
            image: uint8 (H, W, 3) BGR; not kept.

        Returns:
            None where it may be chosen; else why it is dropped, one of ``REASONS``.

        Raises:
            FrameError: If it is no frame.
            MissingPackageError: If OpenCV is not installed.
        """
        found, self._small = measure(image)
        place = len(self._reasons)
        reason = self._reason(place, found)
        self._reasons.append(reason or "")
        if reason is None:
            described = describe(self._small) if self._describe is None else self._describe(image)
            descriptor = np.asarray(described, np.float32).ravel()
            self._candidates.append(_Candidate(place, len(self._shares), len(self._sharpness), descriptor))
        return reason

    def choose(self) -> Chosen:
        """The choice among all frames looked at."""
        reasons = list(self._reasons)
        for clip in self._sharpness:
            for place in clip.blurred():
                reasons[place] = reasons[place] or "blurred"
        for number, limit in enumerate(self._limits(), 1):
            own = [candidate for candidate in self._candidates if candidate.piece == number]
            for place in self._less_diverse([candidate for candidate in own if not reasons[candidate.place]], limit):
                reasons[place] = "less diverse"
        found = Counter(reasons)
        places = tuple(place for place, reason in enumerate(reasons) if not reason)
        counts = {reason: found[reason] for reason in REASONS}
        return Chosen(places, tuple(reasons), counts, _doubts(counts, len(reasons)))

    def _limits(self) -> List[Optional[int]]:
        """How many frames of each piece are chosen at most; none of them is forgotten for the other."""
        total = self.options.limit(len(self._reasons))
        if total is None or len(self._shares) == 1:
            return [total] * len(self._shares)
        last = max(1, round(total * self._shares[-1])) if total > 1 else 0
        return [total - last, last]

    def _less_diverse(self, passed: List[_Candidate], limit: Optional[int]) -> List[int]:
        """The places that are not among the most diverse of those that passed."""
        if limit is None or len(passed) <= limit:
            return []
        descriptors = np.stack([candidate.descriptor for candidate in passed])
        recordings = np.array([candidate.recording for candidate in passed])
        repeated = np.array([self._repeats[candidate.place] > 0 for candidate in passed])
        kept = set(most_diverse(descriptors, limit, recordings, repeated)) if limit else set()
        return [candidate.place for number, candidate in enumerate(passed) if number not in kept]

    def _reason(self, place: int, found: Measures) -> Optional[str]:
        options = self.options
        if found.light < options.dark_light:
            return "dark"
        if found.clipped > options.bright_share:
            return "bright"
        if self._sharpness[-1].add(place, found.sharpness):
            return "blurred"
        novelty = self._seen.add(place, found)
        if not novelty.is_new:
            self._repeats.update(novelty.same)
            return "near-duplicate"
        for other in novelty.same:
            self._reasons[other] = "near-duplicate"
            self._repeats[place] += 1 + self._repeats.pop(other, 0)
        return None
