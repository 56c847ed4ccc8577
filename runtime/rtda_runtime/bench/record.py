"""The record of a benchmark: what was measured, on what, with which settings, and every sample.

Its JSON is ``times.json`` and, without the samples, what ``rtda-deploy bench --json`` prints.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import readable_file
from rtda_runtime.machine.conditions import Conditions
from rtda_runtime.machine.environment import Environment
from rtda_runtime.records import fields_from_json, fields_to_json

__all__ = ["FIGURES", "FORMAT", "BenchRecord", "Figures", "Limit", "MeasuredModel", "Settings", "Window", "load_record"]

FORMAT = "rtda.bench/1"
FIGURES = ("mean", "p50", "p90", "p95", "p99", "max")
_HINT = "name a times.json that rtda-deploy bench has saved, or its folder"


@dataclasses.dataclass(frozen=True)
class Figures:
    """A stage over all frames, ms; ``count`` is the number of frames."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @property
    def times(self) -> Tuple[float, ...]:
        """All but the count, named by ``FIGURES``."""
        return tuple(float(getattr(self, name)) for name in FIGURES)


@dataclasses.dataclass(frozen=True)
class MeasuredModel:
    """What was measured; ``threads``: CPU threads that were asked for (None: the engine's own choice)."""

    file: Optional[str]
    sha256: Optional[str]
    provider: str
    description: str
    threads: Optional[int]
    size_hw: Tuple[int, int]
    classes: Optional[int]
    spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How it was measured: the fields of :class:`rtda_runtime.bench.benchmark.BenchOptions`, and what they applied to.

    Attributes:
        in_flight: Frames segmented at once.
        measures: "network" (pictures in memory) or "pipeline" (a source, with the threads of a pipeline).
        source: Its name.
        includes: What the stage ``total`` covers, in words.
    """

    warmup_s: float
    window_s: float
    duration_s: Optional[float]
    tolerance: float
    rate_hz: Optional[float]
    in_flight: int = 1
    measures: str = "network"
    source: Optional[str] = None
    includes: str = ""


@dataclasses.dataclass(frozen=True)
class Window:
    """Some seconds of the measurement; ``change``: of p95, relative to the window before."""

    seconds: float
    frames: int
    p50: float
    p95: float
    change: Optional[float]


@dataclasses.dataclass(frozen=True)
class Limit:
    """The largest p95 of the total that was asked for, and whether it was kept."""

    max_p95_ms: float
    met: bool


@dataclasses.dataclass(frozen=True)
class BenchRecord:
    """What a benchmark found.

    Attributes:
        format: "rtda.bench/1".
        created: ISO 8601, UTC.
        environment: The machine, read before the warm-up.
        conditions: What the machine did during the measurement.
        frame_hw: Height and width of the first frame.
        mask_maker: What made masks of logits on the CPU: "numba", "numpy" (slow); None: nothing did.
        stages: Per stage (capture), preprocess, infer, postprocess, (wait), total: its figures over all windows.
        variation: Per stage: standard deviation / mean.
        throughput: Frames per second, measured; at a fixed rate at most that rate.
        offered: Frames that were due, measured or missed (fixed rate, and cameras; else None).
        missed: Those of them that gave no mask, because a newer one was there (else None).
        late: Those that were missed, or began later than they were due (fixed rate only, else None).
        settled: Whether the last change of p95 was within the tolerance.
        samples: ``at_s`` (end of each frame since the start) and each stage's ms, frame by frame; may be left out.
        limit: Where one was asked for.
        advice: Sentences on what the figures show a cause for.
        folder: Where the record was saved.
    """

    format: str
    created: str
    model: MeasuredModel
    environment: Environment
    conditions: Conditions
    settings: Settings
    frame_hw: Tuple[int, int]
    mask_maker: Optional[str]
    stages: Mapping[str, Figures]
    variation: Mapping[str, float]
    throughput: float
    offered: Optional[int]
    missed: Optional[int]
    late: Optional[int]
    windows: Tuple[Window, ...]
    settled: bool
    samples: Mapping[str, List[float]] = dataclasses.field(default_factory=dict)
    limit: Optional[Limit] = None
    advice: Tuple[str, ...] = ()
    folder: Optional[str] = None

    @property
    def total(self) -> Figures:
        """The figures of a whole frame."""
        return self.stages["total"]

    def to_dict(self, *, samples: bool = True) -> Dict[str, Any]:
        """JSON-ready, keys in the order of the attributes."""
        values = fields_to_json(self if samples else dataclasses.replace(self, samples={}))
        if not samples:
            del values["samples"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BenchRecord:
        """What :meth:`to_dict` gave.

        Raises:
            ValueError: If a key is not there or a value is of another type.
        """
        return fields_from_json(cls, values)

    def rate_text(self) -> str:
        """The rate in a sentence: the highest, or what became of the one that was asked for."""
        settings, told = self.settings, ""
        if self.offered is not None and self.missed is not None:
            share = 100 * self.missed / max(1, self.offered)
            told = f", missed {self.missed} of {self.offered} frames ({share:.2g} %)"
        if settings.rate_hz:
            return f"at {settings.rate_hz:g} Hz: {self.throughput:.1f} frames/s achieved{told}, {self.late} late"
        if settings.measures == "pipeline" and self.offered is not None:
            return f"{self.throughput:.1f} frames/s, as they come{told}"
        how = "read and segmented at once" if settings.measures == "pipeline" else "one frame after the other"
        how = how if settings.in_flight == 1 else f"{settings.in_flight} frames in flight"
        return f"highest rate {self.throughput:.1f} frames/s, {how}"


def load_record(path: Path) -> BenchRecord:
    """Read a ``times.json``, or the one in a folder; or what ``bench --json`` has printed.

    Raises:
        FileAccessError: If it cannot be read.
        DataError: If it is no result of ``bench``.
    """
    file = path / "times.json" if path.is_dir() else path
    values = json_values(readable_file(file, what="result").read_bytes(), str(file), DataError, hint=_HINT)
    kind = values.get("format") if isinstance(values, dict) else None
    if kind != FORMAT:
        raise DataError(f"{file} is no result of bench: format {kind!r}, expected {FORMAT!r}", hint=_HINT)
    with parsing(DataError, f"{file} is not what bench has written", hint=_HINT):
        record = BenchRecord.from_dict(values)
        if "total" not in record.stages:
            raise ValueError("it has no stages")
        if min(min(figures.p50, figures.p95) for figures in record.stages.values()) < 0 or record.throughput < 0:
            raise ValueError("a time or rate below zero")
    return record
