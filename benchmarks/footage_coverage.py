"""How well few frames stand for all: ways to choose them, judged by the features of a network that chose none of them.

    RTDA_DATA=DIR python benchmarks/footage_coverage.py

``DIR`` has ``camvid/`` (four drives), ``sim/airsim/`` (a flight) and ``weights/`` (an ImageNet ResNet-18 up to layer
3); a town of 24 streets, some driven five times as long as others, is made by ToyTown. One frame in fifty is spoiled: a
flare, something before half of the lens, a wiper, a fault of the decoder, a failing exposure. Told is how far the
frames are from the nearest that was chosen (mean, and what 95 % of them are within; 0 to 2), and how many of those
chosen are spoiled.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from tables import table, wide

from rtda_training.data.footage.diversity import describe, most_diverse
from rtda_training.data.footage.measures import measure
from rtda_training.data.toytown import render_clip

_COUNTS = (10, 25, 50, 100)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZE_WH = (256, 144)


def main() -> int:
    """Print a table for each set of frames."""
    folder = os.environ.get("RTDA_DATA")
    if not folder:
        print("set RTDA_DATA to a folder with camvid/, sim/ and weights/", file=sys.stderr)
        return 2
    network = _network(Path(folder) / "weights" / "resnet18_layers1-3_torchvision_names.npz")
    columns = {"way": "{way}", **{f">{count} frames": f"{{{_key(count)}}}" for count in _COUNTS}}
    for name, frames, drives in _sets(Path(folder)):
        spoiled = np.zeros(len(frames), bool)
        spoiled[np.random.default_rng(1).choice(len(frames), len(frames) // 50, replace=False)] = True
        for place in np.flatnonzero(spoiled):
            frames[place] = _spoil(frames[place], int(place))
        own = np.stack([describe(measure(frame)[1]) for frame in frames])
        judge = np.stack([network(frame) for frame in frames])
        rows = [
            {"way": way, **{_key(count): _verdict(judge, spoiled, choose(own, drives, count)) for count in _COUNTS}}
            for way, choose in _WAYS.items()
        ]
        print(f"{name}, {len(frames)} frames, {spoiled.sum()} spoiled: mean distance (95 %), spoiled ones chosen\n")
        print(wide(table(columns, rows)), flush=True)
    return 0


def _key(count: int) -> str:
    return f"n{count}"


def _verdict(judge: np.ndarray, spoiled: np.ndarray, chosen: List[int]) -> str:
    good = [place for place in chosen if not spoiled[place]]
    nearest = np.sqrt(_squared(judge[~spoiled], judge[good])).min(axis=1)
    return f"{nearest.mean():.3f} ({np.quantile(nearest, 0.95):.2f}), {len(chosen) - len(good)}"


def _squared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    found = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.asarray(found.clip(0.0, None))


def _farthest(own: np.ndarray, drives: np.ndarray, count: int) -> List[int]:
    chosen = [0]
    nearest = _squared(own, own[:1])[:, 0]
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _squared(own, own[chosen[-1:]])[:, 0])
    return chosen


_WAYS: Dict[str, Callable[[np.ndarray, np.ndarray, int], List[int]]] = {
    "every so many frames": lambda own, drives, count: np.linspace(0, len(own) - 1, count).round().astype(int).tolist(),
    "at random": lambda own, drives, count: (
        np.random.default_rng(count).choice(len(own), count, replace=False).tolist()
    ),
    "farthest points": _farthest,
    "ours": lambda own, drives, count: most_diverse(own, count, drives),
}


def _sets(folder: Path) -> Iterator[Tuple[str, List[np.ndarray], np.ndarray]]:
    names = ("train/0006R0", "train/0016E5", "train/0001TP", "test/Seq05VD")
    paths = [sorted((folder / "camvid").glob(f"{name}_*")) for name in names]
    drives = np.repeat(np.arange(len(names)), [len(own) for own in paths])
    yield "CamVid", [_read(path) for own in paths for path in own], drives
    flight = [_read(path) for path in sorted((folder / "sim" / "airsim" / "images").glob("front*.jpg"))]
    yield "AirSim", flight, np.zeros(len(flight))
    lengths = [40 if street % 4 == 0 else 8 for street in range(24)]
    town = [frame for street, own in enumerate(lengths) for frame, _ in render_clip("target", street, own, (180, 320))]
    yield "ToyTown", town, np.repeat(np.arange(24), lengths)


def _read(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path)))


def _spoil(frame: np.ndarray, seed: int) -> np.ndarray:
    rng, (height, width) = np.random.default_rng(seed), frame.shape[:2]
    frame, kind = frame.copy(), seed % 5
    if kind == 0:
        flare = np.zeros((height, width), np.float32)
        cv2.circle(flare, (int(rng.uniform(0.2, 0.8) * width), int(0.4 * height)), width // 5, 230.0, cv2.FILLED)
        return np.clip(frame + cv2.GaussianBlur(flare, (0, 0), width / 10)[..., None], 0, 255).astype(np.uint8)
    if kind == 1:
        frame[:, : width // 2] //= 12
    elif kind == 2:
        ends = (int(rng.uniform(0, width)), height), (int(rng.uniform(0, width)), 0)
        cv2.line(frame, *ends, (20, 20, 20), width // 7)
    elif kind == 3:
        top = int(0.4 * height)
        frame[top:] = np.roll(frame[top:], width // 3, axis=1) // 2 + np.array((20, 120, 20), np.uint8)
    else:
        frame = (frame * 0.28).astype(np.uint8)
    return frame


def _network(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """ResNet-18 up to layer 3: a frame's features averaged in 2x3 cells, of length 1."""
    weights: Dict[str, Any] = {name: torch.from_numpy(values) for name, values in np.load(str(path)).items()}

    def normed(maps: Any, name: str) -> Any:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(maps, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def block(maps: Any, name: str, stride: int) -> Any:
        deep = F.relu(normed(F.conv2d(maps, weights[f"{name}.conv1.weight"], None, stride, 1), f"{name}.bn1"))
        deep = normed(F.conv2d(deep, weights[f"{name}.conv2.weight"], None, 1, 1), f"{name}.bn2")
        if f"{name}.downsample.0.weight" in weights:
            maps = normed(F.conv2d(maps, weights[f"{name}.downsample.0.weight"], None, stride), f"{name}.downsample.1")
        return F.relu(maps + deep)

    def features(frame: np.ndarray) -> np.ndarray:
        small = cv2.resize(frame, _SIZE_WH, interpolation=cv2.INTER_AREA)[..., ::-1] / 255.0
        maps: Any = torch.from_numpy(((small - _MEAN) / _STD).astype(np.float32).transpose(2, 0, 1).copy())[None]
        maps = F.max_pool2d(F.relu(normed(F.conv2d(maps, weights["conv1.weight"], None, 2, 3), "bn1")), 3, 2, 1)
        for layer, stride in ((1, 1), (2, 2), (3, 2)):
            maps = block(block(maps, f"layer{layer}.0", stride), f"layer{layer}.1", 1)
        found = F.adaptive_avg_pool2d(maps, (2, 3)).flatten().double().numpy()
        return np.asarray(found / np.linalg.norm(found))

    return features


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
