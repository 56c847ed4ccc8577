"""What the mask at camera size costs: the exact shortcut against enlarging all logits and taking the largest.

    python benchmarks/upsample.py [--model model.onnx --frames DIR] [--rounds 25] [--json]

Ways, run in turns on the same logits so that whatever else the machine does falls on all of them:

- ``ours``: ``rtda_runtime.upsample_argmax``, compiled by numba;
- ``ours, NumPy``: the same where numba is not installed;
- ``cv2, per class``: ``cv2.resize`` of each class's plane, then NumPy's argmax: what most programs do;
- ``cv2, one call``: ``cv2.resize`` of the logits with the classes last, then argmax;
- ``torch``: ``interpolate`` and ``argmax``, where torch is installed.

Each runs on one thread. The ratio is that of a round's two times; its spread is the middle half of the rounds. Without
--model the logits are random blobs of 64x128x19, as smooth as those of a network; with it, those of the pictures in
DIR. Fails if ours is not ten times as fast as ``cv2, per class``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import cv2
import numpy as np
from rounds import in_turns, recorded, timed, times_as_fast
from speed_sections import report

from rtda_deploy.optional import available
from rtda_runtime import open_engine, upsample_argmax
from rtda_runtime.mask._upsample_numpy import fill_mask
from rtda_runtime.mask.preprocess import preprocess
from rtda_runtime.mask.upsample import grid_plan

GOAL = 10.0
SIZES = ((1024, 512), (1920, 1080))  # width, height of the mask
PEER = "cv2, per class"
Way = Callable[[np.ndarray, Tuple[int, int]], np.ndarray]


def ways() -> Dict[str, Way]:
    """Each takes float32 (C, h, w) and (H, W), and gives a mask (H, W)."""
    found: Dict[str, Way] = {"ours": lambda logits, size_hw: upsample_argmax(logits, size_hw, out=_mask(size_hw))}
    found["ours, NumPy"] = _by_numpy
    found[PEER] = _per_class
    found["cv2, one call"] = _one_call
    if available("torch"):
        found["torch"] = _by_torch
    return found


def measure(logits: Sequence[np.ndarray], rounds: int) -> List[Dict[str, Any]]:
    """One row per size and way: ``ms`` (median), ``ratio`` to the peer, its ``low``, ``high``, ``differs`` (share)."""
    rows = []
    for width, height in SIZES:
        size_hw = (height, width)
        known = ways()
        masks = {name: way(logits[0], size_hw).copy() for name, way in known.items()}  # first calls compile
        given = [(chosen, size_hw) for chosen in logits]
        times = in_turns(
            {name: timed(lambda both, way=way: way(*both), inputs=given) for name, way in known.items()}, rounds
        )
        for name, own in times.items():
            facts = {"size": f"{width}x{height}", "way": name, "differs": float((masks[name] != masks[PEER]).mean())}
            rows.append({**facts, **times_as_fast(own, times[PEER])})
    return rows


def smooth_logits(count: int = 4, shape: Tuple[int, int, int] = (19, 64, 128)) -> List[np.ndarray]:
    """float32 (C, h, w) each: blobs of about eight cells."""
    rng = np.random.default_rng(0)
    classes, height, width = shape
    made = []
    for _ in range(count):
        coarse = rng.standard_normal((height // 8, width // 8, classes)).astype(np.float32)
        large = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        made.append(np.ascontiguousarray(large.transpose(2, 0, 1)) * 3)
    return made


def real_logits(model: Path, frames: Path, count: int = 8) -> List[np.ndarray]:
    """The logits of a model on the first pictures of a folder."""
    with open_engine(model, "cpu") as engine:
        made = []
        for path in sorted(frames.iterdir())[:count]:
            picture = cv2.imread(str(path))
            if picture is not None:
                preprocess(picture, engine.spec, engine.input_buffer)
                made.append(engine.infer().copy())
    if not made:
        raise SystemExit(f"{frames} holds no pictures")
    return made


_masks: Dict[Tuple[int, int], np.ndarray] = {}


def _mask(size_hw: Tuple[int, int]) -> np.ndarray:
    return _masks.setdefault(size_hw, np.empty(size_hw, np.uint8))


def _by_numpy(logits: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    mask = np.empty(size_hw, np.uint8)
    fill_mask(logits, grid_plan((logits.shape[1], logits.shape[2]), size_hw, None), mask)
    return mask


def _per_class(logits: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    large = np.stack([cv2.resize(plane, size_hw[::-1], interpolation=cv2.INTER_LINEAR) for plane in logits])
    mask: np.ndarray = large.argmax(0).astype(np.uint8)
    return mask


def _one_call(logits: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    large = cv2.resize(logits.transpose(1, 2, 0), size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    mask: np.ndarray = large.argmax(2).astype(np.uint8)
    return mask


def _by_torch(logits: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        large = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size_hw, mode="bilinear")
        mask: np.ndarray = large.argmax(1)[0].to(torch.uint8).numpy()
    return mask


def main() -> int:
    """Measure, print, and fail if the goal was missed."""
    options = _options()
    cv2.setNumThreads(1)
    if available("torch"):
        import torch

        torch.set_num_threads(1)
    logits = real_logits(options.model, options.frames) if options.model else smooth_logits()
    with recorded() as found:
        rows = measure(logits, options.rounds)
    met = all(row["ratio"] >= GOAL for row in rows if row["way"] == "ours")
    found.update(rows=rows, goal=GOAL, met=met, logits=list(logits[0].shape), rounds=options.rounds)
    return report("upsample", found, as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx that gives logits (default: random smooth logits)")
    parser.add_argument("--frames", type=Path, help="folder of pictures for it")
    parser.add_argument("--rounds", type=int, default=25, help="of all ways (default: 25)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if bool(options.model) != bool(options.frames):
        parser.error("--model and --frames go together")
    return options


if __name__ == "__main__":
    sys.exit(main())
