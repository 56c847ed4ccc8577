"""Pictures that a network is asked about where no camera is: made of numbers, the same on every machine."""

from __future__ import annotations

import numpy as np

from rtda_deploy.spec import ModelSpec

__all__ = ["natural_input", "smooth_input"]

# Amplitude falls as a power of the frequency in photographs, by about 1 (Field, Relations between the statistics of
# natural images and the response properties of cortical cells, JOSA A 1987). With 1.5 the agreement of ten trained
# networks in bfloat16 was nearest to that on photographs: 0.3 percent points from it in the mean; with 1 it was 0.4, on
# the smooth picture 0.8.
_FALL = 1.5
_CONTRAST = 55.0  # standard deviation, grey levels
_COLOURS = ((1.0, 0.25, 0.0), (1.0, 0.0, -0.2), (1.0, -0.25, 0.1))  # RGB of brightness and two of colour


def smooth_input(spec: ModelSpec) -> np.ndarray:
    """A smooth coloured picture as the network gets it: normalised as the spec says, or pixels; one picture."""
    height, width = spec.size_hw
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    waves = [np.sin(2 * np.pi * ((k + 1) * across + (3 - k) * down) + k) * np.cos(5 * across - k) for k in range(3)]
    return _as_input(127.5 * (np.stack(waves) + 1.0), spec)


def natural_input(spec: ModelSpec, seed: int = 0) -> np.ndarray:
    """A picture with the spectrum of photographs, things of all sizes and no objects; shape and type as the other's."""
    height, width = spec.size_hw
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = np.inf
    noise = np.random.default_rng(seed).standard_normal((3, height, width))
    planes = np.fft.irfft2(np.fft.rfft2(noise) / frequency**_FALL, (height, width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    return _as_input(127.5 + _CONTRAST * np.einsum("ck,khw->chw", np.asarray(_COLOURS), planes), spec)


def _as_input(pixels: np.ndarray, spec: ModelSpec) -> np.ndarray:
    made = np.clip(np.rint(pixels), 0, 255)
    if spec.input == "float32":
        mean, std = (np.asarray(values)[:, None, None] for values in (spec.mean, spec.std))
        made = (made * spec.pixel_scale - mean) / std
    elif spec.layout == "nhwc":
        made = made.transpose(1, 2, 0)
    return np.ascontiguousarray(made[None], spec.input_dtype)
