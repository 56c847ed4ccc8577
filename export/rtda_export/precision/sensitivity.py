"""Which nodes of a network spoil its masks in a lower precision: asked of ever smaller parts of it.

FP16 rescue and INT8 share the question. A part is measured by putting only it into the lower precision and comparing
the logits; the worst part is opened first, so that a few bad nodes among hundreds are found in a few dozen runs.
"""

from __future__ import annotations

import heapq
from typing import Callable, FrozenSet, List, Sequence

import numpy as np

from rtda_export.precision.activations import agreement, signal_to_noise

__all__ = ["Progress", "Sensitivity"]

Progress = Callable[[str, int, int], None]  # what is being done, done, total (a guess while searching)
_SEARCHED_FRAMES = 2  # those on which the lower precision does worst; every choice is checked on all

# The answers of the network for the frames of these indices, with these nodes left in float32.
Respond = Callable[[FrozenSet[str], Sequence[int]], List[np.ndarray]]


class Sensitivity:
    """The search, with what it compares.

    Args:
        names: Nodes that would be in the lower precision, in the order of the graph.
        respond: Runs the network, see ``Respond``.
        reference: Answers in float32, one for each frame.
        size_hw: Size of the masks that are compared.
        limit: Share of pixels, 0..1, that ``score`` must reach.
        score: One figure from the shares of all frames, such as ``min``.
        tell: Called with ``rank`` or ``drop``.
    """

    def __init__(
        self,
        names: Sequence[str],
        respond: Respond,
        reference: Sequence[np.ndarray],
        size_hw: tuple[int, int],
        *,
        limit: float,
        score: Callable[[list[float]], float],
        tell: Progress,
    ) -> None:
        self._names = list(names)
        self._respond = respond
        self._reference = reference
        self._size_hw = size_hw
        self._limit, self._score, self._tell = limit, score, tell
        self._asked = 0
        self._place = {name: index for index, name in enumerate(names)}

    def shares(self, keep: frozenset[str]) -> list[float]:
        """Share of pixels that agree with float32 on each frame, with these nodes left in float32."""
        return agreement(self._reference, self._respond(keep, range(len(self._reference))), self._size_hw)

    def needed(self, keep: frozenset[str], most: int) -> dict[str, float]:
        """Further nodes to leave in float32 until the limit is met, without those that prove not to be needed.

        Args:
            keep: Nodes left in float32 anyway.
            most: Give up after so many.

        Returns:
            Relative error that each alone brings into the logits, by name. Empty if nothing is needed.
        """
        shares = self.shares(keep)
        hard = sorted(range(len(shares)), key=lambda index: shares[index])[:_SEARCHED_FRAMES]
        free = [name for name in self._names if name not in keep]
        parts = [(-np.inf, 0, free)] if free else []
        found: dict[str, float] = {}
        score = self._score(shares)
        while parts and score < self._limit and len(found) < most:
            name, error = self._worst(parts, hard)
            found[name] = error
            score = self._score(self.shares(keep | found.keys()))
        if score >= self._limit:
            self._drop(keep, found)
        return found

    def _worst(self, parts: list[tuple[float, int, list[str]]], frames: list[int]) -> tuple[str, float]:
        """Open the worst part until it is one node, and take that out."""
        while True:
            error, _, worst = heapq.heappop(parts)
            if len(worst) == 1:
                return worst[0], self._error(worst, frames) if error == -np.inf else -error
            middle = len(worst) // 2
            for half in (worst[:middle], worst[middle:]):
                heapq.heappush(parts, (-self._error(half, frames), self._place[half[0]], half))

    def _error(self, part: list[str], frames: list[int]) -> float:
        """Relative error (RMS) of the logits when only this part is in the lower precision."""
        self._asked += 1
        self._tell("rank", self._asked, max(self._asked, len(self._names)))
        found = self._respond(frozenset(self._names) - frozenset(part), frames)
        ratio = signal_to_noise([self._reference[index] for index in frames], found)
        return float(np.inf) if ratio == 0 else float(ratio**-0.5)

    def _drop(self, keep: frozenset[str], found: dict[str, float]) -> None:
        trials = sorted(found, key=lambda name: found[name])
        for done, name in enumerate(trials if len(found) > 1 else []):
            self._tell("drop", done + 1, len(trials))
            if self._score(self.shares(keep | (found.keys() - {name}))) >= self._limit:
                del found[name]
