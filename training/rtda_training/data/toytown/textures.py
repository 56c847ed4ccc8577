"""Tiles and sprites drawn once per process and reused by every picture.

All are functions of constants, so two processes hold the same bytes. Tones are uint8 with 128 for "unchanged".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Tuple

import cv2
import numpy as np

__all__ = ["bricks", "cloud_tone", "crown", "grain", "ground_tones", "sensor_grain"]

TILE_PX = 256  # every tile repeats after this many pixels
CROWN_PX = 128
CROWNS_PER_SPECIES = 4


@lru_cache(maxsize=None)
def grain(seed: int, slope: float) -> np.ndarray:
    """Seamless noise of power 1/f^slope: 0 is white, 2 is cloudy. float32 (256, 256), mean 0, deviation 1."""
    rng = np.random.default_rng((7, seed))
    spectrum = np.fft.rfft2(rng.standard_normal((TILE_PX, TILE_PX)))
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None, :])
    frequency[0, 0] = 1.0
    tile = np.fft.irfft2(spectrum * frequency ** (-slope / 2.0), s=(TILE_PX, TILE_PX))
    tile -= tile.mean()
    return np.asarray(tile / tile.std(), dtype=np.float32)


def _tone(relative: np.ndarray) -> np.ndarray:
    """uint8 tone of a relative brightness around 1."""
    return np.asarray(np.clip(relative * 128.0, 0, 255), dtype=np.uint8)


@lru_cache(maxsize=None)
def ground_tones() -> np.ndarray:
    """Asphalt, paving slabs and grass, uint8 (256, 256, 3), one in each channel, 32 pixels to the metre."""
    asphalt = 1.0 + 0.10 * grain(1, 0.3) + 0.09 * grain(2, 2.2)
    cracks = np.abs(grain(3, 2.6)) < 0.02
    asphalt[cracks] *= 0.72
    slabs = 1.0 + 0.06 * grain(4, 0.5) + 0.06 * grain(5, 2.0)
    blocks = np.random.default_rng((7, 6)).normal(1.0, 0.07, (8, 8)).astype(np.float32)
    slabs *= np.kron(blocks, np.ones((32, 32), np.float32))
    slabs[::32], slabs[1::32], slabs[:, ::32], slabs[:, 1::32] = 0.66, 0.66, 0.66, 0.66
    grass = 1.0 + 0.20 * grain(7, 0.6) + 0.13 * grain(8, 1.8)
    return np.ascontiguousarray(np.stack([_tone(asphalt), _tone(slabs), _tone(grass)], axis=2))


@lru_cache(maxsize=None)
def bricks() -> np.ndarray:
    """Brickwork with pale joints, uint8 (256, 256): courses of 8 pixels."""
    rng = np.random.default_rng((7, 9))
    tone = np.kron(rng.normal(0.98, 0.10, (32, 16)), np.ones((8, 16)))
    tone[8::16] = np.roll(tone[8::16], 8, axis=1)
    for course in range(32):
        rows = slice(8 * course, 8 * course + 8)
        tone[rows] = np.roll(tone[rows], 8 * (course % 2), axis=1)
        tone[rows, 8 * (course % 2) :: 16] = 1.22
    tone[::8] = 1.22
    return _tone(tone + 0.08 * grain(10, 1.0))


@lru_cache(maxsize=None)
def cloud_tone() -> np.ndarray:
    """Cloud cover, uint8 (256, 256)."""
    return _tone(1.0 + 0.22 * grain(11, 3.0))


@lru_cache(maxsize=None)
def sensor_grain() -> np.ndarray:
    """Noise of one exposure, int16 (512, 512, 3), deviation 64: luminance mostly, some of it per colour."""
    rng = np.random.default_rng((7, 12))
    luminance = rng.standard_normal((512, 512, 1))
    colour = rng.standard_normal((512, 512, 3))
    return np.asarray(64.0 * (0.8 * luminance + 0.6 * colour), dtype=np.int16)


@lru_cache(maxsize=None)
def crown(species: int, variant: int, textured: bool, size_px: int = CROWN_PX) -> Tuple[np.ndarray, np.ndarray]:
    """One tree crown seen from the side.

    Args:
        species: 0 round, 1 tall, 2 cone, 3 bush.
        variant: Any of ``CROWNS_PER_SPECIES``.
        textured: Leaves and a ragged edge; otherwise three flat tones.
        size_px: Side of the square sprite; smaller ones are averaged from the largest.

    Returns:
        Tone uint8 (S, S) and mask uint8 (S, S) of 0 and 255.
    """
    if size_px != CROWN_PX:
        tone, mask = crown(species, variant, textured)
        half = (size_px, size_px)
        small = cv2.resize(mask, half, interpolation=cv2.INTER_AREA)
        return cv2.resize(tone, half, interpolation=cv2.INTER_AREA), np.asarray((small > 127) * 255, dtype=np.uint8)
    rng = np.random.default_rng((7, 13, species, variant))
    tone = np.full((CROWN_PX, CROWN_PX), 96, np.uint8)
    mask = np.zeros((CROWN_PX, CROWN_PX), np.uint8)
    for level, lift in ((96, 0.0), (128, 0.08), (158, 0.18)):  # each tone a smaller, higher bundle of leaves
        for x, y, radius in _leaf_bundles(species, rng):
            centre = (int(x * CROWN_PX - 40 * lift * 0.5), int((y - lift * 0.5) * CROWN_PX))
            size = max(2, int(radius * CROWN_PX * (1.0 - 2.2 * lift)))
            cv2.circle(tone, centre, size, level, -1)
            if lift == 0.0:
                cv2.circle(mask, centre, size, 255, -1)
    if textured:
        leaves = grain(14 + variant, 0.8)[:CROWN_PX, :CROWN_PX]
        clumps = grain(20 + variant, 2.0)[:CROWN_PX, :CROWN_PX]
        tone = np.asarray(
            np.clip(cv2.blur(tone, (9, 9)) * (1.0 + 0.30 * leaves + 0.18 * clumps), 8, 250), dtype=np.uint8
        )
        edge = cv2.blur(mask, (13, 13)).astype(np.float32) + 40.0 * leaves
        mask = np.asarray((edge > 118) * 255, dtype=np.uint8)
    return tone, mask


def _leaf_bundles(species: int, rng: np.random.Generator) -> np.ndarray:
    """Circles that fill the outline of a species: float (N, 3) of column, row and radius, 0..1."""
    t, around = rng.random(34), rng.random(34) * 2 * np.pi
    if species == 2:  # narrow at the top
        x, y, radius = 0.5 + 0.34 * t * np.cos(around), 0.10 + 0.78 * t, 0.04 + 0.09 * t
    elif species == 1:
        x, y, radius = 0.5 + 0.20 * np.cos(around), 0.5 + 0.36 * np.sin(around) * np.sqrt(t), 0.10 + 0.05 * t
    elif species == 3:  # flat on the ground
        x, y, radius = 0.1 + 0.8 * t, 0.62 + 0.14 * np.sin(around), np.full(34, 0.16)
    else:
        x, y, radius = (
            0.5 + 0.31 * np.sqrt(t) * np.cos(around),
            0.5 + 0.29 * np.sqrt(t) * np.sin(around),
            0.10 + 0.07 * t,
        )
    return np.stack([x, y, radius], axis=1)
