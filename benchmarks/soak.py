"""Whether a pipeline stays what it was: memory and latency over a long run at full rate.

    python benchmarks/soak.py --minutes 30 --json [--out runs/soak]     the claim of the README
    python benchmarks/soak.py --minutes 1                               the short form

A pipeline runs ``test://bars`` at 640x480 as fast as masks are made. Every second its frame rate, the median latency
(capture, preprocess, infer, postprocess of a frame), resident memory, processor time per frame (which tells a slower
program from a machine that others use too), threads and file handles are written down. The first and the last window (a
minute; of short runs a sixth) are compared: resident memory may grow by less than 1 %, the median latency may change by
at most 10 %. What comes before the first window (a tenth of the run, at most a minute) is warm-up. Writes ``soak.csv``,
``soak.json`` and, where matplotlib is installed, ``soak.svg`` into --out. Fails if a limit was missed. Without --model:
BiSeNet-R18 at 128x64 with random weights (needs torch, in a process of its own).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
from memory import resident_mb
from rounds import recorded
from small_network import write_network

from rtda_deploy.files import atomic_path, writable_folder, write_text
from rtda_deploy.optional import available
from rtda_runtime import Pipeline, Segmenter

GROWTH_LIMIT = 0.01
LATENCY_LIMIT = 0.10
COLUMNS = ("at_s", "frames", "latency_ms", "latency_p95_ms", "rss_mb", "cpu_ms", "threads", "handles")
_STAGES = ("capture", "preprocess", "infer", "postprocess")
_SOURCE = "test://bars?fps=0&size=640x480"


def main() -> int:
    """Run, write the files, print, and fail if a limit was missed."""
    options = _options()
    folder = writable_folder(options.out)
    with tempfile.TemporaryDirectory(prefix="rtda-soak-") as scratch:
        model = options.model or write_network(Path(scratch) / "bisenet-r18.onnx", (128, 64))
        with Segmenter.open(model, options.provider, threads=options.threads) as segmenter:
            with recorded() as machine:
                rows, dropped = run(segmenter, 60.0 * options.minutes, quiet=options.json)
            name = segmenter.description
    found = {**judge(rows), "dropped": dropped, "minutes": options.minutes, "source": _SOURCE, "model": name, **machine}
    write_text(folder / "soak.csv", _csv(rows))
    write_text(folder / "soak.json", json.dumps({**found, "rows": rows.tolist(), "columns": COLUMNS}) + "\n")
    if available("matplotlib"):
        _plot(rows, found, folder / "soak.svg")
    print(json.dumps({**found, "folder": str(folder)}) if options.json else _text(found, folder))
    return int(not found["met"])


def run(segmenter: Segmenter, seconds: float, *, quiet: bool) -> tuple[np.ndarray, int]:
    """Run the pipeline; gives a row of :data:`COLUMNS` per second, and the frames dropped.

    The table is allocated before the run, so that writing down does not show as growth.
    """
    table = np.full((int(seconds) + 60, len(COLUMNS)), 0.0)
    latencies = np.zeros(10_000)
    count, row = 0, 0
    with Pipeline.open(segmenter, _SOURCE) as pipeline:
        began = time.monotonic()
        second, spent = began, time.process_time()
        for result in pipeline:
            if count < len(latencies):
                latencies[count] = sum(result.timing[stage] for stage in _STAGES)
            count += 1
            now = time.monotonic()
            if now - second < 1.0:
                continue
            p50, p95 = np.percentile(latencies[:count], (50, 95))
            handles = len(os.listdir("/proc/self/fd"))
            cpu_s = time.process_time()
            table[row] = (
                now - began,
                count / (now - second),
                p50,
                p95,
                resident_mb(),
                1e3 * (cpu_s - spent) / count,
                threading.active_count(),
                handles,
            )
            if not quiet and row % 30 == 29:
                at_s, fps, _, _, rss_mb = table[row, :5]
                print(f"{at_s:6.0f} s  {fps:6.1f} fps  {p50:7.2f} ms  {rss_mb:7.1f} MB", file=sys.stderr)
            count, row, second, spent = 0, row + 1, now, cpu_s
            if now - began >= seconds or row == len(table):
                break
        dropped = int(pipeline.stats["dropped"])
    return table[:row], dropped


def judge(rows: np.ndarray) -> Dict[str, Any]:
    """Hold the last window against the first.

    Returns:
        JSON-ready: ``rss_first_mb``, ``rss_last_mb``, ``rss_growth``, ``latency_first_ms``, ``latency_last_ms``,
        ``latency_change``, ``cpu_first_ms`` and ``cpu_last_ms`` (processor time per frame), ``fps``, ``frames``,
        ``threads`` and ``handles`` (least and most), ``slope_mb_per_hour`` (of a line through all the memory after the
        warm-up), ``window_s``, ``limits``, ``met``.
    """
    at_s, whole_s = rows[:, 0], float(rows[-1, 0])
    warm_s, window_s = min(60.0, whole_s / 10), min(60.0, whole_s / 6)
    first = rows[(at_s > warm_s) & (at_s <= warm_s + window_s)]
    last = rows[at_s > whole_s - window_s]
    column = {name: index for index, name in enumerate(COLUMNS)}

    def median(part: np.ndarray, name: str) -> float:
        return float(np.median(part[:, column[name]]))

    memory = median(first, "rss_mb"), median(last, "rss_mb")
    latency = median(first, "latency_ms"), median(last, "latency_ms")
    after = rows[at_s > warm_s]
    slope = float(np.polyfit(after[:, 0] / 3600, after[:, column["rss_mb"]], 1)[0])
    cpu = median(first, "cpu_ms"), median(last, "cpu_ms")
    growth, change = memory[1] / memory[0] - 1.0, latency[1] / latency[0] - 1.0
    spans = {
        name: [int(after[:, column[name]].min()), int(after[:, column[name]].max())] for name in ("threads", "handles")
    }
    return {
        "rss_first_mb": memory[0],
        "rss_last_mb": memory[1],
        "rss_growth": growth,
        "slope_mb_per_hour": slope,
        "latency_first_ms": latency[0],
        "latency_last_ms": latency[1],
        "latency_change": change,
        "cpu_first_ms": cpu[0],
        "cpu_last_ms": cpu[1],
        "fps": statistics.mean(after[:, column["frames"]]),
        "frames": round(float(np.sum(rows[:, column["frames"]] * np.diff(at_s, prepend=0.0)))),
        **spans,
        "window_s": window_s,
        "limits": {"rss_growth": GROWTH_LIMIT, "latency_change": LATENCY_LIMIT},
        "met": growth < GROWTH_LIMIT and abs(change) <= LATENCY_LIMIT,
    }


def _csv(rows: np.ndarray) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[f"{value:.3f}" for value in row] for row in rows])
    return text.getvalue()


def _plot(rows: np.ndarray, found: Dict[str, Any], path: Path) -> None:
    """Memory above, latency below, both from zero, so that a change looks as large as it is."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasSVG(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    minutes = rows[:, 0] / 60
    above.plot(minutes, rows[:, 4], color="#0072b2", linewidth=1.6)
    above.set_ylabel("resident memory, MB")
    above.set_title(f"{100 * found['rss_growth']:+.2f} % from the first to the last window", loc="left", fontsize=10)
    below.fill_between(minutes, rows[:, 2], rows[:, 3], color="#56b4e9", alpha=0.4, linewidth=0, label="p50 to p95")
    below.plot(minutes, rows[:, 2], color="#0072b2", linewidth=1.2, label="median")
    below.set_ylabel("latency of each second, ms")
    below.set_xlabel("minutes")
    title = f"{100 * found['latency_change']:+.1f} % · {found['fps']:.0f} frames/s, {found['frames']} frames"
    below.set_title(title, loc="left", fontsize=10)
    below.legend(frameon=False, fontsize=9)
    for axes, top in ((above, 1.25 * float(np.max(rows[:, 4]))), (below, None)):
        axes.set_ylim(0, top)
        axes.grid(True, color="#d0d7de", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg")


def _text(found: Dict[str, Any], folder: Path) -> str:
    lines: List[str] = [
        f"memory   {found['rss_first_mb']:.1f} -> {found['rss_last_mb']:.1f} MB, {100 * found['rss_growth']:+.2f} %"
        f" (limit {100 * GROWTH_LIMIT:g} %), slope {found['slope_mb_per_hour']:+.2f} MB an hour",
        f"latency  {found['latency_first_ms']:.2f} -> {found['latency_last_ms']:.2f} ms median,"
        f" {100 * found['latency_change']:+.1f} % (limit {100 * LATENCY_LIMIT:g} %)",
        f"cpu      {found['cpu_first_ms']:.2f} -> {found['cpu_last_ms']:.2f} ms of processor time per frame",
        f"threads  {found['threads'][0]} to {found['threads'][1]}, file handles {found['handles'][0]} to"
        f" {found['handles'][1]}",
        f"{'met' if found['met'] else 'MISSED'}: {found['frames']} frames, {found['fps']:.1f} a second, windows of"
        f" {found['window_s']:.0f} s · {found['model']} · {found['environment']['cpu']}, others took"
        f" {found['conditions']['other_cores']} cores meanwhile",
        f"wrote    {', '.join(str(path) for path in sorted(folder.glob('soak.*')))}",
    ]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--model", type=Path, help="an .onnx or .engine (default: BiSeNet-R18 at 128x64)")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of the network (default: one per core)")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="folder of the results")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
