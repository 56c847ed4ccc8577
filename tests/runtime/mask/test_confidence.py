"""The probability of the winning class, against float64 and against what an exported graph says."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime.upsampled import upsampled

from rtda_deploy.errors import FrameError
from rtda_runtime.mask.upsample import confidence_from_logits


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(1, 21),
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    scale=st.floats(0.1, 30),
    letterboxed=st.booleans(),
)
def test_it_is_the_softmax_of_the_upsampled_logits(
    seed: int, classes: int, grid: Tuple[int, int], size: Tuple[int, int], scale: float, letterboxed: bool
) -> None:
    logits = (np.random.default_rng(seed).standard_normal((classes, *grid)) * scale).astype(np.float32)
    region = (grid[0] / 4, 0.0, grid[0] / 2, float(grid[1])) if letterboxed and grid[0] >= 4 else None
    large = upsampled(logits, size, region)
    expected = 255 / np.exp(large - large.max(0)).sum(0)
    got = confidence_from_logits(logits, size, region=region)
    assert got.dtype == np.uint8 and got.shape == size
    assert np.abs(got - expected).max() <= 0.51


def test_bands_leave_no_seams() -> None:
    logits = np.random.default_rng(3).standard_normal((20, 8, 12)).astype(np.float32)
    size = (160, 512)  # 1.6 million values: four bands of at most 51 rows
    out = np.zeros(size, np.uint8)
    assert confidence_from_logits(logits, size, out=out) is out
    large = upsampled(logits, size)
    assert np.abs(out - 255 / np.exp(large - large.max(0)).sum(0)).max() <= 0.51


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(FrameError, match="float32"):
        confidence_from_logits(np.zeros((3, 4, 4)), (8, 8))
    with pytest.raises(FrameError, match="out is"):
        confidence_from_logits(np.zeros((3, 4, 4), np.float32), (8, 8), out=np.zeros((8, 9), np.uint8))
