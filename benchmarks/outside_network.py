"""What a frame costs besides the network: before it and behind it, for exported files of one network in turns.

    python benchmarks/outside_network.py MODEL... [--frames PATH] [--rounds 100] [--threads N] [--json]

Each file takes the same 1280x720 frames to masks of their size, a frame each a round; its network alone runs on an
input that is ready (``bare``). ``outside`` is the share of a frame that is not the network, ``over bare`` a frame's
time over that of the network alone, ``over the first`` its time over the first file's in the same round; each with the
middle half of the rounds. Goals: at most 12 % and 1.15 for an INT8 file. Frames are smooth random ones unless given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import cv2
import numpy as np
from peer_ways import Run, our_way
from rounds import in_turns, machine_text, middle, recorded, times_as_long
from tables import table, wide

from rtda_export.parity.frames import read_frames
from rtda_runtime import Segmenter, open_engine
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.engines import Engine
from rtda_runtime.mask.preprocess import Preprocessor

_SIZE_WH = (1280, 720)
_PAUSE_S = 0.03  # longer than the libraries' threads spin after their work


def main() -> int:
    """Measure and print."""
    options = _options()
    frames: Sequence[np.ndarray] = smooth_pictures(_SIZE_WH)
    if options.frames is not None:
        frames = [np.asarray(cv2.resize(frame, _SIZE_WH)) for _, frame in read_frames(options.frames, 16)]
    with recorded() as record:
        record.update(measure(options.models, frames, options.rounds, options.provider, options.threads))
    print(json.dumps(record) if options.json else _table(record))
    return 0


def measure(
    models: Sequence[Path], frames: Sequence[np.ndarray], rounds: int, provider: str, threads: int
) -> Dict[str, Any]:
    """Run the files in turns.

    Returns:
        JSON-ready: ``rounds``, and ``models``, of each ``file``, ``library``, ``ms`` of a frame, ``bare_ms``, and
        ``outside``, ``over_bare``, ``over_first`` with ``low`` and ``high``.
    """
    ways: Dict[str, Callable[[int], Any]] = {}
    descriptions = []
    with contextlib.ExitStack() as opened:
        for number, path in enumerate(models):
            segmenter = opened.enter_context(Segmenter.open(path, provider, threads=threads))
            engine = opened.enter_context(open_engine(path, segmenter.provider, threads=threads))
            ways[f"whole {number}"] = _whole(segmenter, frames)
            ways[f"bare {number}"] = _bare(engine, frames)
            descriptions.append(segmenter.description)
        answers = in_turns(ways, rounds, warm_up=5, pause_s=_PAUSE_S)
    first = [run.ms for run in answers["whole 0"]]
    rows: List[Dict[str, Any]] = []
    for number, (path, description) in enumerate(zip(models, descriptions)):
        runs, bare = answers[f"whole {number}"], answers[f"bare {number}"]
        times = [run.ms for run in runs]
        rows.append(
            {
                "file": path.name,
                "library": description,
                "outside": middle([1 - run.network_ms / run.ms for run in runs]),
                "over_bare": times_as_long(times, bare),
                "over_first": times_as_long(times, first),
                "bare_ms": float(np.median(bare)),
                "ms": float(np.median(times)),
            }
        )
    return {"models": rows, "rounds": rounds}


def _whole(segmenter: Segmenter, frames: Sequence[np.ndarray]) -> Callable[[int], Run]:
    whole = our_way("", segmenter, "").run
    return lambda number: whole(frames[number % len(frames)])


def _bare(engine: Engine, frames: Sequence[np.ndarray]) -> Callable[[int], float]:
    """Milliseconds of the network alone, on a frame that was prepared before."""
    prepare = Preprocessor(engine.spec)

    def run(number: int) -> float:
        prepare(frames[number % len(frames)], engine.input_buffer)
        start = time.perf_counter()
        engine.infer()
        return 1e3 * (time.perf_counter() - start)

    return run


def _table(record: Dict[str, Any]) -> str:
    columns = {"file": "{file}", "library": "{library}", ">a frame, ms": "{ms:ms}", ">bare, ms": "{bare_ms:ms}"}
    columns.update({">outside": "{outside[ratio]:%1}", ">over bare": "{over_bare:x3}"})
    columns[">over the first"] = "{over_first:x3}"
    return "\n".join([wide(table(columns, record["models"])), "", f"{record['rounds']} rounds", machine_text(record)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help=".onnx files; the first is the base")
    parser.add_argument("--frames", type=Path, help="a video or a folder of pictures (default: smooth random ones)")
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the library (all cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
