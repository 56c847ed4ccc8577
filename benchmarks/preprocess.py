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
import sys
from typing import Any, Callable, Dict, List, Tuple

import cv2
import numpy as np
from rounds import in_turns, recorded, timed, times_as_long
from speed_sections import report

from rtda_deploy.sizes import parse_size
from rtda_deploy.spec import ModelSpec
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.mask.preprocess import Preprocessor

GOAL = 2.5
FRAMES = ((1280, 720), (1920, 1080))  # width, height of the camera's frame
FLOOR = "cv2.resize"


def ways(spec: ModelSpec) -> Dict[str, Callable[[np.ndarray], np.ndarray]]:
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
    names = tuple(f"class {number}" for number in range(19))
    palette = tuple((number,) * 3 for number in range(19))
    spec = ModelSpec(size_hw=(size_wh[1], size_wh[0]), class_names=names, palette=palette)
    usual = cv2.getNumThreads()
    rows = []
    try:
        for threads in dict.fromkeys((usual, 1)):
            cv2.setNumThreads(threads)
            for frame_wh in FRAMES:
                frames = smooth_pictures(frame_wh)
                known = {name: timed(way, inputs=frames) for name, way in ways(spec).items()}
                times = in_turns(known, rounds, warm_up=3)
                facts = {"threads": threads, "frame": f"{frame_wh[0]}x{frame_wh[1]}"}
                rows += [{**facts, "way": name, **times_as_long(own, times[FLOOR])} for name, own in times.items()]
    finally:
        cv2.setNumThreads(usual)
    return rows


def main() -> int:
    """Measure, print, and fail if the goal was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1024x512", help="WIDTHxHEIGHT of the network's input (default: 1024x512)")
    parser.add_argument("--rounds", type=int, default=41, help="of all ways (default: 41)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    height, width = parse_size(options.size)
    with recorded() as found:
        rows = measure((width, height), options.rounds)
    met = all(row["ratio"] <= GOAL for row in rows if row["way"] == "ours")
    found.update(rows=rows, goal=GOAL, met=met, size=options.size, rounds=options.rounds)
    return report("preprocess", found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
