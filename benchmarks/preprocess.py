"""What the network's input costs to make of a camera frame, against ``cv2.resize`` alone, which all have to pay.

    python benchmarks/preprocess.py [--size 1024x512] [--rounds 41] [--json]

Ways, run in turns on the same smooth frames so that whatever else the machine does falls on all of them:

- ``cv2.resize``: uint8 to uint8, into an array that is kept;
- ``ours``: ``rtda_runtime.mask.preprocess.Preprocessor``: resize, planes, table, into the engine's input;
- ``blobFromImage``: ``cv2.dnn.blobFromImage`` with the mean and one scale for all colours (it knows no std for each),
  copied into the engine's input;
- ``NumPy``: ``cv2.resize``, then colours turned round, scale, mean, std and transpose in float32, as most programs do.

All of it once with OpenCV's own number of threads and once with one. A ratio is that of a round's two times; its spread
is the middle half of the rounds. Fails if ours takes more than 2.5 times as long as ``cv2.resize``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

import cv2
import numpy as np

from rtda_deploy.spec import ModelSpec
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.engines.kinds import libraries
from rtda_runtime.machine.conditions import ConditionsMonitor
from rtda_runtime.machine.environment import environment
from rtda_runtime.mask.preprocess import Preprocessor

GOAL = 2.5
FRAMES = ((1280, 720), (1920, 1080))  # width, height of the camera's frame
FLOOR = "cv2.resize"
_WARM_UP = 3  # calls of each way before it counts
Way = Callable[[np.ndarray], np.ndarray]


def ways(spec: ModelSpec) -> Dict[str, Way]:
    """Each takes uint8 (H, W, 3) and gives float32 (1, 3, h, w); ``FLOOR`` only resizes."""
    height, width = spec.size_hw
    small = np.empty((height, width, 3), np.uint8)
    prepare = Preprocessor(spec)
    inputs = [np.empty((1, 3, height, width), np.float32) for _ in range(3)]  # one an engine would own
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    grey = tuple(float(value) / spec.pixel_scale for value in spec.mean)

    def resize(frame: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.resize(frame, (width, height), dst=small))

    def ours(frame: np.ndarray) -> np.ndarray:
        prepare(frame, inputs[0])
        return inputs[0]

    def blob(frame: np.ndarray) -> np.ndarray:
        scale = spec.pixel_scale / float(std.mean())
        inputs[1][...] = cv2.dnn.blobFromImage(frame, scale, (width, height), grey, swapRB=True)
        return inputs[1]

    def by_numpy(frame: np.ndarray) -> np.ndarray:
        rgb = cv2.resize(frame, (width, height))[..., ::-1].astype(np.float32)
        inputs[2][0] = ((rgb * np.float32(spec.pixel_scale) - mean) / std).transpose(2, 0, 1)
        return inputs[2]

    return {FLOOR: resize, "ours": ours, "blobFromImage": blob, "NumPy": by_numpy}


def measure(size_wh: Tuple[int, int], rounds: int) -> List[Dict[str, Any]]:
    """One row per number of threads, frame and way: ``ms`` (median), ``ratio`` to ``FLOOR``, its ``low``, ``high``."""
    spec = imagenet_spec(size_wh)
    usual = cv2.getNumThreads()
    rows = []
    try:
        for threads in dict.fromkeys((usual, 1)):
            cv2.setNumThreads(threads)
            for frame_wh in FRAMES:
                rows += _rows(ways(spec), frame_wh, rounds, threads)
    finally:
        cv2.setNumThreads(usual)
    return rows


def imagenet_spec(size_wh: Tuple[int, int]) -> ModelSpec:
    """Cityscapes' number of classes and ImageNet's mean and std, as the networks of this package have them."""
    names = tuple(f"class {number}" for number in range(19))
    return ModelSpec(
        size_hw=(size_wh[1], size_wh[0]), class_names=names, palette=tuple((number,) * 3 for number in range(19))
    )


def _rows(known: Dict[str, Way], frame_wh: Tuple[int, int], rounds: int, threads: int) -> List[Dict[str, Any]]:
    frames = smooth_pictures(frame_wh)
    for _ in range(_WARM_UP):
        for way in known.values():
            way(frames[0])
    times: Dict[str, List[float]] = {name: [] for name in known}
    for number in range(rounds):
        for name in list(known) if number % 2 == 0 else list(reversed(list(known))):
            start = time.perf_counter_ns()
            known[name](frames[number % len(frames)])
            times[name].append((time.perf_counter_ns() - start) / 1e6)
    rows = []
    for name, values in times.items():
        ratios = sorted(own / floor for floor, own in zip(times[FLOOR], values))
        rows.append(
            {
                "threads": threads,
                "frame": f"{frame_wh[0]}x{frame_wh[1]}",
                "way": name,
                "ms": statistics.median(values),
                "ratio": statistics.median(ratios),
                "low": ratios[len(ratios) // 4],
                "high": ratios[-1 - len(ratios) // 4],
            }
        )
    return rows


def main() -> int:
    """Measure, print, and fail if the goal was missed."""
    options = _options()
    width, height = (int(side) for side in options.size.split("x"))
    machine = environment(libraries=libraries()).to_dict()
    with ConditionsMonitor() as monitor:
        rows = measure((width, height), options.rounds)
    met = all(row["ratio"] <= GOAL for row in rows if row["way"] == "ours")
    found = {"rows": rows, "goal": GOAL, "met": met, "size": options.size, "rounds": options.rounds}
    found = {**found, "environment": machine, "conditions": monitor.conditions.to_dict()}
    print(json.dumps(found) if options.json else _table(found))
    return int(not met)


def _table(found: Dict[str, Any]) -> str:
    head = f"{'threads':<9}{'frame':<11}{'way':<16}{'median':>10}{'times cv2.resize':>18}{'middle half':>18}"
    lines = [head]
    for row in found["rows"]:
        spread = f"{row['low']:.2f} .. {row['high']:.2f}"
        times = f"{row['ms']:>7.2f} ms{row['ratio']:>18.2f}{spread:>18}"
        lines.append(f"{row['threads']:<9}{row['frame']:<11}{row['way']:<16}{times}")
    machine, others = found["environment"], found["conditions"]["other_cores"]
    lines.append(
        f"{'met' if found['met'] else 'MISSED'}: goal at most {found['goal']:g} times cv2.resize · to {found['size']},"
        f" {found['rounds']} interleaved rounds · {machine['cpu']}, others took {others} cores meanwhile"
    )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1024x512", help="WIDTHxHEIGHT of the network's input (default: 1024x512)")
    parser.add_argument("--rounds", type=int, default=41, help="of all ways (default: 41)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
