"""Which frames are candidates: of each stretch of time the few best, those that the user asked for first; or one by
chance."""

from __future__ import annotations

import collections
import random
from typing import Deque, List, NamedTuple, Optional, Tuple

from rtda_deploy.pictures.dhash import hamming
from rtda_runtime.result import Result
from rtda_runtime.shift.collecting.limits import CollectOptions
from rtda_runtime.shift.collecting.look import Look

__all__ = ["ALIKE_BITS", "Candidate", "Window"]

_MOST_HELD = 3  # candidates of a window; the second engine looks at each
_REMEMBERED = 64  # kept frames that a new one that nobody asked for may not look like
ALIKE_BITS = 4  # of 64; frames whose hashes differ by no more look alike


class Candidate(NamedTuple):
    """A frame that may be kept.

    Attributes:
        result: Its arrays are its own.
        look: What it looks like from afar.
        novelty: 0 to 1.
        value: Novelty times what of the disagreement is known so far.
        why: ``hard``, ``asked`` (the expression holds of it) or ``control`` (drawn by chance).
        at_s: When, seconds.
    """

    result: Result
    look: Look
    novelty: float
    value: float
    why: str
    at_s: float

    @property
    def rank(self) -> Tuple[bool, float]:
        """What candidates are ordered by: those that were asked for first, then by value."""
        return self.why == "asked", self.value


class Window:
    """Stretches of time of equal length, from each of which one frame may be kept.

    Args:
        options: Their length, the gap, and the share of windows that give a frame by chance.
        chance: Random numbers.
    """

    def __init__(self, options: CollectOptions, chance: random.Random) -> None:
        self._options = options
        self._chance = chance
        self._begun_s: Optional[float] = None
        self._by_chance = False
        self._seen = 0
        self._held: List[Candidate] = []
        self._kept: Deque[int] = collections.deque(maxlen=_REMEMBERED)
        self._kept_s: Optional[float] = None

    def ended(self, now_s: float) -> List[Candidate]:
        """The candidates of the window that ended, the best first, if one did; time that goes back ends it, too."""
        begun_s, length_s = self._begun_s, self._options.window_s
        if begun_s is None:
            self._begin(now_s)
        elif now_s < begun_s:  # a recording that begins again
            self._kept_s = None
            self._begin(now_s)
            return self.rest()
        elif now_s - begun_s >= length_s:
            self._begin(begun_s + (now_s - begun_s) // length_s * length_s)
            return self.rest()
        return []

    def rest(self) -> List[Candidate]:
        """The candidates of the window as it is; they are forgotten here."""
        held, self._held = self._held, []
        return held

    def wants(self, look: Look, value: float, at_s: float, *, asked: bool) -> bool:
        """Whether to offer a frame; counts it.

        Args:
            look: What it looks like.
            value: As of :class:`Candidate`.
            at_s: When.
            asked: Whether the user asked for it; then it may look like a frame that was kept.
        """
        if self._kept_s is not None and 0 <= at_s - self._kept_s < self._options.gap_s:
            return False
        if self._by_chance:
            self._seen += 1
            return self._chance.random() * self._seen < 1.0  # each frame of the window with the same probability
        if not asked and any(hamming(look.dhash, kept) <= ALIKE_BITS for kept in self._kept):
            return False
        rank = asked, value
        alike = [other for other in self._held if hamming(look.dhash, other.look.dhash) <= ALIKE_BITS]
        if alike:
            return all(rank > other.rank for other in alike)
        return len(self._held) < _MOST_HELD or rank > self._held[-1].rank

    def offer(self, candidate: Candidate) -> None:
        """Hold a frame that :meth:`wants` asked for, in the place of one that it is better than."""
        if self._by_chance:
            self._held = [candidate._replace(why="control")]
            return
        dhash = candidate.look.dhash
        others = [other for other in self._held if hamming(dhash, other.look.dhash) > ALIKE_BITS]
        self._held = sorted([*others, candidate], key=lambda held: held.rank, reverse=True)[:_MOST_HELD]

    def kept(self, candidate: Candidate) -> None:
        """This one was kept: frames to come may not look like it, nor come too soon after it."""
        self._kept.append(candidate.look.dhash)
        self._kept_s = candidate.at_s

    def remember(self, dhash: Optional[int]) -> None:
        """This one was kept by an earlier run; None: it is not known what it looks like."""
        if dhash is not None:
            self._kept.append(dhash)

    def _begin(self, now_s: float) -> None:
        self._begun_s = now_s
        self._by_chance = self._chance.random() < self._options.control
        self._seen = 0
