"""IoU and accuracy against torchmetrics and by hand."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from rtda_deploy.errors import DataError
from rtda_training.labels import CITYSCAPES
from rtda_training.metrics import ConfusionMatrix


def test_confusion_matrix_equals_torchmetrics():
    rng = np.random.default_rng(0)
    ours, theirs = ConfusionMatrix(19), MulticlassConfusionMatrix(19, ignore_index=255)
    for _ in range(3):
        label, mask = rng.integers(0, 19, (2, 40, 50)).astype(np.uint8)
        label[:5] = 255
        ours.add(label, mask)
        theirs.update(torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(label.astype(np.int64)))
    assert (ours.counts == theirs.compute().numpy()).all()


def test_scores_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 2]], np.uint8))
    scores = matrix.scores(("a", "b", "c"))
    assert scores.iou[:2] == (0.5, 0.5) and math.isnan(scores.iou[2])
    assert scores.miou() == 0.5 and scores.absent() == ["c"]
    assert scores.pixel_accuracy == pytest.approx(2 / 3) and scores.pixels == 3


def test_predictions_outside_the_classes_are_misses_and_never_wrap():
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([[1, 1]], np.uint8), np.array([[255, 1]], np.uint8))
    assert matrix.scores(("a", "b")).iou[1] == 0.5


def test_protocols_average_over_their_own_classes():
    matrix = ConfusionMatrix(19)
    label = np.arange(19, dtype=np.uint8).reshape(1, 19)
    mask = label.copy()
    mask[0, [9, 14, 16]] = 0  # terrain, truck and train are all missed
    matrix.add(label, mask)
    values = matrix.scores(CITYSCAPES.names).to_dict()
    assert values["miou19"] < values["miou16"]
    assert values["iou"]["terrain"] == 0.0
    assert values["miou13"] == pytest.approx(100 * (12 + 0.25) / 13, abs=0.01)


def test_other_size_is_refused():
    with pytest.raises(DataError, match="label"):
        ConfusionMatrix(2).add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
