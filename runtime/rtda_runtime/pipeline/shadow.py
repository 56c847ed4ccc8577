"""A candidate beside the deployed network, on the same frames and off its path: what does it see otherwise?

It has a thread of its own that gives way to the others, an engine of one CPU thread, and a queue of one result. While
the deployed network is behind it looks at no frame, so it is the first that goes without when time is short.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Union

from rtda_deploy.errors import ConfigError
from rtda_runtime.mask.agreement import Agreement, refuse_other_classes
from rtda_runtime.pool import AnySegmenter, open_segmenter
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink
from rtda_runtime.threads.mailbox import WAKE_S
from rtda_runtime.threads.named import NamedThread, give_way

__all__ = ["Shadow", "check_one_other", "open_shadow"]

_NICE = 19  # the least that there is: a seventieth of a core that the deployed network wants
_THREADS = 1  # of the engine: it computes on the shadow's own thread, which gives way
_SAMPLE = (
    4  # every fourth pixel, across and down, as the collector's disagreement; counting all would hold the interpreter
)
_REST_S, _LONGEST_REST_S = 1.0, 32.0  # after the network was behind; twice as long each time it is so again
_CALM_S = 10.0  # without being behind after a rest: the next one is short again


def open_shadow(model: Union[str, Path], provider: str = "auto", **network: Any) -> AnySegmenter:
    """Open a candidate so that it takes as little as it can from a network at work.

    Args:
        model: A model file.
        provider: As of :meth:`Segmenter.open`.
        network: Its other arguments: ``spec``, ``region``, ``groups``.

    Raises:
        RtdaError: Everything :meth:`Segmenter.open` raises.
    """
    opened: List[AnySegmenter] = []
    failed: List[BaseException] = []

    def work() -> None:
        give_way(_NICE)  # what threads the engine makes inherit it
        try:
            opened.append(open_segmenter(model, provider, threads=_THREADS, **network))
        except BaseException as err:
            failed.append(err)

    thread = NamedThread("rtda-shadow", work)
    thread.start()
    while not thread.join_until(time.monotonic() + WAKE_S):
        pass
    if failed:
        raise failed[0]
    return opened[0]


def check_one_other(compare: object, shadow: object) -> None:
    """Refuse a network to compare with beside a shadow.

    Raises:
        ConfigError: If both are there.
    """
    if compare is not None and shadow is not None:
        raise ConfigError(
            "a second network was given both to compare with and as a shadow",
            why="a result has one mask of another network",
            hint="--compare looks at each frame and takes its time, --shadow at those for which there is time",
        )


class Shadow(Sink):
    """Segments the results' frames again, with the candidate, and counts where the masks agree.

    Args:
        deployed: The network whose results they are.
        candidate: The other one, of the same classes; :func:`open_shadow` opens it.
        owned: Whether it is closed with the pipeline.
        clock: Nanoseconds.

    Attributes:
        on_compared: Gets each result that was looked at, with the candidate's mask as ``compared``; on the shadow's
            thread.
        on_over: Called without arguments when there are no more.

    Raises:
        ConfigError: If their classes differ.
    """

    name = "shadow"
    finishes = True
    nice = _NICE

    def __init__(
        self,
        deployed: AnySegmenter,
        candidate: AnySegmenter,
        *,
        owned: bool = False,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        refuse_other_classes(
            candidate.spec,
            deployed.spec,
            said="the shadow has other classes than the deployed network",
            why="their masks mean different things, so they cannot be compared",
            hint="a candidate of the same classes; rtda-deploy inspect FILE lists them",
        )
        self.on_compared: Callable[[Result], None] = lambda result: None
        self.on_over: Callable[[], None] = lambda: None
        self._candidate = candidate
        self._owned = owned
        self._clock = clock
        self._lock = threading.Lock()
        self._agreement = Agreement(candidate.spec)
        self._behind = 0
        self._dropped: Optional[int] = None  # at the newest result
        self._rest_s, self._rests_until_ns = 0.0, 0

    def wants(self, result: Result) -> bool:
        """Whether the deployed network has time to spare: of a camera, it dropped no frame a while ago."""
        now_ns = self._clock()
        before, self._dropped = self._dropped, result.dropped
        if result.live and before is not None and result.dropped > before:
            calm = now_ns > self._rests_until_ns + int(1e9 * _CALM_S)
            self._rest_s = _REST_S if calm or not self._rest_s else min(2.0 * self._rest_s, _LONGEST_REST_S)
            self._rests_until_ns = now_ns + int(1e9 * self._rest_s)
        if now_ns < self._rests_until_ns:
            self._behind += 1
            return False
        return True

    def write(self, result: Result) -> Mapping[str, float]:
        """Compare a frame.

        Raises:
            EngineError: If the candidate fails, or gives NaN.
        """
        start = time.perf_counter_ns()
        seen = self._candidate.segment(result.frame)
        spent_ms = (time.perf_counter_ns() - start) / 1e6
        with self._lock:
            self._agreement.add(*(mask[::_SAMPLE, ::_SAMPLE] for mask in (result.mask, seen.mask)))
        self.on_compared(dataclasses.replace(result, compared=seen.mask))
        return {"shadow": spent_ms}

    def told(self, sink: Mapping[str, Any]) -> Dict[str, Any]:
        """What it found, JSON-ready.

        ``model``, ``provider``; ``compared`` frames, and those ``dropped``, of which ``behind`` because the deployed
        network had no time to spare; ``agreement`` (share of the pixels that both call alike) over all frames and
        ``newest``; ``by_class`` (of the pixels that either calls so, the share that both do); ``error``: why it
        stopped, else None.

        Args:
            sink: Statistics of its thread.
        """
        with self._lock:
            frames, share, newest = self._agreement.frames, self._agreement.share, self._agreement.newest
            by_class = self._agreement.by_class
        path = self._candidate.path
        return {
            "model": "" if path is None else str(path),
            "provider": self._candidate.provider,
            "compared": frames,
            "dropped": sink["dropped"] + self._behind,
            "behind": self._behind,
            "agreement": None if share is None else round(share, 5),
            "newest": None if newest is None else round(newest, 5),
            "by_class": {name: round(value, 5) for name, value in by_class.items()},
            "error": sink["error"],
        }

    def close(self) -> None:
        """Close the candidate, if it is owned."""
        try:
            if self._owned:
                self._candidate.close()
        finally:
            self.on_over()
