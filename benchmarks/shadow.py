"""What a shadow and a collector cost the deployed network, beside neither and beside a network to compare with.

    python benchmarks/shadow.py [--model model.onnx] [--busy 0.5] [--frames 150] [--rounds 9] [--json]

The same pictures, already in memory, come at a rate that keeps the network at work for a share of the time
(``--busy``); four pipelines take them in turns, so that whatever else the machine does falls on each: ``alone``,
``shadow`` (the same model as ``shadow=``), ``collect`` (a ``Collector`` of a frame a second, with its second engine)
and ``compare`` (as ``compare=``). ``age`` is from capture to mask, ``dropped`` of what was captured, ``looked at`` the
frames that the second network, or the collector, saw. ``over alone`` is the age over that of ``alone`` in the same
round, with the middle half of the rounds. Without --model: BiSeNet-R18 at 256x128 with random weights (needs torch).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import numpy as np
from loop_overhead import Prepared
from rounds import in_turns, machine_text, recorded, times_as_long
from small_network import write_network
from tables import table, wide

from rtda_runtime import CollectOptions, Collector, Pipeline, Segmenter
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.pipeline.shadow import open_shadow
from rtda_runtime.pool import AnySegmenter

_WARM_UP = 25  # frames: the collector's engine is opened meanwhile


def main() -> int:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="rtda-shadow-") as folder:
        model = options.model or write_network(Path(folder) / "bisenet-r18.onnx", (256, 128))
        how: Dict[str, Any] = {"provider": options.provider, "threads": options.threads}
        with Segmenter.open(model, **how) as deployed, Segmenter.open(model, **how) as other:
            with open_shadow(model, options.provider) as shadow, recorded() as machine:
                pictures = smooth_pictures((1280, 720))
                found = measure(deployed, other, shadow, pictures, options.frames, options.rounds, options.busy)
            found.update(model=deployed.description, **machine)
    print(json.dumps(found) if options.json else _table(found))
    return 0


def measure(
    deployed: Segmenter,
    other: Segmenter,
    shadow: AnySegmenter,
    pictures: Sequence[np.ndarray],
    frames: int,
    rounds: int,
    busy: float,
) -> Dict[str, Any]:
    """Run the four in turns.

    Returns:
        JSON-ready: ``ways`` (per way ``p50`` and ``p95`` of the age with ``ms``, ``ratio``, ``low``, ``high``;
        ``dropped`` and ``looked_at``, shares), ``period_ms`` between two frames, ``frames``, ``rounds``, ``busy``.
    """
    period_s = _frame_s(deployed, pictures) / busy
    with tempfile.TemporaryDirectory(prefix="rtda-shadow-") as folder:

        def collector() -> Collector:
            path = deployed.path
            engine = None if path is None else lambda: Segmenter.open(path, "cpu", threads=1, confidence=True)
            return Collector(folder, deployed.spec, CollectOptions(per_minute=60), engine=engine)

        seconds: Dict[str, Callable[[], Dict[str, Any]]] = {
            "alone": dict,
            "shadow": lambda: {"shadow": shadow},
            "collect": lambda: {"sinks": [collector()]},
            "compare": lambda: {"compare": other},
        }
        answers = in_turns(
            {
                name: lambda number, second=second: _drive(deployed, pictures, frames, period_s, second())
                for name, second in seconds.items()
            },
            rounds,
        )
    ways = {name: _summary(rows, answers["alone"]) for name, rows in answers.items()}
    return {"ways": ways, "period_ms": 1e3 * period_s, "frames": frames, "rounds": rounds, "busy": busy}


def _frame_s(segmenter: Segmenter, pictures: Sequence[np.ndarray]) -> float:
    times = []
    for number in range(3 * _WARM_UP):
        start = time.perf_counter()
        segmenter.segment(pictures[number % len(pictures)])
        times.append(time.perf_counter() - start)
    return statistics.median(times[_WARM_UP:])


def _drive(
    segmenter: Segmenter,
    pictures: Sequence[np.ndarray],
    frames: int,
    period_s: float,
    second: Dict[str, Any],
) -> Dict[str, float]:
    ages: List[float] = []
    with Pipeline(segmenter, Prepared(pictures, frames + _WARM_UP, period_s), each_result=True, **second) as pipeline:
        for number, result in enumerate(pipeline):
            if number >= _WARM_UP:
                ages.append(result.timing["age"])
        pipeline.join()
        stats = pipeline.stats
    p50, p95 = np.percentile(ages, (50, 95))
    looked_at = {
        "shadow": stats.get("shadow", {}).get("compared", 0),
        "sinks": sum(sink["written"] for sink in stats["sinks"].values()),
        "compare": stats["frames"],
    }
    return {
        "p50": float(p50),
        "p95": float(p95),
        "dropped": stats["dropped"] / stats["captured"],
        "looked_at": sum(looked_at[name] for name in second) / stats["captured"],
    }


def _summary(rows: Sequence[Dict[str, float]], alone: Sequence[Dict[str, float]]) -> Dict[str, Any]:
    ages = {key: times_as_long([row[key] for row in rows], [row[key] for row in alone]) for key in ("p50", "p95")}
    return {**ages, **{key: statistics.median(row[key] for row in rows) for key in ("dropped", "looked_at")}}


def _table(found: Dict[str, Any]) -> str:
    columns = {"second network": "{name}", ">age p50, ms": "{p50[ms]:ms}", ">over alone": "{p50:x2}"}
    columns.update({">age p95, ms": "{p95[ms]:ms}", ">over alone ": "{p95:x2}"})
    columns.update({">dropped": "{dropped:%1}", ">looked at": "{looked_at:%0}"})
    lines = [wide(table(columns, [{"name": name, **row} for name, row in found["ways"].items()])), ""]
    lines += [
        f"a frame of 1280x720 every {found['period_ms']:.1f} ms, the network at work {100 * found['busy']:.0f} % of the"
        f" time · {found['rounds']} interleaved rounds of {found['frames']} frames",
        f"{found['model']} · {machine_text(found)}",
    ]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx or .engine (default: BiSeNet-R18 at 256x128)")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of the deployed network (default: one per core)")
    parser.add_argument("--busy", type=float, default=0.5, help="share of the time the network works (default: 0.5)")
    parser.add_argument("--frames", type=int, default=150, help="per way and round (default: 150)")
    parser.add_argument("--rounds", type=int, default=9, help="of all ways (default: 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
