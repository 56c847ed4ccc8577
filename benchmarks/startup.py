"""How long the command line and the robot's import take to start, each against the least that could be.

    python benchmarks/startup.py [--runs 15] [--json]

``rtda-deploy --help`` is measured against the help of an empty typer application (goal 1.3 times), ``import
rtda_runtime`` against ``import numpy`` (goal 1.2 times). A third row, without a goal, imports the names a robot really
uses. Both of a pair run in turns, so that whatever else the machine does falls on both; the ratio is the median of the
pairs' ratios, with the middle half of them as its spread. One run of each, not counted, warms the disk's cache. How
long a new process takes to its first mask: ``python benchmarks/growth.py --part start``, with :func:`first_mask`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from memory import status_mb

from rtda_deploy.errors import RtdaError

_EMPTY_APP = """
import typer

app = typer.Typer()


@app.callback()
def _options() -> None:
    "Nothing but a help text."


@app.command()
def nothing() -> None:
    "Do nothing."


app(prog_name="empty")
"""
# The frame is made while no phase is timed; Linux has one monotonic clock for all processes.
_FIRST_MASK = """
import time
began = time.perf_counter_ns()
import json
import sys
import numpy as np
from rtda_runtime import Segmenter
imported = time.perf_counter_ns()

model, provider, width, height, masks, threads = sys.argv[1:]
rows, columns = np.arange(int(height)), np.arange(int(width))
frame = np.stack([np.add.outer(rows * step, columns) % 256 for step in (1, 2, 3)], axis=2).astype(np.uint8)
ready = time.perf_counter_ns()
segmenter = Segmenter.open(model, provider, threads=int(threads) or None)
opened = time.perf_counter_ns()
count = segmenter.segment(frame).sequence + 1
first = time.perf_counter_ns()


def status():
    with open("/proc/self/status") as file:
        return file.read()


after_one = status()
for _ in range(int(masks) - 1):
    count = segmenter.segment(frame).sequence + 1
stamps = [began, imported, ready, opened, first]
print(json.dumps({"stamps": stamps, "one": after_one, "all": status(), "masks": count}))
"""
_TIMEOUT_S = 60.0
_MASKS_TIMEOUT_S = 600.0


class Pair(NamedTuple):
    """Two command lines, and how many times slower the first may be; None: no goal."""

    name: str
    ours: Sequence[str]
    theirs: Sequence[str]
    goal: Optional[float]


def main() -> int:
    """Measure, print the table, and fail if a goal was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="pairs of runs (default: 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtda-startup-") as folder:
        rows = [_measure(pair, max(1, options.runs)) for pair in _pairs(Path(folder))]
    if options.json:
        print(json.dumps({"runs": options.runs, "machine": _machine(), "rows": rows}))
    else:
        print(_table(rows))
        print(f"median of {options.runs} interleaved pairs, each in a new process · {_machine()}")
    return int(any(row["goal"] is not None and row["ratio"] > row["goal"] for row in rows))


def first_mask(
    model: Path, provider: str, frame_wh: Tuple[int, int], *, cache: Path, masks: int = 1, threads: Optional[int] = None
) -> Dict[str, float]:
    """Start a new process, open a model in it and segment ``masks`` frames.

    Args:
        model: What ``Segmenter.open`` takes.
        provider: As for it.
        frame_wh: Width and height of the frames.
        cache: Folder of all that is kept for the next start (compiled code, what ``auto`` measured); an empty one makes
            a first start.
        masks: At least 1.
        threads: CPU threads of the network; None: one per core.

    Returns:
        ``python_ms`` (start of the process to the first line of its program), ``import_ms`` (of NumPy and the names
        it uses), ``open_ms``, ``mask_ms`` (the first), ``total_ms``; ``masks``, how many were made; ``peak_1_mb`` and
        ``peak_mb``, the most memory it had resident after the first mask and after all, and ``resident_mb``, what it
        had in the end.

    Raises:
        RtdaError: If the process failed, with its last words.
    """
    facts = [str(model), provider, *(str(side) for side in frame_wh), str(masks), str(threads or 0)]
    kept = {name: str(cache) for name in ("NUMBA_CACHE_DIR", "RTDA_CACHE", "XDG_CACHE_HOME")}
    start = time.perf_counter_ns()
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_MASK, *facts],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MASKS_TIMEOUT_S,
        env={**os.environ, **kept},
    )  # fmt: skip
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise RtdaError(f"a new process made no mask with {model}", why=words)
    said = json.loads(done.stdout)
    began, imported, ready, opened, first = said["stamps"]
    phases = {
        "python_ms": (began - start) / 1e6,
        "import_ms": (imported - began) / 1e6,
        "open_ms": (opened - ready) / 1e6,
        "mask_ms": (first - opened) / 1e6,
    }
    memory = {
        "peak_1_mb": status_mb(said["one"], "VmHWM"),
        "peak_mb": status_mb(said["all"], "VmHWM"),
        "resident_mb": status_mb(said["all"], "VmRSS"),
    }
    return {**phases, "total_ms": sum(phases.values()), "masks": said["masks"], **memory}


def _pairs(folder: Path) -> List[Pair]:
    empty = folder / "empty.py"
    empty.write_text(_EMPTY_APP, encoding="utf-8")
    python = sys.executable
    script = Path(python).with_name("rtda-deploy")  # what pip installed beside this Python: what a user starts
    command = [str(script)] if script.exists() else [python, "-m", "rtda_deploy"]
    numpy = [python, "-c", "import numpy"]
    used = "from rtda_runtime import Pipeline, Segmenter, open_source, upsample_argmax"
    return [
        Pair("rtda-deploy --help / empty typer --help", [*command, "--help"], [python, str(empty), "--help"], 1.3),
        Pair("import rtda_runtime / import numpy", [python, "-c", "import rtda_runtime"], numpy, 1.2),
        Pair("its main names / import numpy", [python, "-c", used], numpy, None),
    ]


def _measure(pair: Pair, runs: int) -> Dict[str, Any]:
    _seconds(pair.ours), _seconds(pair.theirs)
    ours: List[float] = []
    theirs: List[float] = []
    for number in range(runs):
        first, second = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        for times in (first, second):  # who goes first changes too
            times.append(_seconds(pair.ours if times is ours else pair.theirs))
    ratios = sorted(a / b for a, b in zip(ours, theirs))
    return {
        "name": pair.name,
        "ours_ms": round(1e3 * statistics.median(ours), 1),
        "theirs_ms": round(1e3 * statistics.median(theirs), 1),
        "ratio": round(statistics.median(ratios), 3),
        "low": round(ratios[len(ratios) // 4], 3),
        "high": round(ratios[-1 - len(ratios) // 4], 3),
        "goal": pair.goal,
    }


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, timeout=_TIMEOUT_S)
    return time.perf_counter() - start


def _table(rows: Sequence[Dict[str, Any]]) -> str:
    lines = [f"{'':<42}{'ours':>9}{'theirs':>9}{'ratio':>8}{'middle half':>15}{'goal':>8}"]
    for row in rows:
        goal = "-" if row["goal"] is None else f"{row['goal']}x"
        spread = f"{row['low']:.2f}..{row['high']:.2f}"
        lines.append(
            f"{row['name']:<42}{row['ours_ms']:>6} ms{row['theirs_ms']:>6} ms{row['ratio']:>7.2f}x{spread:>15}{goal:>8}"
        )
    return "\n".join(lines)


def _machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
