"""Weights of classes in a loss: rare ones count more."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rtda_training.adapt.context import StageContext
from rtda_training.labels import IGNORE_INDEX

__all__ = ["ClassWeights"]


class ClassWeights:
    """A pixel weighs by ``frequency ** -0.5`` of its class in the labelled set, the mean over that set's pixels 1.

    Args:
        stage: Whose source is counted.
    """

    def __init__(self, stage: StageContext) -> None:
        from rtda_training.data.index import index_of

        assert stage.source is not None
        frequencies = np.asarray(index_of(stage.source).frequencies, dtype=np.float64)
        weights = np.where(frequencies > 0, np.maximum(frequencies, 1e-6) ** -0.5, 0.0)
        table = np.zeros(IGNORE_INDEX + 1)
        table[: len(weights)] = weights / (weights * frequencies).sum()
        self._table = torch.as_tensor(table, dtype=torch.float32)

    def of(self, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """float32 (N, H, W): the factor of each pixel, times ``weight`` where that is given; 0 for 255.

        Args:
            label: int64 (N, H, W).
            weight: float32 (N, H, W) or None.
        """
        self._table = self._table.to(label.device)
        found = self._table[label]
        return found if weight is None else found * weight
