"""Which kept frame gives way to a new one: the least valuable, where value is score times distance to its nearest.
Frames that the user asked for give way only to others that were asked for.

A frame is worth as much as it is hard and as it is far from every other that is kept, so that the kept frames spread
over what was seen. That is greedy farthest-point sampling (Gonzalez, Theoretical Computer Science 38, 1985; as core
sets: Sener and Savarese, ICLR 2018), weighted by the score.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, List, Optional, Tuple

import numpy as np

__all__ = ["Kept", "KeptFrames"]

_SAME = 1e-6  # distances that differ by less are the same
_AT_ONCE = 256  # frames whose distances to all others are computed at once


@dataclasses.dataclass(frozen=True)
class Kept:
    """A frame that is kept.

    Attributes:
        id: Its name.
        score: Novelty times disagreement, 0 to 1.
        why: ``hard``, ``asked`` (the expression held of it) or ``control`` (drawn by chance).
        subject: The class that its budget is taken from; None: no class.
        size: Bytes on the disk.
        vector: As of a :class:`Look`.
    """

    id: str
    score: float
    why: str
    subject: Optional[str]
    size: int
    vector: np.ndarray

    @property
    def control(self) -> bool:
        """Whether it was drawn by chance."""
        return self.why == "control"


class KeptFrames:
    """All kept frames, with the distance of each to its nearest.

    Args:
        control: Share of the frames that may be control frames where there is no more room.
        per_class: Frames that one class may have.
    """

    def __init__(self, frames: Iterable[Kept], *, control: float, per_class: int) -> None:
        self._control = control
        self._per_class = per_class
        self._frames: Dict[str, Kept] = {frame.id: frame for frame in frames}
        self._nearest: Dict[str, float] = {}
        self._measure(list(self._frames.values()))

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(frame.size for frame in self._frames.values())

    def value(self, frame: Kept) -> float:
        """Score times the distance to the nearest kept frame (of a new one: to all that are kept), at most 1."""
        apart = self._nearest[frame.id] if frame.id in self._nearest else self._apart(frame)
        return frame.score * min(1.0, apart)

    def worth(self, frame: Kept) -> Tuple[bool, float]:
        """What frames are ordered by: those that were asked for go first, then :meth:`value` decides."""
        return frame.why == "asked", self.value(frame)

    def giving_way(self, new: Kept, limit_bytes: int) -> Optional[List[Kept]]:
        """The frames that have to go so that there is room for a new one; None: it is not worth it.

        A control frame takes the place of others whatever they are worth; control frames beyond their share go first,
        the oldest of them.

        Args:
            new: Its size and class count.
            limit_bytes: Of all frames together, with the new one.
        """
        if new.size > limit_bytes:
            return None
        gone: List[Kept] = []
        worth = self.worth(new)
        left = dict(self._frames)
        same = [frame for frame in left.values() if self._counts(frame, new)]
        if len(same) >= self._per_class:
            gone += sorted(same, key=self.worth)[: len(same) - self._per_class + 1]
        for frame in gone:
            del left[frame.id]
        size = sum(frame.size for frame in left.values())
        while size + new.size > limit_bytes:
            worst = self._worst(list(left.values()), new)
            gone.append(worst)
            size -= worst.size
            del left[worst.id]
        worth_it = new.control or all(frame.control or self.worth(frame) < worth for frame in gone)
        return gone if worth_it else None

    def add(self, frame: Kept) -> None:
        """This one is kept from now on."""
        apart = self._distances(frame)
        for other, found in zip(self._frames, apart):
            self._nearest[other] = min(self._nearest[other], float(found))
        self._nearest[frame.id] = float(apart.min()) if len(apart) else 1.0
        self._frames[frame.id] = frame

    def remove(self, frame: Kept) -> None:
        """This one is gone; who had it for its nearest looks again."""
        del self._frames[frame.id], self._nearest[frame.id]
        apart = self._distances(frame)
        self._measure(
            [other for other, found in zip(self._frames.values(), apart) if found <= self._nearest[other.id] + _SAME]
        )

    def _counts(self, frame: Kept, new: Kept) -> bool:
        return frame.subject == new.subject and not frame.control and not new.control and new.subject is not None

    def _worst(self, frames: List[Kept], new: Kept) -> Kept:
        """The control frame that is the oldest where they have more than their share, else the least valuable frame."""
        control = [frame for frame in frames if frame.control]
        others = [frame for frame in frames if not frame.control]
        count = len(control) + int(new.control)
        if control and (not others or count > self._control * (len(frames) + 1)):
            return min(control, key=lambda frame: frame.id)
        return min(others, key=lambda frame: (self.worth(frame), frame.id))

    def _apart(self, frame: Kept) -> float:
        """Distance to the nearest kept frame; 1 where there is none."""
        return float(self._distances(frame).min()) if self._frames else 1.0

    def _distances(self, frame: Kept) -> np.ndarray:
        """float64 (N,): from a frame to each that is kept."""
        if not self._frames:
            return np.zeros(0)
        vectors = np.stack([other.vector for other in self._frames.values()]).astype(np.float64)
        return np.asarray(np.sqrt(((vectors - frame.vector) ** 2).sum(axis=1)))

    def _measure(self, frames: List[Kept]) -> None:
        """Distances of these to their nearest among all."""
        if not frames:
            return
        everyone = list(self._frames.values())
        place = {frame.id: index for index, frame in enumerate(everyone)}
        vectors = np.stack([frame.vector for frame in everyone]).astype(np.float64)
        squares = (vectors**2).sum(axis=1)
        for first in range(0, len(frames), _AT_ONCE):
            some = frames[first : first + _AT_ONCE]
            mine = np.array([place[frame.id] for frame in some])
            apart = squares[mine, None] + squares[None] - 2.0 * (vectors[mine] @ vectors.T)
            apart[np.arange(len(some)), mine] = np.inf
            nearest = np.sqrt(np.maximum(apart.min(axis=1), 0.0))
            for frame, found in zip(some, nearest):
                self._nearest[frame.id] = float(found) if np.isfinite(found) else 1.0
