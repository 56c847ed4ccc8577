"""The footage of ``make loop``: ToyTown's target by noon, and the same city in rain.

A drive goes through one street after the other, a few seconds in each. Its frames are a function of the numbers of its
streets, as all of ToyTown is, and no street is in two of the sets.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Iterable, List, NamedTuple, Tuple

import cv2
import numpy as np

from rtda_runtime import VideoSink
from rtda_training.data.toytown import render, render_clip

__all__ = ["FPS", "Footage", "draw_footage", "rain"]

FPS = 2.0  # of the films: few frames a second, because each is drawn
_STREET_FRAMES = 6  # three seconds in each street
_EVERY = round(15 / FPS)  # ToyTown drives at 15 pictures a second
_LIGHT = (0.62, 0.56, 0.52)  # of noon's, in B, G, R
_VEIL = np.array([150.0, 148.0, 144.0], np.float32)  # BGR of the spray in the air
_ROAD, _PAVEMENT, _SKY = 0, 1, 10  # train ids of Cityscapes


class Footage(NamedTuple):
    """What was drawn.

    Attributes:
        noon: A film at noon: what the robot knows.
        drive: A film that begins at noon, and rains from its middle on.
        rain_s: When the rain begins in it, seconds.
        labelled: Folders of labelled pictures by weather, of the same streets.
    """

    noon: Path
    drive: Path
    rain_s: float
    labelled: List[Tuple[str, Path]]


def draw_footage(folder: Path, seconds: int, pictures: int, size_hw: Tuple[int, int]) -> Footage:
    """Draw the films and the labelled pictures that are not there yet.

    Args:
        folder: Gets ``noon.mp4``, ``drive.mp4`` and the folders ``labelled-noon`` and ``labelled-rain``.
        seconds: Of each film.
        pictures: In each of the two folders.
        size_hw: Rows and columns of each frame.
    """
    streets = max(2, round(seconds * FPS / _STREET_FRAMES))
    noon, drive = folder / "noon.mp4", folder / "drive.mp4"
    dry = streets // 2
    _film(noon, range(streets), range(0), size_hw)
    _film(drive, range(streets, streets + dry), range(streets + dry, 2 * streets), size_hw)
    labelled = [(weather, folder / f"labelled-{weather}") for weather in ("noon", "rain")]
    for weather, place in labelled:
        _pictures(place, pictures, size_hw, rains=weather == "rain")
    return Footage(noon, drive, dry * _STREET_FRAMES / FPS, labelled)


def rain(frame: np.ndarray, label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same street in rain: less light and colour, spray that hides what is far, wet ground, drops and streaks.

    Args:
        frame: uint8 (H, W, 3) BGR; not modified.
        label: uint8 (H, W), Cityscapes' train ids.
        random: Where drops and streaks are.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    height, width = label.shape
    wet = frame.astype(np.float32) * np.array(_LIGHT, np.float32)
    grey = wet.mean(axis=2, keepdims=True)
    wet = grey + 0.6 * (wet - grey)
    horizon = 0.45 * height
    rows = np.arange(height, dtype=np.float32)[:, None, None]
    far = np.clip(1.0 - np.abs(rows - horizon) / (0.4 * height), 0.0, 1.0)
    spray = 0.2 + 0.35 * far
    wet = (1.0 - spray) * wet + spray * _VEIL
    wet[label == _SKY] = 0.25 * wet[label == _SKY] + 0.75 * _VEIL
    mirrored = cv2.blur(wet[::-1], (1, max(3, height // 12)))
    ground = ((label == _ROAD) | (label == _PAVEMENT))[:, :, None]
    wet = np.where(ground, 0.55 * wet + 0.45 * np.roll(mirrored, round(2 * horizon) - height, axis=0), wet)
    wet += _streaks(height, width, random)[:, :, None]
    seen = np.clip(wet + random.normal(0.0, 4.0, wet.shape), 0, 255).astype(np.uint8)
    return _drops(seen, random)


def _streaks(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """float32 (H, W), light that falling water adds."""
    seeds = (random.random((height, width)) > 0.985).astype(np.float32)
    length = max(5, height // 14)
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, (length // 3, length - 1), (2 * length // 3, 0), 1.0 / length)
    return np.asarray(cv2.filter2D(seeds, -1, kernel) * 255.0)


def _drops(frame: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Drops on the lens show a blurred bit of the street upside down."""
    height, width = frame.shape[:2]
    soft = cv2.GaussianBlur(frame[::-1], (0, 0), height / 30)
    weight = np.zeros((height, width), np.float32)
    for _ in range(12):
        centre = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(weight, centre, int(random.integers(height // 40 + 1, height // 14 + 2)), 0.8, -1)
    weight = cv2.GaussianBlur(weight, (0, 0), height / 120)[:, :, None]
    return np.asarray((weight * soft + (1.0 - weight) * frame).astype(np.uint8))


def _street(number: int, size_hw: Tuple[int, int], *, rains: bool) -> List[np.ndarray]:
    random = np.random.default_rng((2026, number))
    frames = render_clip("target", 100 + number, _STREET_FRAMES, size_hw, _EVERY)
    return [rain(frame, label, random) if rains else frame for frame, label in frames]


def _film(path: Path, dry: Iterable[int], wet: Iterable[int], size_hw: Tuple[int, int]) -> None:
    """A film of streets, at noon and then in rain; each core draws a street at a time."""
    if path.exists():
        return
    cores = len(os.sched_getaffinity(0))
    with VideoSink(path, FPS) as film, ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        for streets, rains in ((dry, False), (wet, True)):
            for street in pool.map(functools.partial(_street, size_hw=size_hw, rains=rains), streets):
                for frame in street:
                    film.write(frame)


def _pictures(folder: Path, count: int, size_hw: Tuple[int, int], *, rains: bool) -> None:
    for index in range(count):
        label_path, picture_path = (folder / kind / f"{index:03d}.png" for kind in ("labels", "images"))
        if picture_path.exists():
            continue
        frame, label = render("target", "test", index, size_hw)
        for path, picture in (
            (label_path, label),
            (picture_path, rain(frame, label, np.random.default_rng(index)) if rains else frame),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
