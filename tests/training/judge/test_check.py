"""The paired test on a few labelled frames, and the draws of footage."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import pytest
from training.judge.networks import CLASSES, labelled, network

from rtda_deploy.errors import DataError
from rtda_training.judge.check import check_counts, miou_of, paired
from rtda_training.judge.resample import block_weights


def test_the_figures_are_those_of_eval() -> None:
    from rtda_training.metrics import ConfusionMatrix

    candidate, pictures = network("a", 0.3), labelled(4)
    counts = check_counts(candidate.mask, pictures)  # type: ignore[arg-type]
    whole = ConfusionMatrix(CLASSES)
    for index in range(4):
        frame, label = pictures.pair(index)
        whole.add(label, candidate.mask(frame, label.shape))  # type: ignore[misc]
    assert miou_of(counts.sum(axis=0)) == pytest.approx(whole.scores(pictures.classes.names).miou())


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    """Of 200 tests of 8 frames, about 5 % miss; with half the width a fifth would."""
    rng = np.random.default_rng(0)

    def frames(count: int, right: np.ndarray) -> np.ndarray:
        truth = rng.integers(20, 40, size=(count, CLASSES))
        hit = np.round(truth * np.clip(right[:count, None] + rng.normal(0, 0.05, (count, CLASSES)), 0, 1))
        counts = np.zeros((count, CLASSES, CLASSES))
        for one in range(CLASSES):
            counts[:, one, one] = hit[:, one]
            counts[:, one, (one + 1) % CLASSES] = truth[:, one] - hit[:, one]
        return counts

    scene = rng.normal(0, 0.1, 20_000)  # a hard scene is hard for both
    true = paired(frames(20_000, 0.7 + scene), frames(20_000, 0.6 + scene)).difference
    missed = 0
    for _ in range(200):
        scene = rng.normal(0, 0.1, 8)
        found = paired(frames(8, 0.7 + scene), frames(8, 0.6 + scene))
        missed += not found.low <= true <= found.high
    assert 2 <= missed <= 22


def test_too_few_labelled_frames_are_refused() -> None:
    with pytest.raises(DataError, match="has 2 labelled frames"):
        check_counts(network("a", 0.1).mask, labelled(2))  # type: ignore[arg-type]


def test_frames_without_a_labelled_pixel_do_not_stand_for_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would make one frame that says something look like three that agree."""
    pictures, mask = labelled(6), network("a", 0.1).mask
    whole = pictures.pair

    def some(index: int, told: int) -> Tuple[np.ndarray, np.ndarray]:
        frame, label = whole(index)
        return frame, label if index < told else np.full_like(label, 255)

    monkeypatch.setattr(pictures, "pair", lambda index: some(index, 2))
    with pytest.raises(DataError, match=r"2 of the 6 frames of .* have a labelled pixel"):
        check_counts(mask, pictures)  # type: ignore[arg-type]
    monkeypatch.setattr(pictures, "pair", lambda index: some(index, 4))
    assert len(check_counts(mask, pictures)) == 4  # type: ignore[arg-type]


def test_a_lead_that_rounding_makes_is_none() -> None:
    """One network in two kinds of file differs in some pixels, on every frame in the same sense perhaps."""
    one = np.tile(np.diag([10_000, 10_000]), (4, 1, 1))
    other = one.copy()
    other[:, 0] += (-1, 1)
    assert paired(one, other).difference > paired(one, other).error and not paired(one, other).better
    other[:, 0] += (-500, 500)
    assert paired(one, other).better


def test_a_lead_that_one_frame_makes_is_known() -> None:
    """A class that one frame alone shows, and one of the networks does not find, outweighs all others."""
    one = np.array([[[50, 0], [0, 50]], *2 * [[[100, 0], [0, 0]]]])
    other = np.array([[[50, 0], [50, 0]], *2 * [[[100, 0], [0, 0]]]])
    found = paired(one, other)
    assert found.better and found.low < -100 and found.least == 0.0 and found.hangs_on_one_frame
    everywhere = paired(np.stack([one[0]] * 3), np.stack([other[0]] * 3))
    assert everywhere.better and everywhere.least > 50 and not everywhere.hangs_on_one_frame


def test_draws_are_blocks_of_neighbours_and_the_same_every_time() -> None:
    weights = block_weights(100, 50)
    assert weights.shape == (50, 100) and np.allclose(weights.sum(axis=1), 1.0)
    assert (weights == block_weights(100, 50)).all()
    drawn = np.rint(weights * 100)
    starts = ((drawn > 0) & (np.roll(drawn, 1, axis=1) == 0)).sum(axis=1)
    assert starts.max() <= 20  # single frames would leave about 23 to 25 runs
    assert 0.5 < (drawn > 0).mean() < 0.75  # 1 - 1/e of them
