"""Boundary F1, calibration error and groups by hand, and the bootstrap against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rtda_export.parity.figures import Boundaries, Calibration, group_scores
from rtda_export.parity.gains import paired_gain
from rtda_training.metrics import ConfusionMatrix

# boundaries


def halves(border: int, size: int = 60) -> np.ndarray:
    """Class 0 left of the column ``border``, class 1 from it on."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, border:] = 1
    return mask


def f1(label: np.ndarray, mask: np.ndarray, classes: int = 2) -> tuple[float, ...]:
    boundaries = Boundaries(classes)
    boundaries.add(label, mask)
    return boundaries.f1()


def test_a_border_within_the_tolerance_is_right_and_one_pixel_more_is_wrong():
    assert f1(halves(30), halves(30)) == (1.0, 1.0)
    assert f1(halves(30), halves(31)) == (1.0, 1.0), "0.75 % of a diagonal of 85 pixels is 1"
    assert f1(halves(30), halves(32)) == (0.0, 0.0)
    assert f1(halves(300, 600), halves(306, 600)) == (1.0, 1.0), "and 6 of 849"
    assert f1(halves(300, 600), halves(307, 600)) == (0.0, 0.0)


def test_precision_and_recall_are_those_of_each_class():
    mask = halves(30)
    mask[:, 50:] = 2  # a second border that is not there: class 1 has it on its right, class 2 has no true one
    zero, one, two = f1(halves(30), mask, 3)
    assert zero == 1.0 and one == pytest.approx(2 * 0.5 * 1.0 / 1.5) and math.isnan(two)
    assert f1(halves(30), np.zeros((60, 60), np.uint8)) == (0.0, 0.0)


def test_borders_to_what_is_not_scored_are_none():
    label = halves(30)
    label[:20] = 255
    wrong = halves(30)
    wrong[:20] = 1 - wrong[:20]
    assert f1(label, wrong) == (1.0, 1.0)
    label[:] = 255
    assert all(math.isnan(value) for value in f1(label, wrong))
    mask = halves(30)
    mask[mask == 0] = 255  # a class without a partner on the other side
    assert f1(halves(30), mask) == (0.0, 0.0)


def test_pixels_of_all_pictures_are_counted_together():
    boundaries = Boundaries(2)
    boundaries.add(halves(30), halves(30))
    boundaries.add(halves(30), halves(40))
    assert boundaries.f1() == (0.5, 0.5)


# calibration


def logits_of(confidence: float, shape: tuple[int, int] = (4, 4)) -> np.ndarray:
    """Two classes; the first with that softmax everywhere."""
    return np.stack([np.full(shape, math.log(confidence / (1 - confidence))), np.zeros(shape)]).astype(np.float32)


def error(label: np.ndarray, logits: np.ndarray, joined: np.ndarray | None = None, region=(0, 0, 4, 4)) -> float:
    calibration = Calibration(joined)
    calibration.add(label, logits, region)
    return calibration.error()


def test_the_error_is_the_difference_of_confidence_and_right_answers():
    label = np.zeros((32, 32), np.uint8)
    assert error(label, logits_of(0.9)) == pytest.approx(0.1)
    label[:16] = 1
    assert error(label, logits_of(0.9)) == pytest.approx(0.4)
    label[:] = 255
    assert math.isnan(error(label, logits_of(0.9)))


def test_sure_and_unsure_answers_do_not_make_up_for_each_other():
    label = np.zeros((32, 32), np.uint8)
    label[:16] = 1
    logits = logits_of(0.9)
    logits[:, 2:] = logits_of(0.6, (2, 4))
    assert error(label, logits) == pytest.approx(0.5 * 0.9 + 0.5 * 0.4)


def test_only_what_lies_in_the_picture_is_looked_at():
    label = np.zeros((16, 32), np.uint8)
    logits = logits_of(0.6)
    logits[:, 1:3] = logits_of(0.9, (2, 4))  # bars of a letterbox above and below
    assert error(label, logits, region=(1, 0, 2, 4)) == pytest.approx(0.1)
    label[:8] = 1
    assert error(label, logits, region=(1, 0, 2, 4)) == pytest.approx(0.4)


def test_joined_classes_are_as_sure_as_all_of_them_together():
    logits = np.zeros((3, 2, 2), np.float32)
    logits[0] = 0.1  # a little before the other two
    joined = np.full(256, 255, np.uint8)
    joined[:3] = (0, 0, 1)
    share = (math.exp(0.1) + 1) / (math.exp(0.1) + 2)
    label = np.zeros((8, 8), np.uint8)
    assert error(label, logits, joined, (0, 0, 2, 2)) == pytest.approx(1 - share)


# groups


def test_a_groups_false_rate_is_of_the_other_pixels_and_confusion_inside_it_is_right():
    # true: 10 road, 5 parking, 20 grass, 5 sky; columns: road, parking, grass, sky, none
    counts = np.array([[6, 2, 1, 0, 1], [5, 0, 0, 0, 0], [3, 1, 16, 0, 0], [0, 0, 0, 5, 0]])
    found = group_scores("drivable", [0, 1], counts)
    assert found.false_rate == pytest.approx(4 / 25)
    assert found.missed_rate == pytest.approx(2 / 15)
    assert found.iou == pytest.approx(13 / (15 + 4))
    assert found.to_dict() == {"iou": 68.42, "false_rate": 16.0, "missed_rate": 13.33}


def test_a_group_that_no_label_holds_has_no_share_of_it():
    found = group_scores("drivable", [0], np.array([[0, 0, 0], [1, 3, 0]]))
    assert found.to_dict() == {"iou": None, "false_rate": 25.0, "missed_rate": None}


# gains


def pictures(seed: int, right: float, count: int = 12) -> np.ndarray:
    """int64 (pictures, 3, 4) of masks that are right with that probability; the labels are the same for all."""
    rng, labels = np.random.default_rng(seed), np.random.default_rng(99)
    made = []
    for _ in range(count):
        label = labels.integers(0, 3, (20, 20)).astype(np.uint8)
        mask = np.where(rng.random((20, 20)) < right, label, rng.integers(0, 4, (20, 20))).astype(np.uint8)
        made.append(ConfusionMatrix(3).of(label, mask))
    return np.stack(made)


def miou(counts: np.ndarray) -> float:
    matrix = ConfusionMatrix(3)
    matrix.add_counts(counts)
    return 100 * matrix.scores(("a", "b", "c")).miou()


def test_the_interval_is_that_of_a_plain_bootstrap_and_pairs_the_pictures():
    first, other = pictures(1, 0.6), pictures(2, 0.7)
    gain = paired_gain(first, other, range(3))
    assert gain.points == pytest.approx(miou(other.sum(0)) - miou(first.sum(0)))
    rng = np.random.default_rng(5)
    plain = []
    for _ in range(1500):
        drawn = rng.integers(0, 12, 12)
        plain.append(miou(other[drawn].sum(0)) - miou(first[drawn].sum(0)))
    low, high = np.quantile(plain, [0.025, 0.975])
    assert (gain.low, gain.high) == (pytest.approx(low, abs=0.4), pytest.approx(high, abs=0.4))
    assert gain.certain and gain.low < gain.points < gain.high


def test_hard_pictures_that_are_hard_for_both_do_not_widen_the_interval():
    easy, hard = pictures(1, 0.9, 6), pictures(1, 0.3, 6)
    both = np.concatenate([easy, hard])
    assert paired_gain(both, both, range(3)).to_dict() == {"points": 0.0, "low": 0.0, "high": 0.0, "certain": False}


def test_one_picture_has_no_interval():
    gain = paired_gain(pictures(1, 0.6, 1), pictures(2, 0.9, 1), range(3))
    assert gain.points > 0 and gain.low is None and not gain.certain


def test_a_class_that_no_drawn_picture_holds_is_in_no_mean():
    first = np.zeros((2, 2, 3), np.int64)
    first[:, 0] = (5, 5, 0)
    other = first.copy()
    other[0, 0] = (10, 0, 0)
    gain = paired_gain(first, other, range(2))
    assert gain.points == pytest.approx(25.0) and not math.isnan(gain.low)
