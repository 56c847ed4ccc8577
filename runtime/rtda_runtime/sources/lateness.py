"""Recognises frames that waited in a buffer before they were read.

While a reader or its process is stopped, the camera goes on filming, and its frames wait in the buffers of sockets and
drivers. Afterwards they arrive faster than the camera films. They are old, and they arrive before the new ones.
"""

from __future__ import annotations

import collections
import statistics
from typing import Deque, List, Optional

__all__ = ["Lateness"]

_PERIODS = 3.0  # a frame later than that is old; less, or than the next line says, is a network's usual unevenness
_AT_LEAST_NS = {True: 250_000_000, False: 500_000_000}  # the source has times; without them a pause looks like a queue
_WAITED = 0.1  # share of a step: a reader that waited so long for a frame found the buffer empty
_AT_PACE = 0.7  # share of a step that passed: a queue is read faster
_PROOF_NS, _MOST_PROOFS = 400_000_000, 10  # after a queue, how long frames must come at the camera's pace; and how many
_COUNTS, _ENOUGH_PACE = 1.5, 0.9  # steps that one frame counts at most, and that are wanted per frame
_FALSE_PACE = 2.0  # steps a frame takes on average where the times are false: 30 a second stamped, 3 filmed
_KEPT, _ENOUGH = 9, 5  # steps that the usual one is taken from


class Lateness:
    """How far frames lag behind: the progress of the monotonic clock from frame to frame, less the source's own.

    The source's own progress is that of its time stamps where it has them, else its usual step between two frames.
    A frame that comes at the camera's pace while the reader waits for it is new: no buffer held one before it. After a
    queue several in a row must come so, because a busy machine also reads frames of a queue slowly now and then. Time
    stamps that advance at less than half the clock's pace for as long, while the reader waits, are wrong and ignored.

    Attributes:
        lag_ns: How long the frame asked about last had waited in a buffer when it came; 0 for a new one.
    """

    def __init__(self) -> None:
        self.lag_ns = 0
        self._steps: Deque[int] = collections.deque(maxlen=_KEPT)
        self._arrived_ns: Optional[int] = None
        self._filmed_ns: Optional[int] = None
        self._behind = False
        self._paces: Deque[float] = collections.deque(maxlen=_MOST_PROOFS)
        self._false_times = False

    def is_old(self, arrived_ns: int, waited_ns: int, filmed_ns: Optional[int] = None) -> bool:
        """Whether the next frame is to be dropped. Must be called for each frame, in order.

        Args:
            arrived_ns: When it arrived, on the monotonic clock.
            waited_ns: How long the reader had waited for it.
            filmed_ns: Its time on the source's own clock, with any origin; None: it has none.
        """
        filmed_ns = None if self._false_times else filmed_ns
        before_ns, self._arrived_ns = self._arrived_ns, arrived_ns
        filmed_before_ns, self._filmed_ns = self._filmed_ns, filmed_ns
        if before_ns is None:
            return False
        passed_ns = arrived_ns - before_ns
        timed = filmed_ns is not None and filmed_before_ns is not None
        step_ns = filmed_ns - filmed_before_ns if timed else self._usual_ns()  # type: ignore[operator]
        if step_ns is None or step_ns < 0:  # not known yet; or the source's clock was set back
            self._learn(passed_ns, waited_ns)
            self.lag_ns, self._behind = 0, False
            return False
        waited = waited_ns >= _WAITED * step_ns
        self._follow(passed_ns, step_ns, waited=waited, timed=timed)
        if self._false_times and timed:
            self._steps.clear()
            self._learn(passed_ns, waited_ns)
        elif timed:
            self._steps.append(step_ns)
        elif not self.lag_ns or (waited and passed_ns >= _AT_PACE * step_ns):
            self._learn(passed_ns, waited_ns)
        return self._behind

    def _follow(self, passed_ns: int, step_ns: int, *, waited: bool, timed: bool) -> None:
        limit_ns = self._limit_ns(step_ns, timed=timed)
        self.lag_ns = max(0, self.lag_ns + passed_ns - step_ns)
        if self._behind:
            self._paces.append(passed_ns / max(1, step_ns) if waited else 0.0)
            newest = self._newest_paces(step_ns)
            if sum(min(_COUNTS, pace) for pace in newest) >= _ENOUGH_PACE * self._proofs(step_ns):
                self.lag_ns = 0
                self._false_times = timed and statistics.median(newest) >= _FALSE_PACE
            self._behind = self.lag_ns > limit_ns
        elif waited and _AT_PACE * step_ns <= passed_ns <= step_ns + limit_ns:
            self.lag_ns = 0
        elif self.lag_ns > limit_ns:
            self._behind = True
            self._paces.clear()

    def _newest_paces(self, step_ns: int) -> List[float]:
        """Of as many frames as prove that a queue has ended, how many steps each took to come."""
        return list(self._paces)[-self._proofs(step_ns) :]

    @staticmethod
    def _proofs(step_ns: int) -> int:
        return max(1, min(_MOST_PROOFS, -(-_PROOF_NS // max(1, step_ns))))

    def _learn(self, passed_ns: int, waited_ns: int) -> None:
        if waited_ns >= _WAITED * passed_ns:
            self._steps.append(passed_ns)

    def _usual_ns(self) -> Optional[int]:
        return int(statistics.median(self._steps)) if len(self._steps) >= _ENOUGH else None

    def _limit_ns(self, step_ns: int, *, timed: bool) -> float:
        usual_ns = self._usual_ns()
        return max(_AT_LEAST_NS[timed], _PERIODS * (step_ns if usual_ns is None else usual_ns))
