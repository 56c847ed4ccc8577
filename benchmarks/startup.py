"""How long the command line and the robot's import take to start, each against the least that could be.

    python benchmarks/startup.py [--runs 15] [--json]

``rtda-deploy --help`` is measured against the help of an empty typer application (goal 1.3 times), ``import
rtda_runtime`` against ``import numpy`` (goal 1.2 times). A third row, without a goal, imports the names a robot really
uses. Both of a pair run in turns, so that whatever else the machine does falls on both; the ratio is the median of the
pairs' ratios, with the middle half of them as its spread. One run of each, not counted, warms the disk's cache. How
long a new process takes to its first mask: ``python benchmarks/first_mask.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from rounds import in_turns, middle
from tables import table, wide

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
_TIMEOUT_S = 60.0


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
    ways = {"ours": lambda number: _seconds(pair.ours), "theirs": lambda number: _seconds(pair.theirs)}
    times = in_turns(ways, runs)
    ratio = middle([a / b for a, b in zip(times["ours"], times["theirs"])])
    return {
        "name": pair.name,
        **{f"{name}_ms": round(1e3 * statistics.median(own), 1) for name, own in times.items()},
        **{name: round(value, 3) for name, value in ratio.items()},
        "goal": pair.goal,
    }


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, timeout=_TIMEOUT_S)
    return time.perf_counter() - start


def _table(rows: Sequence[Dict[str, Any]]) -> str:
    columns = {"": "{name}", ">ours, ms": "{ours_ms}", ">theirs, ms": "{theirs_ms}", ">ratio": "{row:x2}"}
    return wide(table({**columns, ">goal": "{goal:g}"}, rows))


def _machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
