"""The target's camera: lens, exposure, noise and compression, as a cheap camera on a robot has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Tuple

import cv2
import numpy as np

from rtda_training.data.toytown.canvas import ClassId
from rtda_training.data.toytown.textures import sensor_grain

__all__ = ["Sensor", "expose", "sample_sensor"]

_REFERENCE_WIDTH_PX = 512.0  # blur is given for a picture this wide
_NOISE_TILE_PX = 512


@dataclass(frozen=True)
class Sensor:
    """How one camera sees on one day."""

    barrel: float  # relative shift of the corners
    roll_deg: float
    white_balance: Tuple[float, float, float]  # gains of B, G, R
    gamma: float
    contrast: float
    lift: float  # black level, 0..255
    saturation: float
    vignette: float  # light lost in the corners
    blur_px: float  # standard deviation of the defocus at 512 columns
    motion_px: float  # length of the motion blur at 512 columns
    noise: float  # deviation, 0..255
    jpeg_quality: int
    bonnet: float  # height of the own car in the picture; 0: not seen


def sample_sensor(rng: np.random.Generator) -> Sensor:
    """Draw a camera and a light."""
    warmth, green = rng.normal(0.0, 0.055), rng.normal(0.0, 0.012)
    return Sensor(
        barrel=float(rng.uniform(0.01, 0.06)),
        roll_deg=float(rng.normal(0.0, 0.7)),
        white_balance=(1.0 - warmth, 1.0 + green, 1.0 + warmth),
        gamma=float(rng.uniform(0.68, 1.08)),
        contrast=float(rng.uniform(0.88, 1.10)),
        lift=float(rng.uniform(0.0, 18.0)),
        saturation=float(rng.uniform(0.72, 1.05)),
        vignette=float(rng.uniform(0.08, 0.30)),
        blur_px=float(rng.uniform(0.35, 0.95)),
        motion_px=float(rng.uniform(2.0, 4.5)) if rng.random() < 0.25 else 0.0,
        noise=float(rng.uniform(2.0, 5.5)),
        jpeg_quality=int(rng.integers(42, 82)),
        bonnet=float(rng.uniform(0.05, 0.10)) if rng.random() < 0.4 else 0.0,
    )


def expose(
    frame: np.ndarray, label: np.ndarray, sensor: Sensor, rng: np.random.Generator
) -> Tuple[np.ndarray, np.ndarray]:
    """See a drawn street through a camera.

    Args:
        frame: uint8 (H, W, 3) BGR; painted over where the bonnet is.
        label: uint8 (H, W), likewise.
        sensor: The camera.
        rng: Noise of this exposure.

    Returns:
        The photograph, uint8 (H, W, 3) BGR, and the label moved by the same lens, uint8 (H, W).
    """
    height, width = label.shape
    if sensor.bonnet:
        centre, axes = (width // 2, round(1.02 * height)), (round(0.56 * width), round((sensor.bonnet + 0.02) * height))
        cv2.ellipse(frame, centre, axes, 0, 0, 360, (44, 42, 40), -1, cv2.LINE_AA)
        cv2.ellipse(label, centre, axes, 0, 0, 360, int(ClassId.IGNORE), -1)
    columns, rows = _lens(height, width, round(sensor.barrel, 3), round(sensor.roll_deg, 1))
    label = cv2.remap(label, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    frame = cv2.remap(frame, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    frame = _blur(frame, sensor, width / _REFERENCE_WIDTH_PX)
    frame = _develop(frame, sensor, rng)
    _, packed = cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg_quality))
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), dtype=np.uint8), np.asarray(label, dtype=np.uint8)


@lru_cache(maxsize=8)
def _lens(height: int, width: int, barrel: float, roll_deg: float) -> Tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the photograph looks in the drawing: two float32 (H, W)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - (width - 1) / 2) / (width / 2), (y - (height - 1) / 2) / (width / 2)
    angle = np.radians(roll_deg)
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    corner = 1.0 + (height / width) ** 2
    zoom = (1.0 - barrel + barrel * (x * x + y * y) / corner) * (1.0 - 0.6 * abs(angle))  # corners stay in the drawing
    columns, rows = x * zoom * (width / 2) + (width - 1) / 2, y * zoom * (width / 2) + (height - 1) / 2
    return columns.astype(np.float32), rows.astype(np.float32)


def _blur(frame: np.ndarray, sensor: Sensor, scale: float) -> np.ndarray:
    frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), max(0.3, sensor.blur_px * scale)))
    length = round(sensor.motion_px * scale)
    return np.asarray(cv2.blur(frame, (length, 1))) if length > 1 else frame


def _develop(frame: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """Vignette, white balance, tone curve, saturation and noise."""
    height, width = frame.shape[:2]
    levels = np.arange(256, dtype=np.float32) / 255.0
    curve = 255.0 * (0.5 + sensor.contrast * (levels[:, None] ** sensor.gamma * np.array(sensor.white_balance) - 0.5))
    table = np.clip(curve * (1.0 - sensor.lift / 255.0) + sensor.lift, 0, 255).astype(np.uint8)
    frame = cv2.LUT(frame, table[None])
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    frame = cv2.addWeighted(frame, sensor.saturation, grey, 1.0 - sensor.saturation, 0.0)
    frame = cv2.multiply(frame, _vignette(height, width, round(sensor.vignette, 2)), scale=1 / 255)
    y0, x0 = (int(v) for v in rng.integers(0, _NOISE_TILE_PX, 2))
    rows, columns = (y0 + np.arange(height)) % _NOISE_TILE_PX, (x0 + np.arange(width)) % _NOISE_TILE_PX
    noise = sensor_grain()[np.ix_(rows, columns)]
    noisy = cv2.addWeighted(frame, 1.0, noise, sensor.noise / 64.0, 0.0, dtype=cv2.CV_8U)
    return np.asarray(noisy, dtype=np.uint8)


@lru_cache(maxsize=64)
def _vignette(height: int, width: int, loss: float) -> np.ndarray:
    """Light that reaches each pixel, uint8 (H, W, 3), 255 for all of it."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    light = np.asarray(255.0 * (1.0 - loss * (0.5 * (x * x + y * y)) ** 1.5), dtype=np.uint8)
    return np.ascontiguousarray(np.repeat(light[:, :, None], 3, axis=2))
