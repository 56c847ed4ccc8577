"""How long a frame takes here, measured so that another person measures the same.

Two results, as a robot needs both: the highest rate, frames one after the other, and the latency at a fixed rate, where
frames are due by a schedule that nothing delays, and a frame's latency counts from when it was due. So what a stall did
to the frames behind it is seen, as waiting or as frames missed, and not hidden (which is called coordinated omission).

After a warm-up, frames are measured in windows until the 95th percentile of two windows in a row agrees; where it does
not settle, the record says so instead of averaging it away. Clock: ``time.perf_counter_ns``, read around whole calls
that return finished results, so a GPU's work is inside.
"""

from __future__ import annotations

import array
import dataclasses
import datetime
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import numpy as np

from rtda_deploy.errors import ConfigError, SourceError
from rtda_deploy.files import sha256_file
from rtda_runtime.bench.advice import advice
from rtda_runtime.bench.record import FORMAT, BenchRecord, Figures, Limit, MeasuredModel, Settings, Window
from rtda_runtime.bench.samplers import Counts, PictureSampler, PipelineSampler, PoolSampler, Sampler, Schedule
from rtda_runtime.engines.kinds import libraries
from rtda_runtime.machine.conditions import Conditions, ConditionsMonitor
from rtda_runtime.machine.environment import Environment, environment
from rtda_runtime.mask.upsample import mask_maker
from rtda_runtime.pool import AnySegmenter, SegmenterPool, check_in_flight
from rtda_runtime.sources import Source
from rtda_runtime.timing import summarize_ms

__all__ = ["BenchOptions", "Frames", "benchmark"]

_LEAST_SAMPLES = 20  # of a window: below that a 95th percentile is the maximum

Frames = Union[Source, Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """How it is measured.

    Attributes:
        warmup_s: At least this long and at least two frames are not measured.
        window_s: Length of a window; it goes on until it has 20 samples, but at most ten times as long.
        max_windows: Give up settling after so many.
        duration_s: Measure for this long whether or not it settled; replaces ``max_windows``.
        tolerance: Largest relative change of p95 between two windows that counts as settled.
        rate_hz: Frames are due at this fixed rate, as from a camera, whether or not the one before is finished; of
            those that are due, the newest is taken and the others are missed. The total counts from when the frame was
            due. None: one after the other.
        max_p95_ms: Limit of the total's 95th percentile; the record says whether it is met.

    Raises:
        ConfigError: If a value makes no sense.
    """

    warmup_s: float = 1.0
    window_s: float = 2.0
    max_windows: int = 10
    duration_s: Optional[float] = None
    tolerance: float = 0.05
    rate_hz: Optional[float] = None
    max_p95_ms: Optional[float] = None

    def __post_init__(self) -> None:
        for name in ("window_s", "max_windows", "duration_s", "tolerance", "rate_hz"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                word = "windows" if name == "max_windows" else name.rpartition("_")[0] or name
                raise ConfigError(f"{word} must be positive, got {value:g}", hint="leave it out for the usual one")
        if self.warmup_s < 0:
            raise ConfigError(f"warm-up must not be negative, got {self.warmup_s:g}", hint="0: two frames only")


def benchmark(
    segmenter: AnySegmenter,
    frames: Frames,
    options: Optional[BenchOptions] = None,
    *,
    threads: Optional[int] = None,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
    **asked: Any,
) -> BenchRecord:
    """Measure a network with pictures in memory, or a whole :class:`rtda_runtime.Pipeline`, camera to mask.

    Of pictures, and a :class:`SegmenterPool`, as many are at work at once as it takes: the throughput is that of all
    together, the stages are those of one frame meanwhile.

    A camera is measured at its own rate, and the total is the age of the frame when its mask is there. A recording is
    read as fast as masks are made, and the total is the sum of the frame's stages; what it waits between them is left
    out, because frames are read ahead. A recording with ``rate_hz`` is offered at that rate as a camera would.

    Args:
        segmenter: What is measured, on its own provider; not closed.
        frames: uint8 (H, W, 3) BGR pictures, used in turn; or a source, closed at the end.
        options: How it is measured. None: the usual ones.
        threads: CPU threads that the segmenter was opened with, for the record (None: the engine's own choice).
        clock: Nanoseconds.
        sleep: Waits, seconds.
        asked: Single fields of :class:`BenchOptions` by their names, such as ``duration_s=10.0``.

    Raises:
        ConfigError: If frames have no rate, or several would be in flight, where ``options`` or ``frames`` forbid it.
        SourceError: If the source ends before anything was measured.
    """
    options = dataclasses.replace(options or BenchOptions(), **asked)
    sampler = _sampler(segmenter, frames, options, clock, sleep)
    try:
        machine = environment(libraries=libraries())
        measurement = _Measurement(options, sampler, clock)
        measurement.warm_up()
        with ConditionsMonitor() as monitor:
            measurement.measure()
    finally:
        sampler.close()
    source = frames if isinstance(frames, Source) else None
    settings = Settings(
        warmup_s=options.warmup_s,
        window_s=options.window_s,
        duration_s=options.duration_s,
        tolerance=options.tolerance,
        rate_hz=options.rate_hz,
        in_flight=segmenter.in_flight,
        measures="network" if source is None else "pipeline",
        source=None if source is None else source.name,
        includes=sampler.includes,
    )
    record = measurement.record(_model(segmenter, threads), machine, monitor.conditions, settings)
    return dataclasses.replace(record, advice=(*record.advice, segmenter.advice)) if segmenter.advice else record


def _sampler(
    segmenter: AnySegmenter,
    frames: Frames,
    options: BenchOptions,
    clock: Callable[[], int],
    sleep: Callable[[float], None],
) -> Sampler:
    schedule = Schedule(options.rate_hz, clock) if options.rate_hz else None
    live = isinstance(frames, Source) and frames.live
    check_in_flight(segmenter.in_flight, "newest" if live else "every", options.rate_hz)
    if isinstance(frames, Source):
        if live and schedule is not None:
            raise ConfigError(
                f"{frames.name} has a rate of its own, so {options.rate_hz:g} Hz cannot be kept",
                hint="leave --rate out, or ask the source for it (test://bars?fps=30); a recording takes any rate",
            )
        return PipelineSampler(segmenter, frames, schedule)
    if not len(frames):
        raise ConfigError("no pictures to measure with", hint="a source, such as test://bars, or a list of frames")
    if isinstance(segmenter, SegmenterPool) and segmenter.in_flight > 1:
        return PoolSampler(segmenter, frames)
    return PictureSampler(segmenter, frames, schedule, clock, sleep)


class _Measurement:
    """Samples in windows, until they settle."""

    def __init__(self, options: BenchOptions, sampler: Sampler, clock: Callable[[], int]) -> None:
        self._options = options
        self._sampler = sampler
        self._clock = clock
        self._counts = Counts()
        self._windows: List[Window] = []
        self._measured_s = 0.0
        self._began_ns = 0
        self._exhausted = False
        self._at_s = array.array("d")
        self._stages: Dict[str, array.array[float]] = {}

    def warm_up(self) -> None:
        """Run at least two frames and ``warmup_s`` seconds without measuring."""
        start, done = self._clock(), 0
        while done < 2 or self._since_s(start) < self._options.warmup_s:
            if self._sampler.sample() is None:
                self._exhausted = True
                return
            done += 1

    def measure(self) -> None:
        """Measure until it settles, or for the duration that was asked for, or until the source ends."""
        self._sampler.start_counting()
        self._began_ns = self._clock()
        while not self._exhausted and not self._done():
            self._window()
        self._counts = self._sampler.counts()

    def record(
        self, model: MeasuredModel, machine: Environment, conditions: Conditions, settings: Settings
    ) -> BenchRecord:
        """What was found, with advice.

        Raises:
            SourceError: If nothing was measured.
        """
        if not self._at_s:
            raise SourceError("the source ended before anything was measured", hint="a longer one, or less --warmup")
        counts, measured, limit_ms = self._counts, len(self._at_s), self._options.max_p95_ms
        stages = {stage: np.frombuffer(values) for stage, values in self._stages.items()}
        figures = {stage: Figures(**summarize_ms(values)) for stage, values in stages.items()}
        record = BenchRecord(
            format=FORMAT,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            model=model,
            environment=machine,
            conditions=conditions,
            settings=settings,
            frame_hw=self._sampler.frame_hw,
            mask_maker=mask_maker(),
            stages=figures,
            variation={stage: _variation(values) for stage, values in stages.items()},
            throughput=measured / self._measured_s,
            offered=None if counts.missed is None else measured + counts.missed,
            missed=counts.missed,
            late=counts.late,
            windows=tuple(self._windows),
            settled=self._settled(),
            samples={
                "at_s": [round(at, 4) for at in self._at_s],
                **{stage: [round(value, 4) for value in values] for stage, values in self._stages.items()},
            },
            limit=None if limit_ms is None else Limit(limit_ms, figures["total"].p95 <= limit_ms),
        )
        return dataclasses.replace(record, advice=tuple(advice(record)))

    def _settled(self) -> bool:
        """Whether the last two windows agree."""
        change = self._windows[-1].change if self._windows else None
        return change is not None and change <= self._options.tolerance

    def _done(self) -> bool:
        if self._options.duration_s is not None:
            return bool(self._windows) and self._since_s(self._began_ns) >= self._options.duration_s
        return self._settled() or len(self._windows) >= self._options.max_windows

    def _window(self) -> None:
        """Measure one window; without a duration, until it has samples enough for a percentile."""
        window_s, duration_s = self._options.window_s, self._options.duration_s
        window_s, least = (window_s, _LEAST_SAMPLES) if duration_s is None else (min(window_s, duration_s), 0)
        start, first, seconds = self._clock(), len(self._at_s), 0.0
        while seconds < window_s or (len(self._at_s) - first < least and seconds < 10 * window_s):
            sample = self._sampler.sample()
            if sample is None:
                self._exhausted = True
                break
            for stage, value_ms in sample.items():
                self._stages.setdefault(stage, array.array("d")).append(value_ms)
            self._at_s.append(self._since_s(self._began_ns))
            seconds = self._since_s(start)
        frames = len(self._at_s) - first
        if not frames:
            return
        self._measured_s += seconds
        total = summarize_ms(np.frombuffer(self._stages["total"])[first:])
        before = self._windows[-1].p95 if self._windows else None
        change = abs(total["p95"] - before) / before if before else None
        self._windows.append(Window(seconds, frames, total["p50"], total["p95"], change))

    def _since_s(self, start_ns: int) -> float:
        return (self._clock() - start_ns) / 1e9


def _variation(values: np.ndarray) -> float:
    mean = float(values.mean())
    return float(values.std()) / mean if mean > 0 else 0.0


def _model(segmenter: AnySegmenter, threads: Optional[int]) -> MeasuredModel:
    path = segmenter.path
    return MeasuredModel(
        file=str(path) if path else None,
        sha256=sha256_file(path) if path else None,
        provider=segmenter.provider,
        description=segmenter.description,
        threads=threads,
        size_hw=segmenter.spec.size_hw,
        classes=segmenter.spec.num_classes,
        spec=segmenter.spec.to_dict(),
    )
