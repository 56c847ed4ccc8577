"""The quality of pseudo labels, measured on true ones; no training calls it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rtda_deploy.optional import require
from rtda_training.data.given_masks import given_masks
from rtda_training.data.labels.files import read_mask
from rtda_training.data.pseudo_set import label_files
from rtda_training.labels import IGNORE_INDEX, check_label
from rtda_training.readers import LabelledSet

__all__ = ["LabelQuality", "label_quality"]


@dataclasses.dataclass(frozen=True)
class LabelQuality:
    """Pseudo labels against true ones, over the pixels that have a true one.

    Attributes:
        confusion: int64 (C, C + 1): true class by pseudo label, the last column "not labelled".
        class_names: In the order of the rows.
    """

    confusion: np.ndarray
    class_names: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of the pixels that have a pseudo label."""
        return _ratio(self.confusion[:, :-1].sum(), self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of the pseudo labels that are right; NaN where there is none."""
        return _ratio(np.trace(self.confusion[:, :-1]), self.confusion[:, :-1].sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. Per class, None where undefined: ``coverage`` and ``recall`` of its true pixels (labelled at
        all; labelled right), ``precision`` of the labels that say it."""
        square = self.confusion[:, :-1]
        right, true, said = np.diag(square), self.confusion.sum(axis=1), square.sum(axis=0)
        return {
            "coverage": _plain(self.coverage),
            "accuracy": _plain(self.accuracy),
            "classes": {
                name: {
                    "coverage": _plain(_ratio(square[index].sum(), true[index])),
                    "recall": _plain(_ratio(right[index], true[index])),
                    "precision": _plain(_ratio(right[index], said[index])),
                }
                for index, name in enumerate(self.class_names)
            },
        }


def label_quality(labels_folder: str | Path, labelled_set: LabelledSet) -> LabelQuality:
    """Compare a folder of pseudo labels with the true ones, at the size of these.

    Args:
        labels_folder: What the ``folder`` labeler takes: a folder with ``labels.json``, or with a PNG per picture.
        labelled_set: The same pictures with their labels.

    Raises:
        DataError: If a picture has no pseudo label, or one is not of the set's classes.
    """
    cv2 = require("cv2", extra="training", purpose="to compare labels")
    names = labelled_set.classes.names
    num_classes = len(names)
    masks = given_masks(Path(labels_folder).expanduser(), labelled_set.classes)
    confusion = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
    for index, path in enumerate(label_files(labels_folder, labelled_set)):
        truth = labelled_set.label(index)
        pseudo = check_label(masks.read(path) if masks else read_mask(path), num_classes, str(path))
        if pseudo.shape != truth.shape:
            pseudo = cv2.resize(pseudo, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        known = truth != IGNORE_INDEX
        said = np.minimum(pseudo[known], num_classes).astype(np.int64)  # 255: the last column
        flat = truth[known].astype(np.int64) * (num_classes + 1) + said
        confusion += np.bincount(flat, minlength=confusion.size).reshape(confusion.shape)
    return LabelQuality(confusion, names)


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
