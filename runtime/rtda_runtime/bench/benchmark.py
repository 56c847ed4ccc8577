"""How long a frame takes here, said so that somebody else can measure the same.

Two results, as a robot needs both: the highest rate, frames one after the other, and the latency at a fixed rate, where
frames are due by a schedule that nothing delays, and a frame's latency counts from when it was due. So what a stall did
to the frames behind it is seen, as waiting or as frames missed, and not hidden (which is called coordinated omission).

After a warm-up, frames are measured in windows until the 95th percentile of two windows in a row agrees; where it does
not settle, the record says so instead of averaging it away. Clock: ``time.perf_counter_ns``, read around whole calls
that return finished results, so a GPU's work is inside.
"""

from __future__ import annotations

import array
import datetime
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

import numpy as np

from rtda_deploy.errors import ConfigError, SourceError
from rtda_deploy.files import sha256_file
from rtda_runtime.bench.samplers import AtOnce, Frames, InTurn, Taker, Through
from rtda_runtime.engines.kinds import libraries
from rtda_runtime.machine.environment import Conditions, environment
from rtda_runtime.mask.upsample import mask_maker
from rtda_runtime.pool import AnySegmenter, SegmenterPool, check_in_flight
from rtda_runtime.sources import Source
from rtda_runtime.timing import summarize_ms

__all__ = ["FORMAT", "benchmark", "benchmark_pipeline"]

FORMAT = "rtda.bench/1"
_SETTLED = 0.05  # relative change of p95 between two windows below which it counts as settled
_LEAST_SAMPLES = 20  # of a window: below that a 95th percentile is the maximum


def benchmark(
    segmenter: AnySegmenter,
    frames: Frames,
    *,
    warmup_s: float = 1.0,
    window_s: float = 2.0,
    max_windows: int = 10,
    duration_s: Optional[float] = None,
    tolerance: float = _SETTLED,
    rate_hz: Optional[float] = None,
    threads: Optional[int] = None,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Dict[str, Any]:
    """Measure a segmenter.

    Args:
        segmenter: What is measured, on its own provider. Of a :class:`SegmenterPool` as many pictures are at work at
            once as it takes: the throughput is that of all together, the stages are those of one frame meanwhile.
        frames: Pictures, used in turn; or a source, whose reading is then measured too (stage ``capture``). It is part
            of the total for a recording; for a camera it is mostly waiting, and the total begins at the capture.
        warmup_s: At least this long and at least two frames are not measured.
        window_s: Length of a window; it goes on until it has 20 samples, but at most ten times as long.
        max_windows: Give up settling after so many.
        duration_s: Measure for this long whether or not it settled; replaces ``max_windows``.
        tolerance: Largest relative change of p95 that counts as settled.
        rate_hz: Frames are due at this fixed rate, as from a camera, whether or not the one before is finished; of
            those that are due, the newest is taken and the others are missed. The total counts from when the frame was
            due. None: one after the other.
        threads: CPU threads that the segmenter was opened with, for the record (None: as many as cores).

    Returns:
        JSON-ready::

            format       "rtda.bench/1"
            created      ISO 8601, UTC
            model        file, sha256, provider, description, threads, size_hw, classes, spec
            environment  as environment(), read before the warm-up
            conditions   what the machine did meanwhile, as Conditions.record
            settings     warmup_s, window_s, duration_s, tolerance, rate_hz, in_flight (frames at work at once);
                         measures: "network" or "pipeline";
                         source: its name; includes: what "total" covers
            frame_hw     height and width of the first frame
            mask_maker   what made masks of logits on the CPU: "numba", "numpy" (slow), or null: nothing did
            stages       per stage (capture), preprocess, infer, postprocess, (wait), total:
                         count, mean, p50, p90, p95, p99, max in ms, over all windows
            variation    per stage: standard deviation / mean
            throughput   frames per second, measured; at a fixed rate at most that rate
            offered      frames that were due, measured or missed (fixed rate, and cameras; else null)
            missed       those of them that gave no mask, because a newer one was there (else null)
            late         those that were missed, or began later than their turn (fixed rate only, else null)
            windows      per window: seconds, frames, p50, p95, change of p95 against the one before (or null)
            settled      whether the last change was within the tolerance
            samples      at_s (end of each frame since the start) and each stage's ms, frame by frame

    Raises:
        ConfigError: If a setting makes no sense: several frames in flight at a rate, or of a camera, among them.
        SourceError: If the source ends before anything was measured.
    """
    plan = _Plan(warmup_s, window_s, max_windows, duration_s, tolerance, rate_hz)
    plan.check(frames, segmenter.in_flight)
    if isinstance(frames, Source) and segmenter.in_flight > 1:
        raise ConfigError("frames of a source are read in turn here", hint="benchmark_pipeline has several in flight")
    if not isinstance(frames, Source) and not len(frames):
        raise ConfigError("no pictures to measure with", hint="a source, such as test://bars, or a list of frames")
    taker: Taker
    if isinstance(segmenter, SegmenterPool) and segmenter.in_flight > 1 and not isinstance(frames, Source):
        taker = AtOnce(segmenter, frames)
    else:
        taker = InTurn(segmenter, frames, rate_hz, clock, sleep)
    try:
        return _Run(plan, taker, clock).record(segmenter, threads, measures="network", frames=frames)
    finally:
        taker.close()


def benchmark_pipeline(
    segmenter: AnySegmenter,
    source: Source,
    *,
    warmup_s: float = 1.0,
    window_s: float = 2.0,
    max_windows: int = 10,
    duration_s: Optional[float] = None,
    tolerance: float = _SETTLED,
    rate_hz: Optional[float] = None,
    threads: Optional[int] = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Dict[str, Any]:
    """Measure a whole :class:`Pipeline`, camera to mask, with its threads and its policy.

    A camera is measured at its own rate, and the total is the age of the frame when its mask is there. A recording is
    read as fast as masks are made, and the total is the sum of the frame's stages; what it waits between them is left
    out, because frames are read ahead. A recording with ``rate_hz`` is offered at that rate as a camera would.

    Args:
        segmenter: Not closed.
        source: Closed at the end.
        rate_hz: For a recording only.

    Other arguments, what is returned and raised: as :func:`benchmark`.
    """
    plan = _Plan(warmup_s, window_s, max_windows, duration_s, tolerance, rate_hz)
    plan.check(source, segmenter.in_flight)
    taker = Through(segmenter, source, rate_hz, clock)
    try:
        return _Run(plan, taker, clock).record(segmenter, threads, measures="pipeline", frames=source)
    finally:
        taker.close()


class _Plan(NamedTuple):
    """How it is measured; the fields are arguments of :func:`benchmark`."""

    warmup_s: float
    window_s: float
    max_windows: int
    duration_s: Optional[float]
    tolerance: float
    rate_hz: Optional[float]

    def check(self, frames: Frames, in_flight: int) -> None:
        """Refuse what makes no sense."""
        live = isinstance(frames, Source) and frames.live
        check_in_flight(in_flight, "newest" if live else "every", self.rate_hz)
        for name, value in self._asdict().items():
            if name != "warmup_s" and value is not None and not value > 0:
                word = {"max_windows": "windows"}.get(name, name.rpartition("_")[0] or name)
                raise ConfigError(f"{word} must be positive, got {value:g}", hint="leave it out for the usual one")
        if self.warmup_s < 0:
            raise ConfigError(f"warm-up must not be negative, got {self.warmup_s:g}", hint="0: two frames only")
        if self.rate_hz is not None and isinstance(frames, Source) and frames.live:
            raise ConfigError(
                f"{frames.name} has a rate of its own, so {self.rate_hz:g} Hz cannot be kept",
                hint="leave --rate out, or ask the source for it (test://bars?fps=30); a recording takes any rate",
            )


class _Run:
    """The measurement while it goes on."""

    def __init__(self, plan: _Plan, taker: Taker, clock: Callable[[], int]) -> None:
        self._plan = plan
        self._windows: List[Dict[str, Any]] = []
        self._exhausted = False
        self._taker = taker
        self._clock = clock
        self._measured_s = 0.0
        self._began_ns = 0
        self._at_s = array.array("d")
        self._stages: Dict[str, array.array[float]] = {}

    def record(
        self, segmenter: AnySegmenter, threads: Optional[int], *, measures: str, frames: Frames
    ) -> Dict[str, Any]:
        """Measure, and say what was found, as :func:`benchmark` describes it."""
        machine = environment(libraries=libraries())
        self._warm_up()
        with Conditions() as conditions:
            self._measure()
            counts = self._taker.counts()
        if not self._at_s:
            raise SourceError("the source ended before anything was measured", hint="a longer one, or less --warmup")
        stages = {stage: summarize_ms(np.frombuffer(values)) for stage, values in self._stages.items()}
        return {
            "format": FORMAT,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "model": _model_record(segmenter, threads),
            "environment": machine,
            "conditions": conditions.record,
            "settings": {
                **{name: value for name, value in self._plan._asdict().items() if name != "max_windows"},
                "in_flight": segmenter.in_flight,
                "measures": measures,
                "source": frames.name if isinstance(frames, Source) else None,
                "includes": self._taker.includes,
            },
            "frame_hw": list(self._taker.frame_hw),
            "mask_maker": mask_maker(),
            "stages": stages,
            "variation": {stage: _variation(np.frombuffer(values)) for stage, values in self._stages.items()},
            "throughput": len(self._at_s) / self._measured_s,
            "offered": None if counts["missed"] is None else len(self._at_s) + counts["missed"],
            **counts,
            "windows": self._windows,
            "settled": self._settled(),
            "samples": {
                "at_s": [round(at, 4) for at in self._at_s],
                **{stage: [round(value, 4) for value in values] for stage, values in self._stages.items()},
            },
        }

    def _warm_up(self) -> None:
        """Run at least two frames and ``warmup_s`` seconds without measuring."""
        start = self._clock()
        done = 0
        while done < 2 or (self._clock() - start) / 1e9 < self._plan.warmup_s:
            if self._taker.next() is None:
                self._exhausted = True
                return
            done += 1

    def _measure(self) -> None:
        window_s, duration_s = self._plan.window_s, self._plan.duration_s
        self._taker.begin()
        self._began_ns = self._clock()
        while not self._exhausted:
            self._window(window_s if duration_s is None else min(window_s, duration_s), whole=duration_s is None)
            if duration_s is not None:
                if (self._clock() - self._began_ns) / 1e9 >= duration_s:
                    break
            elif self._settled() or len(self._windows) >= self._plan.max_windows:
                break

    def _window(self, window_s: float, *, whole: bool) -> None:
        """Measure one window; ``whole``: until it has samples enough for a percentile."""
        start = self._clock()
        first = len(self._at_s)
        seconds = 0.0
        while seconds < window_s or (
            whole and len(self._at_s) - first < _LEAST_SAMPLES and seconds < 10 * window_s
        ):  # fmt: skip
            sample = self._taker.next()
            if sample is None:
                self._exhausted = True
                break
            seconds = self._keep(sample, start)
        if len(self._at_s) == first:
            return
        self._measured_s += seconds
        total = summarize_ms(np.frombuffer(self._stages["total"])[first:])
        before = self._windows[-1]["p95"] if self._windows else None
        change = abs(total["p95"] - before) / before if before else None
        frames = len(self._at_s) - first
        self._windows.append(
            {"seconds": seconds, "frames": frames, "p50": total["p50"], "p95": total["p95"], "change": change}
        )

    def _keep(self, sample: Mapping[str, float], start_ns: int) -> float:
        """Keep one frame's stages; gives the seconds since the window began."""
        now = self._clock()
        for stage, value_ms in sample.items():
            self._stages.setdefault(stage, array.array("d")).append(value_ms)
        self._at_s.append((now - self._began_ns) / 1e9)
        return (now - start_ns) / 1e9

    def _settled(self) -> bool:
        """Whether the last two windows agree."""
        change = self._windows[-1]["change"] if self._windows else None
        return change is not None and change <= self._plan.tolerance


def _variation(values: np.ndarray) -> float:
    mean = float(values.mean())
    return float(values.std()) / mean if mean > 0 else 0.0


def _model_record(segmenter: AnySegmenter, threads: Optional[int]) -> Mapping[str, Any]:
    path = segmenter.path
    return {
        "file": str(path) if path else None,
        "sha256": sha256_file(path) if path else None,
        "provider": segmenter.provider,
        "description": segmenter.description,
        "threads": threads,
        "size_hw": list(segmenter.spec.size_hw),
        "classes": segmenter.spec.num_classes,
        "spec": segmenter.spec.to_dict(),
    }
