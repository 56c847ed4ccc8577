"""What frames of real drives measure, and copies of them that are blurred or dark: where the thresholds come from.

    RTDA_DATA=DIR python benchmarks/footage_thresholds.py

``DIR`` has ``camvid/`` (drives at a frame a second) and ``clips/`` (videos). Light is the grey level that 5 % of the
pixels reach. Sharpness is told against the median of its drive, in the worse of both directions. What moved is the
share of what has texture: the 5th, 50th and 95th percentile. Blur is in pixels of a picture 1280 wide.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import cv2
import numpy as np
from tables import table, wide

from rtda_runtime.sources.footage.kinds import open_footage
from rtda_training.data.footage.measures import Measures, measure
from rtda_training.data.footage.novelty import Look, moved_share

Change = Callable[[np.ndarray, float], np.ndarray]  # a frame, and how wide it is against 1280 pixels

_STOOD = "CamVid Seq05VD, its stop at a light"


def main() -> int:
    """Print the two tables."""
    folder = os.environ.get("RTDA_DATA")
    if not folder:
        print("set RTDA_DATA to a folder with camvid/ and clips/", file=sys.stderr)
        return 2
    light, moved = [], []
    for name, frames, steps in _drives(Path(folder)):
        found = [measure(frame)[0] for frame in frames]
        light.append({"name": name, "frames": len(frames), **_light(found), **_changed(frames, found)})
        moved.append({"name": name, **_moved(found, steps)})
    print(wide(f"{table(_LIGHT, light)}\n\n{table(_MOVED, moved)}"))
    return 0


def _drives(folder: Path) -> Iterator[Tuple[str, List[np.ndarray], Dict[str, int]]]:
    """Name, frames, and how many frames apart are half a second and a second."""
    for split, name in (("train", "0001TP"), ("train", "0006R0"), ("train", "0016E5"), ("test", "Seq05VD")):
        paths = sorted((folder / "camvid" / split).glob(f"{name}_*"))
        frames = [np.asarray(cv2.imread(str(path))) for path in paths]
        if name == "Seq05VD":
            yield f"CamVid {name}", frames[:63] + frames[95:], {"one": 1}
            yield _STOOD, frames[66:91], {"one": 1}
        else:
            yield f"CamVid {name}", frames, {"one": 1}
    for path in sorted((folder / "clips").glob("*.mp4")):
        (recording,) = open_footage(path)
        frames = [frame.image for frame in recording.frames(range(recording.num_frames))]
        yield path.stem, frames, {"half": 12, "one": 25}


def _light(found: List[Measures]) -> Dict[str, Any]:
    sharpness = np.array([measures.sharpness for measures in found])
    return {
        "light": min(measures.light for measures in found),
        "clipped": max(measures.clipped for measures in found),
        "softest": float((sharpness / np.nanmedian(sharpness, axis=0)).min()),
    }


def _changed(frames: List[np.ndarray], found: List[Measures]) -> Dict[str, Any]:
    """Of every seventh frame, changed: light of the brightest, sharpness of the sharpest (of a night: the softest)."""
    usual = np.nanmedian([measures.sharpness for measures in found], axis=0)
    scale = frames[0].shape[1] / 1280
    values: Dict[str, Any] = {}
    for name, change in _CHANGES.items():
        copies = [measure(change(frame, scale))[0] for frame in frames[::7]]
        ratios = np.nanmin(np.array([copy.sharpness for copy in copies]) / usual, axis=1)
        values[name] = float(ratios.min() if name == "night" else ratios.max())
        values[f"{name} light"] = [copy.light for copy in copies]
    return {**values, "night light": min(values["night light"]), "black light": max(values["black light"])}


def _moved(found: List[Measures], steps: Dict[str, int]) -> Dict[str, Any]:
    looks = [Look.of(place, measures) for place, measures in enumerate(found)]
    values: Dict[str, Any] = {"half": None, "one": None}
    for name, step in steps.items():
        shares = [float(moved_share([one], other)[0]) for one, other in zip(looks, looks[step:])]
        values[name] = " · ".join(f"{value:.2f}" for value in np.quantile(shares, (0.05, 0.5, 0.95)))
    return values


def _noisy(frame: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0.0, sigma, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def _motion(frame: np.ndarray, way_px: float) -> np.ndarray:
    return np.asarray(cv2.blur(frame, (max(3, round(way_px)), 1)))


def _defocus(frame: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma_px))


_CHANGES: Dict[str, Change] = {
    "motion": lambda frame, scale: _motion(frame, 9 * scale),
    "noisy motion": lambda frame, scale: _noisy(_motion(frame, 17 * scale), 8),
    "defocus": lambda frame, scale: _defocus(frame, 3 * scale),
    "noisy defocus": lambda frame, scale: _noisy(_defocus(frame, 6 * scale), 8),
    "night": lambda frame, scale: _noisy(frame * 0.15, 4),
    "black": lambda frame, scale: _noisy(frame * 0.03, 4),
}
_LIGHT = {
    "drive": "{name}",
    ">frames": "{frames}",
    ">least light": "{light:.0f}",
    ">at 0.15": "{night light:.0f}",
    ">at 0.03, most": "{black light:.0f}",
    ">most clipped": "{clipped:%0}",
    ">softest": "{softest:.2f}",
    ">at 0.15 and noise": "{night:.2f}",
    ">motion 9 px": "{motion:.2f}",
    ">17 px and noise": "{noisy motion:.2f}",
    ">defocus 3 px": "{defocus:.2f}",
    ">6 px and noise": "{noisy defocus:.2f}",
}
_MOVED = {"drive": "{name}", ">0.5 s apart": "{half}", ">1 s apart": "{one}"}

if __name__ == "__main__":
    sys.exit(main())
