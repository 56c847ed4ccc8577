"""Which kept frame gives way to a new one: the least valuable, where value is score times distance to its nearest.
Frames that the user asked for give way only to others that were asked for.

A frame is worth as much as it is hard and as it is far from every other that is kept, so that the kept frames spread
over what was seen. That is greedy farthest-point sampling (Gonzalez, Theoretical Computer Science 38, 1985; as core
sets: Sener and Savarese, ICLR 2018), weighted by the score.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

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
        worth = self.worth(new)
        same = [frame for frame in self._frames.values() if self._counts(frame, new)]
        surplus = len(same) - self._per_class + 1
        gone = sorted(same, key=self.worth)[:surplus] if surplus > 0 else []
        taken = {frame.id for frame in gone}
        left = [frame for frame in self._frames.values() if frame.id not in taken]
        gone += self._least(left, new, sum(frame.size for frame in left) + new.size - limit_bytes)
        worth_it = new.control or all(frame.control or self.worth(frame) < worth for frame in gone)
        return gone if worth_it else None

    def add(self, frame: Kept) -> None:
        """This one is kept from now on."""
        apart = _apart(self._vectors(), frame)
        for other, found in zip(self._frames, apart):
            self._nearest[other] = min(self._nearest[other], float(found))
        self._nearest[frame.id] = float(apart.min()) if len(apart) else 1.0
        self._frames[frame.id] = frame

    def remove(self, frames: Sequence[Kept]) -> None:
        """These are gone; who had one of them for its nearest looks again."""
        for frame in frames:
            del self._frames[frame.id], self._nearest[frame.id]
        vectors = self._vectors()
        nearest = np.array([self._nearest[other] for other in self._frames])
        alone = np.zeros(len(nearest), bool)
        for frame in frames:
            alone |= _apart(vectors, frame) <= nearest + _SAME
        self._measure([other for other, again in zip(self._frames.values(), alone) if again])

    def _counts(self, frame: Kept, new: Kept) -> bool:
        return frame.subject == new.subject and not frame.control and not new.control and new.subject is not None

    def _least(self, frames: List[Kept], new: Kept, over_bytes: int) -> List[Kept]:
        """So many bytes of frames: the oldest of control frames beyond their share, else the least valuable."""
        if over_bytes <= 0:
            return []
        control = collections.deque(sorted((one for one in frames if one.control), key=lambda one: one.id))
        others = [one for one in frames if not one.control]
        hard = collections.deque(sorted(others, key=lambda one: (self.worth(one), one.id)))
        found: List[Kept] = []
        while over_bytes > 0:
            share = self._control * (len(control) + len(hard) + 1)
            beyond = control and (not hard or len(control) + int(new.control) > share)
            found.append((control if beyond else hard).popleft())
            over_bytes -= found[-1].size
        return found

    def _apart(self, frame: Kept) -> float:
        """Distance to the nearest kept frame; 1 where there is none."""
        return float(_apart(self._vectors(), frame).min()) if self._frames else 1.0

    def _vectors(self) -> np.ndarray:
        """float64 (N, D) of all kept frames."""
        if not self._frames:
            return np.zeros((0, 0))
        return np.stack([other.vector for other in self._frames.values()]).astype(np.float64)

    def _measure(self, frames: List[Kept]) -> None:
        """Distances of these to their nearest among all."""
        if not frames:
            return
        place = {name: index for index, name in enumerate(self._frames)}
        vectors = self._vectors()
        squares = (vectors**2).sum(axis=1)
        for first in range(0, len(frames), _AT_ONCE):
            some = frames[first : first + _AT_ONCE]
            mine = np.array([place[frame.id] for frame in some])
            apart = squares[mine, None] + squares[None] - 2.0 * (vectors[mine] @ vectors.T)
            apart[np.arange(len(some)), mine] = np.inf
            nearest = np.sqrt(np.maximum(apart.min(axis=1), 0.0))
            for frame, found in zip(some, nearest):
                self._nearest[frame.id] = float(found) if np.isfinite(found) else 1.0


def _apart(vectors: np.ndarray, frame: Kept) -> np.ndarray:
    """float64 (N,): from a frame to each of (N, D)."""
    if not len(vectors):
        return np.zeros(0)
    return np.asarray(np.sqrt(((vectors - frame.vector) ** 2).sum(axis=1)))
