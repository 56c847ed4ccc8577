"""How long a frame takes here, said so that somebody else can measure the same.

After a warm-up, frames are measured in windows until the 95th percentile of two windows in a row agrees; where it does
not settle, the record says so instead of averaging it away. Clock: ``time.perf_counter_ns``, read around whole calls
that return finished results, so a GPU's work is inside.
"""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.errors import ConfigError, SourceError
from rtda_deploy.files import sha256_file
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.sources import Source
from rtda_runtime.timing import summarize_ms

__all__ = ["benchmark", "environment"]

Frames = Union[Source, Sequence[np.ndarray]]

FORMAT = "rtda.bench/1"
_SETTLED = 0.05  # relative change of p95 between two windows below which it counts as settled
_LEAST_SAMPLES = 20  # of a window: below that a 95th percentile is the maximum


def benchmark(
    segmenter: Segmenter,
    frames: Frames,
    *,
    warmup_s: float = 1.0,
    window_s: float = 2.0,
    max_windows: int = 10,
    duration_s: Optional[float] = None,
    tolerance: float = _SETTLED,
    rate_hz: Optional[float] = None,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Dict[str, Any]:
    """Measure a segmenter.

    Args:
        segmenter: What is measured, on its own provider.
        frames: Pictures, used in turn; or a source, whose reading is then measured too (stage ``capture``). It is part
            of the total for a recording; for a camera it is mostly waiting, and the total begins at the capture.
        warmup_s: At least this long and at least two frames are not measured.
        window_s: Length of a window; it goes on until it has 20 samples, but at most ten times as long.
        max_windows: Give up settling after so many.
        duration_s: Measure for this long whether or not it settled; replaces ``max_windows``.
        tolerance: Largest relative change of p95 that counts as settled.
        rate_hz: Frames come at this fixed rate, as from a camera; None: one after the other.

    Returns:
        JSON-ready::

            format       "rtda.bench/1"
            created      ISO 8601, UTC
            model        file, sha256, provider, description, size_hw, classes
            environment  as environment()
            settings     warmup_s, window_s, tolerance, rate_hz, includes: what "total" covers
            frame_hw     height and width of the first frame
            stages       per stage (capture), preprocess, infer, postprocess, total:
                         count, mean, p50, p90, p95, p99, max in ms, over all windows
            throughput   frames per second, measured; at a fixed rate at most that rate
            late         frames that began later than their turn (fixed rate only, else null)
            windows      per window: seconds, frames, p50, p95, change of p95 against the one before (or null)
            settled      whether the last change was within the tolerance

    Raises:
        ConfigError: If a setting makes no sense.
        SourceError: If the source ends before anything was measured.
    """
    _check_settings(warmup_s, window_s, max_windows, duration_s, tolerance, rate_hz)
    if not isinstance(frames, Source) and not len(frames):
        raise ConfigError("no pictures to measure with", hint="a source, such as test://bars, or a list of frames")
    run = _Run(segmenter, frames, rate_hz, clock, sleep)
    run.warm_up(warmup_s)
    began = clock()
    while not run.exhausted:
        run.window(window_s if duration_s is None else min(window_s, duration_s), whole=duration_s is None)
        elapsed_s = (clock() - began) / 1e9
        if duration_s is not None:
            if elapsed_s >= duration_s:
                break
        elif run.settled(tolerance) or len(run.windows) >= max_windows:
            break
    if not run.samples:
        raise SourceError("the source ended before anything was measured", hint="a longer one, or a shorter warm-up")
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": _model_record(segmenter),
        "environment": environment(),
        "settings": {
            "warmup_s": warmup_s,
            "window_s": window_s,
            "tolerance": tolerance,
            "rate_hz": rate_hz,
            "includes": run.includes,
        },
        "frame_hw": list(run.frame_hw),
        "stages": {stage: summarize_ms([s[stage] for s in run.samples]) for stage in run.samples[0]},
        "throughput": len(run.samples) / run.measured_s,
        "late": run.late if rate_hz is not None else None,
        "windows": run.windows,
        "settled": run.settled(tolerance),
    }


class _Run:
    """The measurement while it goes on."""

    def __init__(
        self,
        segmenter: Segmenter,
        frames: Frames,
        rate_hz: Optional[float],
        clock: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self.includes = "preprocess, infer, postprocess"
        self._source = frames if isinstance(frames, Source) else None
        if self._source is not None and not self._source.live:
            self.includes = f"capture, {self.includes}"
        self.samples: List[Dict[str, float]] = []
        self.windows: List[Dict[str, Any]] = []
        self.measured_s = 0.0
        self.late = 0
        self.exhausted = False
        self.frame_hw: Tuple[int, int] = (0, 0)
        self._segmenter = segmenter
        self._frames = _endless(frames)
        self._mask: Optional[np.ndarray] = None
        self._period_ns = round(1e9 / rate_hz) if rate_hz else 0
        self._due_ns: Optional[int] = None
        self._clock = clock
        self._sleep = sleep

    def warm_up(self, warmup_s: float) -> None:
        """Run at least two frames and ``warmup_s`` seconds without measuring."""
        start = self._clock()
        done = 0
        while not self.exhausted and (done < 2 or (self._clock() - start) / 1e9 < warmup_s):
            self._one()
            done += 1
        self.late = 0

    def window(self, window_s: float, *, whole: bool) -> None:
        """Measure one window; ``whole``: until it has samples enough for a percentile."""
        start = self._clock()
        samples: List[Dict[str, float]] = []
        seconds = 0.0
        while seconds < window_s or (whole and len(samples) < _LEAST_SAMPLES and seconds < 10 * window_s):
            sample = self._one()
            seconds = (self._clock() - start) / 1e9
            if sample is None:
                break
            samples.append(sample)
        if not samples:
            return
        self.samples += samples
        self.measured_s += seconds
        total = summarize_ms([sample["total"] for sample in samples])
        before = self.windows[-1]["p95"] if self.windows else None
        change = abs(total["p95"] - before) / before if before else None
        self.windows.append(
            {"seconds": seconds, "frames": len(samples), "p50": total["p50"], "p95": total["p95"], "change": change}
        )

    def settled(self, tolerance: float) -> bool:
        """Whether the last two windows agree."""
        change = self.windows[-1]["change"] if self.windows else None
        return change is not None and change <= tolerance

    def _one(self) -> Optional[Dict[str, float]]:
        self._wait_for_turn()
        start = self._clock()
        frame = next(self._frames, None)
        if frame is None:
            self.exhausted = True
            return None
        read = self._clock()
        self.frame_hw = self.frame_hw if self.frame_hw != (0, 0) else (frame.shape[0], frame.shape[1])
        if self._mask is None or self._mask.shape != frame.shape[:2]:
            self._mask = np.empty(frame.shape[:2], np.uint8)
        result = self._segmenter.segment(frame, out=self._mask)
        done = self._clock()
        capture = {"capture": (read - start) / 1e6} if self._source is not None else {}
        total = done - (start if self.includes.startswith("capture") else read)
        return {**capture, **result.timing, "total": total / 1e6}

    def _wait_for_turn(self) -> None:
        if not self._period_ns:
            return
        now = self._clock()
        if self._due_ns is None or now >= self._due_ns + self._period_ns:
            self.late += self._due_ns is not None
            self._due_ns = now
        elif now < self._due_ns:
            self._sleep((self._due_ns - now) / 1e9)
        self._due_ns += self._period_ns


def environment() -> Dict[str, Any]:
    """The machine and the versions of everything that a latency depends on."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": _loaded_version("onnxruntime"),
        "opencv": _loaded_version("cv2"),
        "rtda_deploy": importlib.import_module("rtda_deploy").__version__,
    }


def _model_record(segmenter: Segmenter) -> Mapping[str, Any]:
    path = segmenter.path
    return {
        "file": str(path) if path else None,
        "sha256": sha256_file(path) if path else None,
        "provider": segmenter.provider,
        "description": segmenter.description,
        "size_hw": list(segmenter.spec.size_hw),
        "classes": segmenter.spec.num_classes,
    }


def _endless(frames: Frames) -> Iterator[np.ndarray]:
    if isinstance(frames, Source):
        while True:
            frame = frames.read()
            if frame is None:
                return
            yield frame.image
    while True:
        yield from frames


def _check_settings(
    warmup_s: float,
    window_s: float,
    max_windows: int,
    duration_s: Optional[float],
    tolerance: float,
    rate_hz: Optional[float],
) -> None:
    positive = {
        "window": window_s,
        "windows": max_windows,
        "duration": duration_s,
        "rate": rate_hz,
        "tolerance": tolerance,
    }
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be positive, got {value:g}", hint="leave it out for the usual one")
    if warmup_s < 0:
        raise ConfigError(f"warm-up must not be negative, got {warmup_s:g}", hint="0: two frames only")


def _loaded_version(module: str) -> Optional[str]:
    version = getattr(sys.modules.get(module), "__version__", None)
    return str(version) if version is not None else None


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Model", "Hardware"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
