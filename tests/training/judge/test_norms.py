"""The distance of batch-norm statistics from footage."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.settings import TinyNetwork, make_pictures, to_input  # noqa: E402

from rtda_training.judge.norms import norm_distance  # noqa: E402
from rtda_training.stages.segmentation import reestimate  # noqa: E402


def prepare(frame: np.ndarray) -> np.ndarray:
    return np.asarray(to_input(torch.from_numpy(frame)[None]))


def test_statistics_of_the_footage_are_near_it_and_those_of_darker_pictures_are_not() -> None:
    frames = make_pictures(16).frames
    darker = [(frame // 3).astype(np.uint8) for frame in frames]
    network = TinyNetwork(5)
    reestimate(network, [torch.cat([torch.from_numpy(prepare(frame)) for frame in frames])])
    network.eval()
    near, far = norm_distance(network, prepare, frames), norm_distance(network, prepare, darker)
    assert near < 0.01 and far > 10 * near
    assert not network.training


def test_a_network_without_batch_norms_says_nothing() -> None:
    assert math.isnan(norm_distance(torch.nn.Conv2d(3, 2, 3).eval(), prepare, make_pictures(2).frames))
