"""``report.html`` of a benchmark: how long, how steady, where the time goes, on what."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, Iterator, List, Tuple

from rtda_deploy.report import ReportPage
from rtda_runtime.bench.record import FIGURES, BenchRecord
from rtda_runtime.engines.kinds import cpu_providers

__all__ = ["save_page"]

_POINTS = 120  # of the moving median
_EMBEDDED = 20_000  # frames whose times the page carries; times.json has them all
_MOST_ROWS = 24  # of the table of windows
_LEFT_OUT = ("spec", "power_modes")  # of the tables: long, and in the figures that the page carries


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
        ("ms", *FIGURES),
        [(stage, *(round(value, 2) for value in found.times)) for stage, found in record.stages.items()],
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
    values = record.to_dict()
    for heading, names in (("Environment", ("model", "environment")), ("While it was measured", ("conditions",))):
        page.heading(heading)
        page.table(("what", "value"), [row for name in names for row in _facts(values[name])])
    step = -(-len(record.samples["at_s"]) // _EMBEDDED)
    page.data({**values, "samples": {name: kept[::step] for name, kept in values["samples"].items()}})
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


def _facts(value: Any, name: str = "") -> Iterator[Tuple[str, Any]]:
    """Each value that is known, named as in the JSON; so a field that a record gains is shown by itself."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _LEFT_OUT:
                yield from _facts(item, f"{name} {key.replace('_', ' ')}".strip())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value, start=1):
            yield from _facts(item, f"{name} {number}")
    elif value not in (None, []):
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else value
