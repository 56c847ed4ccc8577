"""What the loop around a network costs: end to end, minus preprocess, infer and postprocess.

    python benchmarks/loop_overhead.py [--model model.onnx] [--frames 150] [--rounds 9] [--json]

Two loops over the same pictures, already in memory, run in turns so that whatever else the machine does falls on both:
``segmenter`` calls ``Segmenter.segment``; ``pipeline`` iterates a ``Pipeline`` with its threads, from a source that
costs nothing. Overhead is the time per frame that is none of the three stages, as a share of that time (goal: at most
5 %); its spread is the middle half of the rounds. ``handover`` is the age of a frame minus its stages where frames come
at half the highest rate, so that none waits for another: what the threads cost in latency. Without --model: BiSeNet-R18
at 256x128 with random weights (needs torch). Allocations are measured by ``benchmarks/memory.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np
from rounds import in_turns, machine_text, middle, recorded
from small_network import write_network
from tables import table, wide

from rtda_runtime import Pipeline, Segmenter
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.sources import Frame, Source

GOAL = 0.05
_STAGES = ("preprocess", "infer", "postprocess")
_WARM_UP = 10  # frames


class Prepared(Source):
    """Pictures in memory, in turn; ``period_s``: one becomes due so often, as from a camera."""

    def __init__(self, pictures: Sequence[np.ndarray], count: int, period_s: float = 0.0) -> None:
        self.name = "memory"
        self.live = period_s > 0
        self.size_wh = (pictures[0].shape[1], pictures[0].shape[0])
        self.num_frames = count
        self._pictures = pictures
        self._count = count
        self._period_s = period_s
        self._next = 0

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self._next >= self._count:
            return None
        if self._period_s:
            time.sleep(self._period_s)
        picture = self._pictures[self._next % len(self._pictures)]
        frame = Frame(image=picture, captured_ns=time.perf_counter_ns(), sequence=self._next)
        self._next += 1
        return frame

    def close(self) -> None:
        """Nothing to let go."""


def main() -> int:
    """Measure, print, and fail if the goal was missed."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="rtda-overhead-") as folder:
        model = options.model or write_network(Path(folder) / "bisenet-r18.onnx", (256, 128))
        with Segmenter.open(model, options.provider, threads=options.threads) as segmenter:
            with recorded() as machine:
                found = measure(segmenter, smooth_pictures((1280, 720)), options.frames, options.rounds)
            found.update(model=segmenter.description, **machine)
    print(json.dumps(found) if options.json else _table(found))
    return int(not found["met"])


def measure(segmenter: Segmenter, pictures: Sequence[np.ndarray], frames: int, rounds: int) -> Dict[str, Any]:
    """Run the loops in turns.

    Returns:
        JSON-ready: ``loops`` (per loop ``frame_ms``, ``work_ms``, ``overhead`` and its middle half ``low``, ``high``),
        ``handover_ms`` (p50, p95), ``goal``, ``met``, ``frames``, ``rounds``.
    """
    loops: Dict[str, Callable[[int], Tuple[float, float]]] = {
        "segmenter": lambda number: _segmenter_loop(segmenter, pictures, frames),
        "pipeline": lambda number: _pipeline_loop(segmenter, pictures, frames),
    }
    found = {name: _summary(values) for name, values in in_turns(loops, rounds).items()}
    handover = _handover(segmenter, pictures, frames, 2.0 * found["pipeline"]["frame_ms"] / 1e3)
    return {
        "loops": found,
        "handover_ms": handover,
        "goal": GOAL,
        "met": found["pipeline"]["overhead"] <= GOAL,
        "frames": frames,
        "rounds": rounds,
    }


def _segmenter_loop(segmenter: Segmenter, pictures: Sequence[np.ndarray], frames: int) -> Tuple[float, float]:
    """Milliseconds per frame, and of them in the three stages."""
    mask = np.empty(pictures[0].shape[:2], np.uint8)
    work = 0.0
    start = time.perf_counter_ns()
    for number in range(frames):
        timing = segmenter.segment(pictures[number % len(pictures)], out=mask).timing
        work += sum(timing[stage] for stage in _STAGES)
    return (time.perf_counter_ns() - start) / 1e6 / frames, work / frames


def _pipeline_loop(segmenter: Segmenter, pictures: Sequence[np.ndarray], frames: int) -> Tuple[float, float]:
    with Pipeline.open(segmenter, Prepared(pictures, frames + _WARM_UP)) as pipeline:
        work, start = 0.0, 0
        for number, result in enumerate(pipeline, start=1):
            if number > _WARM_UP:
                work += sum(result.timing[stage] for stage in _STAGES)
            elif number == _WARM_UP:
                start = time.perf_counter_ns()
        return (time.perf_counter_ns() - start) / 1e6 / frames, work / frames


def _handover(segmenter: Segmenter, pictures: Sequence[np.ndarray], frames: int, period_s: float) -> Dict[str, float]:
    waits = []
    with Pipeline.open(segmenter, Prepared(pictures, frames + _WARM_UP, period_s)) as pipeline:
        for number, result in enumerate(pipeline):
            if number >= _WARM_UP:
                waits.append(result.timing["age"] - sum(result.timing[stage] for stage in _STAGES))
    p50, p95 = np.percentile(waits, (50, 95))
    return {"p50": float(p50), "p95": float(p95)}


def _summary(times: Sequence[Tuple[float, float]]) -> Dict[str, float]:
    return {
        "frame_ms": statistics.median(whole for whole, _ in times),
        "work_ms": statistics.median(work for _, work in times),
        **middle([(whole - work) / whole for whole, work in times], "overhead"),
    }


def _table(found: Dict[str, Any]) -> str:
    columns = {"loop": "{name}", ">per frame, ms": "{frame_ms:ms}", ">its stages, ms": "{work_ms:ms}"}
    columns.update({">overhead": "{overhead:%2}", ">middle half": "{low:%2} to {high:%2}"})
    lines = [wide(table(columns, [{"name": name, **row} for name, row in found["loops"].items()])), ""]
    waits = found["handover_ms"]
    lines += [
        f"handover between threads at half the rate: p50 {waits['p50']:.2f}, p95 {waits['p95']:.2f} ms",
        f"{'met' if found['met'] else 'MISSED'}: goal {100 * found['goal']:g} % for the pipeline ·"
        f" {found['rounds']} interleaved rounds of {found['frames']} frames of 1280x720",
        f"{found['model']} · {machine_text(found)}",
    ]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx or .engine (default: BiSeNet-R18 at 256x128)")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of the network (default: one per core)")
    parser.add_argument("--frames", type=int, default=150, help="per loop and round (default: 150)")
    parser.add_argument("--rounds", type=int, default=9, help="of all loops (default: 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
