"""Worlds for the shift alarm's benchmark: what spoils a camera at five strengths; drives made of pieces of others."""

from __future__ import annotations

from typing import Callable, Dict, List

import cv2
import numpy as np

__all__ = ["SPOILERS", "STRENGTHS", "resampled", "slow_dusk"]

STRENGTHS = 5
Spoiler = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def _noise(frame: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    sigma = (5.0, 10.0, 20.0, 40.0, 60.0)[strength]  # grey levels
    return np.asarray(np.clip(frame + random.normal(0.0, sigma, frame.shape), 0, 255).astype(np.uint8))


def _blur(frame: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    sigma = frame.shape[1] * (0.002, 0.005, 0.01, 0.02, 0.04)[strength]
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma))


def _covered(frame: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    """A blurred hand from the side: a tenth of the width, a quarter, half, three quarters, all of it."""
    width = int(frame.shape[1] * (0.1, 0.25, 0.5, 0.75, 1.0)[strength])
    found = frame.copy()
    found[:, :width] = (40, 45, 60)
    return found


def _fog(frame: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    """A fogged lens: light of the whole picture over all of it, and blur."""
    share = (0.15, 0.3, 0.5, 0.7, 0.85)[strength]
    soft = cv2.GaussianBlur(frame, (0, 0), frame.shape[1] * 0.02 * share)
    return np.asarray(cv2.addWeighted(soft, 1.0 - share, np.full_like(frame, 200), share, 0.0))


SPOILERS: Dict[str, Spoiler] = {"noise": _noise, "blur": _blur, "covered lens": _covered, "fogged lens": _fog}


def slow_dusk(frames: List[np.ndarray], seconds: int) -> List[np.ndarray]:
    """A frame a second that grows darker and bluer by and by, to an eighth of the light."""
    found = []
    for second in range(seconds):
        over = second / max(1, seconds - 1)
        light = 1.0 - 0.875 * over
        colour = np.array([light, light * (1.0 - 0.15 * over), light * (1.0 - 0.3 * over)])
        found.append((frames[second % len(frames)] * colour).astype(np.uint8))
    return found


def resampled(blocks: np.ndarray, count: int, run: int, random: np.random.Generator) -> np.ndarray:
    """So many blocks of a drive in an order of its own: runs of neighbours, drawn with replacement (block bootstrap).

    Source: Kuensch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 1989.
    """
    run = min(run, len(blocks))
    starts = random.integers(0, len(blocks) - run + 1, -(-count // run))
    return np.concatenate([blocks[start : start + run] for start in starts])[:count]
