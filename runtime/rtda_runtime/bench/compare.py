"""What differs between two records of a benchmark, and whether that is more than noise.

Times of neighbouring frames resemble each other, so the interval of a difference comes from blocks of frames drawn
with replacement (a block bootstrap), not from single ones, which would make every difference look certain.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_runtime.bench.record import BenchRecord

__all__ = ["Comparison", "Difference", "compare_records"]

_PERCENTILES = {"p50": 50.0, "p95": 95.0}
_BLOCKS = 20  # of frames, in time order
_DRAWS = 1000
_LEAST_FRAMES = 4 * _BLOCKS
_MOST_FRAMES = 20_000  # of a long result every second, third ... frame is drawn from, or it takes minutes
_INTERVAL = (2.5, 97.5)  # percent: a 95 % interval
_VARYING = ("load_1min", "memory_mb", "temperatures_c", "cpu_mhz", "gpus", "jetson")  # differ from run to run


@dataclasses.dataclass(frozen=True)
class Difference:
    """One figure of a stage in both records, ms, or the throughput, frames per second.

    Attributes:
        figure: "p50" or "p95"; "mean" of the throughput.
        change: Relative to ``a``; None where ``a`` is 0.
        low: Lower end of the 95 % interval of the change; None where the frames are too few, or there are none.
        high: Its upper end.
        verdict: "faster", "slower", "same" (the interval holds zero), or "unknown" (no interval).
    """

    stage: str
    figure: str
    a: float
    b: float
    change: Optional[float]
    low: Optional[float]
    high: Optional[float]
    verdict: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What differs between two records.

    Attributes:
        rows: Each stage's figures, and the throughput.
        changed: Sentences on what else is not the same, such as a version.
        different_setup: What makes the two no comparison; empty unless that was allowed.
    """

    rows: Tuple[Difference, ...]
    changed: Tuple[str, ...]
    different_setup: Tuple[str, ...]


def compare_records(a: BenchRecord, b: BenchRecord, *, force: bool = False) -> Comparison:
    """What differs from ``a`` to ``b``.

    Args:
        force: Compare records of different devices, power modes, sizes, rates, or of another thing measured, too.

    Raises:
        ConfigError: If they are such, and ``force`` does not allow that.
    """
    mine, other = dict(_setup(a)), dict(_setup(b))
    unlike = tuple(f"{name}: {mine[name]} and {other[name]}" for name in mine if mine[name] != other[name])
    if unlike and not force:
        raise ConfigError(
            "these two results cannot be compared",
            why="; ".join(unlike),
            hint="measure both on one device with one setting, or add --force to compare nevertheless",
        )
    rows = [row for stage in a.stages if stage in b.stages for row in _stage_rows(a, b, stage)]
    rng = np.random.default_rng(0)  # the same answer every time
    rates = [_drawn_rates(record.samples.get("at_s", []), rng) for record in (a, b)]
    rows.append(_difference("frames/s", "mean", a.throughput, b.throughput, _interval(*rates), more_is="faster"))
    return Comparison(tuple(rows), tuple(_changed(a, b)), unlike)


def _setup(record: BenchRecord) -> Iterator[Tuple[str, Any]]:
    environment, settings, jetson = record.environment, record.settings, record.environment.jetson
    yield "device", f"{(jetson and jetson.model) or environment.cpu} ({environment.machine})"
    yield "cores", environment.cores
    yield "GPU", ", ".join(gpu.name for gpu in environment.gpus) or "none"
    yield "power mode", jetson.power_mode.name if jetson is not None and jetson.power_mode is not None else "none"
    yield "network size", "{1}x{0}".format(*record.model.size_hw)
    yield "frame size", "{1}x{0}".format(*record.frame_hw)
    yield "rate", f"{settings.rate_hz:g} Hz" if settings.rate_hz else "the highest"
    yield "frames in flight", settings.in_flight
    yield "measured", settings.measures


def _changed(a: BenchRecord, b: BenchRecord) -> Iterator[str]:
    for name in ("file", "sha256", "provider", "description", "threads"):
        before, after = getattr(a.model, name), getattr(b.model, name)
        if before != after:
            short = 12 if name == "sha256" else None
            yield f"{name}: {str(before)[:short]} -> {str(after)[:short]}"
    mine, other = a.environment.to_dict(), b.environment.to_dict()
    for name in mine:
        if name not in _VARYING and mine[name] != other.get(name):
            yield f"{name}: {mine[name]} -> {other.get(name)}"


def _stage_rows(a: BenchRecord, b: BenchRecord, stage: str) -> Iterator[Difference]:
    rng = np.random.default_rng(0)
    drawn = [_drawn_percentiles(np.asarray(record.samples.get(stage, [])), rng) for record in (a, b)]
    for index, figure in enumerate(_PERCENTILES):
        before, after = (None if values is None else values[:, index] for values in drawn)
        old, new = (float(getattr(record.stages[stage], figure)) for record in (a, b))
        yield _difference(stage, figure, old, new, _interval(before, after), more_is="slower")


def _difference(
    stage: str, figure: str, a: float, b: float, interval: Optional[Tuple[float, float]], *, more_is: str
) -> Difference:
    change = b / a - 1.0 if a else None
    low, high = interval or (None, None)
    if low is None or high is None or change is None:
        verdict = "unknown"
    elif low <= 0.0 <= high:
        verdict = "same"
    else:
        verdict = more_is if low > 0 else {"slower": "faster", "faster": "slower"}[more_is]
    return Difference(stage, figure, a, b, change, low, high, verdict)


def _interval(before: Optional[np.ndarray], after: Optional[np.ndarray]) -> Optional[Tuple[float, float]]:
    """95 % interval of the relative difference of what was drawn; None where there is none."""
    if before is None or after is None or not before.all():
        return None
    low, high = np.percentile(after / before - 1.0, _INTERVAL)
    return float(low), float(high)


def _drawn_percentiles(values: np.ndarray, rng: np.random.Generator) -> Optional[np.ndarray]:
    """Percentiles of ``_DRAWS`` results that could have been: blocks of frames drawn with replacement."""
    if len(values) < _LEAST_FRAMES:
        return None
    values = values[:: -(-len(values) // _MOST_FRAMES)]
    size = len(values) // _BLOCKS
    blocks = values[: size * _BLOCKS].reshape(_BLOCKS, size)
    picks = rng.integers(0, _BLOCKS, (_DRAWS, _BLOCKS))
    return np.array([np.percentile(blocks[pick], list(_PERCENTILES.values())) for pick in picks])


def _drawn_rates(at_s: List[float], rng: np.random.Generator) -> Optional[np.ndarray]:
    """The same of frames per second, from the time that each block of frames took."""
    if len(at_s) < _LEAST_FRAMES:
        return None
    size = len(at_s) // _BLOCKS
    spent_s = np.diff(np.concatenate([[0.0], at_s[size - 1 :: size][:_BLOCKS]]))
    return np.asarray(_BLOCKS * size / spent_s[rng.integers(0, _BLOCKS, (_DRAWS, _BLOCKS))].sum(axis=1))
