"""``report.html`` of a benchmark: how long, how steady, where the time goes, on what."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

from rtda_runtime.engines.kinds import cpu_providers, libraries

if TYPE_CHECKING:
    from rtda_deploy.report import ReportPage

__all__ = ["save_page"]

_FIGURES = ("mean", "p50", "p90", "p95", "p99", "max")
_POINTS = 120  # of the moving median
_EMBEDDED = 20_000  # frames whose times the page carries; times.json has them all


def save_page(found: Dict[str, Any], path: Path) -> Path:
    """Write the page for a record of :func:`rtda_runtime.bench.benchmark.benchmark`, with ``limit`` and ``advice``."""
    from rtda_deploy.cli.bench.verb import result_line
    from rtda_deploy.report import ReportPage

    total, settings = found["stages"]["total"], found["settings"]
    page = ReportPage(f"{_title(found)}: {total['p50']:.1f} ms, p95 {total['p95']:.1f} ms", _subtitle(found))
    result = result_line(found)
    page.text(f"{result[0].upper()}{result[1:]}. Total = {settings['includes']}.")
    _add_verdict(page, found)
    page.table(
        ("ms", *_FIGURES),
        [(stage, *(round(values[key], 2) for key in _FIGURES)) for stage, values in found["stages"].items()],
        caption=f"{total['count']} frames in {len(found['windows'])} windows after a warm-up of"
        f" {settings['warmup_s']:g} s.",
    )
    _add_advice(page, found)
    _add_latency(page, found)
    _add_stages(page, found)
    _add_windows(page, found)
    page.heading("Environment")
    page.table(("what", "value"), list(_environment_rows(found)))
    page.data(_embedded(found))
    return page.save(path)


def _title(found: Dict[str, Any]) -> str:
    name = Path(found["model"]["file"]).name if found["model"]["file"] else found["model"]["description"]
    return f"{name}, camera to mask" if found["settings"]["measures"] == "pipeline" else str(name)


def _subtitle(found: Dict[str, Any]) -> str:
    environment, model = found["environment"], found["model"]
    jetson, gpus = environment["jetson"] or {}, environment["gpus"]
    device = jetson.get("model") or environment["cpu"]
    if gpus and model["provider"] not in cpu_providers():
        device = gpus[0]["name"]
    mode = (jetson.get("power_mode") or {}).get("name")
    height, width = model["size_hw"]
    frame = f"{found['frame_hw'][1]}x{found['frame_hw'][0]}"
    parts = [device, mode, model["provider"], f"network {width}x{height}", f"frames {frame}", found["created"]]
    return " · ".join(part for part in parts if part)


def _add_verdict(page: ReportPage, found: Dict[str, Any]) -> None:
    limit = found.get("limit")
    if limit is not None:
        p95 = found["stages"]["total"]["p95"]
        sign, word = ("✓", "within") if limit["met"] else ("✗", "above")
        page.text(f"{sign} p95 {p95:.1f} ms, {word} the limit of {limit['max_p95_ms']:g} ms.")


def _add_advice(page: ReportPage, found: Dict[str, Any]) -> None:
    sentences = found.get("advice", [])
    if sentences:
        page.heading("Advice")
        for sentence in sentences:
            page.text(f"{sentence[0].upper()}{sentence[1:]}.")


def _add_latency(page: ReportPage, found: Dict[str, Any]) -> None:
    total, samples = found["stages"]["total"], found["samples"]
    page.heading("Latency")
    marks = {name: total[name] for name in ("p50", "p95", "p99")}
    page.histogram(samples["total"], marks, caption="How many frames took how long (total).")
    page.heading("Latency over time")
    points = list(zip(samples["at_s"], samples["total"]))
    median = _moving_median(points)
    lines = {"each frame": points, "moving median": median} if len(median) > 1 else {"each frame": points}
    page.lines(
        lines,
        x_label="s since the start",
        y_label="total, ms",
        caption="A rise of the median is a machine that slows down, such as by heat; lone spikes are stalls.",
    )


def _add_stages(page: ReportPage, found: Dict[str, Any]) -> None:
    """Means, because means add up to the mean of the total and medians do not."""
    stages = _shown_stages(found)
    page.heading("Where the time goes")
    page.stacked(
        list(stages), [found["stages"][stage]["mean"] for stage in stages], unit="ms", caption="Mean of each stage."
    )


def _shown_stages(found: Dict[str, Any]) -> List[str]:
    """The stages that are part of the total, in the order they happen."""
    stages = [stage for stage in ("wait", "capture", "preprocess", "infer", "postprocess") if stage in found["stages"]]
    whole = found["stages"]["total"]["mean"]
    parts = sum(found["stages"][stage]["mean"] for stage in stages)
    if "capture" in stages and parts > 1.02 * whole:  # waiting for a camera is no part of the total
        stages.remove("capture")
    return stages


def _add_windows(page: ReportPage, found: Dict[str, Any]) -> None:
    page.heading("Did it settle?")
    if found["settings"]["duration_s"] is not None:
        page.text("A duration was asked for, so nothing was waited for.")
    elif found["settled"]:
        page.text("Yes: the 95th percentile of the last two windows agrees.")
    else:
        page.text("No: the 95th percentile still changed from window to window. Read the figures with care.")
    rows = [
        (
            index + 1,
            round(window["seconds"], 2),
            window["frames"],
            round(window["p50"], 2),
            round(window["p95"], 2),
            f"{100 * window['change']:.1f} %" if window["change"] is not None else None,
        )
        for index, window in enumerate(found["windows"])
    ]
    if len(rows) > 24:
        rows = [*rows[:12], *rows[-12:]]
    page.table(("window", "seconds", "frames", "p50 ms", "p95 ms", "change of p95"), rows)


def _environment_rows(found: Dict[str, Any]) -> Iterator[Tuple[str, Any]]:
    environment, conditions, model = found["environment"], found["conditions"], found["model"]
    yield "model", model["file"] or model["description"]
    yield "sha256", model["sha256"]
    yield "engine", model["description"]
    yield "CPU", f"{environment['cpu']}, {environment['cores']} of {environment['cores_total']} cores"
    if environment["cpu_quota"] is not None:
        yield "CPU quota of the container", f"{environment['cpu_quota']:g} cores"
    yield "governor, clock", _clock_text(environment)
    memory = environment["memory_mb"]
    yield "memory", _joined(memory["total"], "MB, ", memory["available"], "MB free before")
    for gpu in conditions["gpus"] or environment["gpus"]:
        clock = _joined(gpu["clock_mhz"], "of", gpu["clock_max_mhz"], "MHz")
        yield "GPU", ", ".join(str(part) for part in (gpu["name"], f"driver {gpu['driver']}", clock) if part)
    yield from _jetson_rows(environment["jetson"], conditions["jetson"])
    yield "system", f"{environment['os'] or environment['system']}, kernel {environment['kernel']}"
    yield "container", environment["container"] or "none seen"
    for name in ("python", "numpy", *libraries(), "opencv", "rtda_deploy"):
        if environment.get(name) is not None:
            yield name.replace("_", "-"), environment[name]
    yield "load before, after (1 min)", f"{environment['load_1min']:.2f}, {conditions['load_1min']:.2f}"
    others = conditions["other_cores"]
    yield (
        "cores busy meanwhile",
        f"{conditions['own_cores']:.1f} by this process" + (f", {others:.1f} by others" if others is not None else ""),
    )
    yield "peak memory of this process", f"{conditions['memory_peak_mb']:.0f} MB"
    start, end = conditions["temperature_start_c"], conditions["temperature_end_c"]
    if end is not None:
        yield "hottest sensor", f"{start:.0f} to {end:.0f} °C" if start is not None else f"{end:.0f} °C"


def _jetson_rows(board: Optional[Dict[str, Any]], readings: Optional[Dict[str, Any]]) -> Iterator[Tuple[str, Any]]:
    if board is None:
        return
    yield "board", _joined(board["model"], "· L4T", board["l4t"])
    mode, clock = board["power_mode"], board["gpu_clock"]
    yield "power mode", f"{mode['name']} ({mode['number']})" if mode else None
    if clock:
        locked = "locked" if clock["least_mhz"] == clock["most_mhz"] else "not locked"
        yield "GPU clock", f"{clock['least_mhz']} to {clock['most_mhz']} MHz, {locked}"
    if readings and readings["power_w"] is not None:
        yield "power", f"{readings['power_w']:.1f} W mean, {readings['power_max_w']:.1f} W most"


def _clock_text(environment: Dict[str, Any]) -> str:
    clock = environment["cpu_mhz"]
    parts = [environment["governor"], f"{clock['least']} to {clock['most']} MHz, now {clock['now']}" if clock else None]
    return ", ".join(part for part in parts if part) or "not readable here"


def _joined(*parts: Any) -> Optional[str]:
    return None if any(part is None for part in parts) else " ".join(str(part) for part in parts)


def _moving_median(points: List[Tuple[float, float]]) -> List[Tuple[float, float]]:
    size = max(5, len(points) // _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points) - size + 1, size)]
    return [(statistics.mean(x for x, _ in group), statistics.median(y for _, y in group)) for group in groups]


def _embedded(found: Dict[str, Any]) -> Dict[str, Any]:
    count = len(found["samples"]["at_s"])
    step = -(-count // _EMBEDDED)
    return {**found, "samples": {name: values[::step] for name, values in found["samples"].items()}}
