"""Latency per stage: percentiles over the newest samples, mean and maximum over all of them, in bounded memory."""

from __future__ import annotations

import threading
from typing import Any, Dict, Mapping, Sequence, Union

import numpy as np

__all__ = ["STAGES", "StageTimes", "summarize_ms"]

# In the order they happen. ``age`` is capture to mask, seen from outside, so it is not their sum.
STAGES = ("capture", "preprocess", "infer", "postprocess", "compare", "overlay", "encode", "age")

_KEPT = 1 << 14  # samples per stage that percentiles look at: 9 minutes at 30 fps, 64 KiB


class StageTimes:
    """Milliseconds per stage and frame. Any thread may add and ask.

    Args:
        kept: Percentiles look at the newest ``kept`` samples of a stage; counts, means and maxima at all of them.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._stages: Dict[str, _Stage] = {}
        self._lock = threading.Lock()

    def add(self, timing_ms: Mapping[str, float]) -> None:
        """Record one frame's stages."""
        with self._lock:
            for stage, value_ms in timing_ms.items():
                if stage not in self._stages:
                    self._stages[stage] = _Stage(self._kept)
                self._stages[stage].add(value_ms)

    def summary(self) -> Dict[str, Dict[str, float]]:
        """Per stage ``count``, ``mean``, ``p50``, ``p90``, ``p95``, ``p99``, ``max`` in ms; known stages first."""
        with self._lock:
            copies = {stage: times.copy() for stage, times in self._stages.items()}
        known = [stage for stage in STAGES if stage in copies]
        others = [stage for stage in copies if stage not in STAGES]
        return {stage: copies[stage].summary() for stage in (*known, *others)}  # the slow part, outside of the lock


class _Stage:
    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._ring = np.empty(min(kept, 256), np.float32)  # grows to ``kept``, then is written over from its start
        self._count = 0
        self._sum = 0.0
        self._max = 0.0

    def add(self, value_ms: float) -> None:
        if self._count == len(self._ring) and len(self._ring) < self._kept:
            self._ring = np.resize(self._ring, min(self._kept, 2 * len(self._ring)))
        self._ring[self._count % len(self._ring)] = value_ms
        self._count += 1
        self._sum += value_ms
        self._max = max(self._max, value_ms)

    def copy(self) -> _Stage:
        twin = _Stage(self._kept)
        twin._ring, twin._count, twin._sum, twin._max = self._ring.copy(), self._count, self._sum, self._max
        return twin

    def summary(self) -> Dict[str, float]:
        newest = summarize_ms(self._ring[: self._count])
        return {**newest, "count": self._count, "mean": self._sum / self._count, "max": self._max}


def summarize_ms(values_ms: Union[Sequence[float], np.ndarray]) -> Dict[str, Any]:
    """``count``, ``mean``, ``p50``, ``p90``, ``p95``, ``p99`` and ``max`` of some milliseconds, at least one."""
    values = np.asarray(values_ms, np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, (50, 90, 95, 99)))
    return {
        "count": int(values.size),
        "mean": float(values.mean()),
        "p50": p50,
        "p90": p90,
        "p95": p95,
        "p99": p99,
        "max": float(values.max()),
    }
