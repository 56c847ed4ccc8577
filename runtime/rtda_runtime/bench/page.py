"""``report.html`` of a benchmark: how long, how steady, where the time goes, on what."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

from rtda_deploy.report import ReportPage
from rtda_runtime.bench.record import BenchRecord
from rtda_runtime.engines.kinds import cpu_providers
from rtda_runtime.machine.environment import Environment

__all__ = ["save_page"]

_FIGURES = ("mean", "p50", "p90", "p95", "p99", "max")
_POINTS = 120  # of the moving median
_EMBEDDED = 20_000  # frames whose times the page carries; times.json has them all
_MOST_ROWS = 24  # of the table of windows


def save_page(record: BenchRecord, path: Path) -> Path:
    """Write the page of a record with samples.

    Raises:
        FileAccessError: If it cannot be written.
    """
    total, result = record.total, record.rate_text()
    page = ReportPage(f"{_title(record)}: {total.p50:.1f} ms, p95 {total.p95:.1f} ms", _subtitle(record))
    page.text(f"{result[0].upper()}{result[1:]}. Total = {record.settings.includes}.")
    if record.limit is not None:
        sign, word = ("✓", "within") if record.limit.met else ("✗", "above")
        page.text(f"{sign} p95 {total.p95:.1f} ms, {word} the limit of {record.limit.max_p95_ms:g} ms.")
    page.table(
        ("ms", *_FIGURES),
        [(stage, *(round(getattr(found, name), 2) for name in _FIGURES)) for stage, found in record.stages.items()],
        caption=f"{total.count} frames in {len(record.windows)} windows after a warm-up of"
        f" {record.settings.warmup_s:g} s.",
    )
    if record.advice:
        page.heading("Advice")
        for sentence in record.advice:
            page.text(f"{sentence[0].upper()}{sentence[1:]}.")
    _add_latency(page, record)
    page.heading("Where the time goes")  # in means, because they add up to the mean of the total and medians do not
    stages = _parts_of_total(record)
    page.stacked(stages, [record.stages[stage].mean for stage in stages], unit="ms", caption="Mean of each stage.")
    _add_windows(page, record)
    page.heading("Environment")
    page.table(("what", "value"), list(_environment_rows(record)))
    step = -(-len(record.samples["at_s"]) // _EMBEDDED)
    thinned = {name: values[::step] for name, values in record.samples.items()}
    page.data(dataclasses.replace(record, samples=thinned).to_dict())
    return page.save(path)


def _title(record: BenchRecord) -> str:
    name = Path(record.model.file).name if record.model.file else record.model.description
    return f"{name}, camera to mask" if record.settings.measures == "pipeline" else name


def _subtitle(record: BenchRecord) -> str:
    environment, provider = record.environment, record.model.provider
    jetson = environment.jetson
    device = (jetson and jetson.model) or environment.cpu
    if environment.gpus and provider not in cpu_providers():
        device = environment.gpus[0].name
    mode = jetson.power_mode.name if jetson is not None and jetson.power_mode is not None else None
    sizes = "network {1}x{0}".format(*record.model.size_hw), "frames {1}x{0}".format(*record.frame_hw)
    return " · ".join(part for part in (device, mode, provider, *sizes, record.created) if part)


def _add_latency(page: ReportPage, record: BenchRecord) -> None:
    total, samples = record.total, record.samples
    page.heading("Latency")
    marks = {"p50": total.p50, "p95": total.p95, "p99": total.p99}
    page.histogram(samples["total"], marks, caption="How many frames took how long (total).")
    page.heading("Latency over time")
    points = list(zip(samples["at_s"], samples["total"]))
    median = _moving_median(points)
    page.lines(
        {"each frame": points, **({"moving median": median} if len(median) > 1 else {})},
        x_label="s since the start",
        y_label="total, ms",
        caption="A rise of the median is a machine that slows down, such as by heat; lone spikes are stalls.",
    )


def _moving_median(points: List[Tuple[float, float]]) -> List[Tuple[float, float]]:
    size = max(5, len(points) // _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points) - size + 1, size)]
    return [(statistics.mean(x for x, _ in group), statistics.median(y for _, y in group)) for group in groups]


def _parts_of_total(record: BenchRecord) -> List[str]:
    """The stages that are part of the total, in the order they happen; waiting for a camera is none."""
    stages = [stage for stage in ("wait", "capture", "preprocess", "infer", "postprocess") if stage in record.stages]
    if "capture" in stages and sum(record.stages[stage].mean for stage in stages) > 1.02 * record.total.mean:
        stages.remove("capture")
    return stages


def _add_windows(page: ReportPage, record: BenchRecord) -> None:
    page.heading("Did it settle?")
    if record.settings.duration_s is not None:
        page.text("A duration was asked for, so nothing was waited for.")
    elif record.settled:
        page.text("Yes: the 95th percentile of the last two windows agrees.")
    else:
        page.text("No: the 95th percentile still changed from window to window. Read the figures with care.")
    rows = []
    for index, window in enumerate(record.windows):
        change = f"{100 * window.change:.1f} %" if window.change is not None else None
        rows.append(
            (index + 1, *(round(x, 2) for x in (window.seconds, window.frames, window.p50, window.p95)), change)
        )
    if len(rows) > _MOST_ROWS:
        rows = [*rows[: _MOST_ROWS // 2], *rows[-_MOST_ROWS // 2 :]]
    page.table(("window", "seconds", "frames", "p50 ms", "p95 ms", "change of p95"), rows)


def _environment_rows(record: BenchRecord) -> Iterator[Tuple[str, Any]]:
    environment, conditions, model = record.environment, record.conditions, record.model
    yield "model", model.file or model.description
    yield "sha256", model.sha256
    yield "engine", model.description
    yield "CPU", f"{environment.cpu}, {environment.cores} of {environment.cores_total} cores"
    if environment.cpu_quota is not None:
        yield "CPU quota of the container", f"{environment.cpu_quota:g} cores"
    yield "governor, clock", _clock_text(environment)
    memory = environment.memory_mb
    yield "memory", _joined(memory.total, "MB, ", memory.available, "MB free before")
    for gpu in conditions.gpus or environment.gpus:
        clock = _joined(gpu.clock_mhz, "of", gpu.clock_max_mhz, "MHz")
        yield "GPU", ", ".join(part for part in (gpu.name, f"driver {gpu.driver}", clock) if part)
    yield from _jetson_rows(record)
    yield "system", f"{environment.os or environment.system}, kernel {environment.kernel}"
    yield "container", environment.container or "none seen"
    for name, version in environment.versions.items():
        if version is not None:
            yield name.replace("_", "-"), version
    yield "load before, after (1 min)", f"{environment.load_1min:.2f}, {conditions.load_1min:.2f}"
    others = f", {conditions.other_cores:.1f} by others" if conditions.other_cores is not None else ""
    yield "cores busy meanwhile", f"{conditions.own_cores:.1f} by this process{others}"
    yield "peak memory of this process", f"{conditions.memory_peak_mb:.0f} MB"
    start, end = conditions.temperature_start_c, conditions.temperature_end_c
    if end is not None:
        yield "hottest sensor", f"{start:.0f} to {end:.0f} °C" if start is not None else f"{end:.0f} °C"


def _jetson_rows(record: BenchRecord) -> Iterator[Tuple[str, Any]]:
    board, readings = record.environment.jetson, record.conditions.jetson
    if board is None:
        return
    yield "board", _joined(board.model, "· L4T", board.l4t)
    mode, clock = board.power_mode, board.gpu_clock
    yield "power mode", f"{mode.name} ({mode.number})" if mode else None
    if clock:
        locked = "locked" if clock.locked else "not locked"
        yield "GPU clock", f"{clock.least_mhz} to {clock.most_mhz} MHz, {locked}"
    if readings is not None and readings.power_w is not None:
        yield "power", f"{readings.power_w:.1f} W mean, {readings.power_max_w:.1f} W most"


def _clock_text(environment: Environment) -> str:
    clock = environment.cpu_mhz
    parts = [environment.governor, f"{clock.least} to {clock.most} MHz, now {clock.now}" if clock else None]
    return ", ".join(part for part in parts if part) or "not readable here"


def _joined(*parts: Any) -> Optional[str]:
    return None if any(part is None for part in parts) else " ".join(str(part) for part in parts)
