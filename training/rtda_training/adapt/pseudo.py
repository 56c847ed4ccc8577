"""Arithmetic of pseudo labels: fusing several outputs, thresholds on confidence, coverage.

A confidence is the largest softmax value of a pixel. Thresholds per class come from a histogram of confidences, 19 x
1000 integers, and not from a list of all pixels, which for Cityscapes would take 25 GB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rtda_deploy.errors import ConfigError
from rtda_training.labels import IGNORE_INDEX

__all__ = ["BINS", "FUSIONS", "SELECTIONS", "ConfidenceHistogram", "Coverage", "fuse", "keep_confident", "thresholds"]

BINS = 1000  # a quantile is found to 1/1000
FUSIONS = ("confidence", "majority", "mean")
SELECTIONS = ("threshold", "class-balanced")


class ConfidenceHistogram:
    """How often each class was predicted with which confidence.

    Attributes:
        counts: int64 (C, bins); bin ``b`` holds confidences in ``[b / bins, (b + 1) / bins)``, the last one 1 too.
    """

    def __init__(self, num_classes: int, bins: int = BINS) -> None:
        self.counts = np.zeros((num_classes, bins), dtype=np.int64)

    def add(self, label: Tensor, confidence: Tensor) -> None:
        """Count pixels.

        Args:
            label: Integer, any shape: the class predicted; values outside the classes (255) are left out.
            confidence: float of the same shape, 0..1.
        """
        num_classes, bins = self.counts.shape
        inside = (label >= 0) & (label < num_classes)
        # In float64 the product is exact, so that a value never lands in the bin above its own.
        place = (confidence[inside].double() * bins).long().clamp_(0, bins - 1)
        found = torch.bincount(label[inside].long() * bins + place, minlength=num_classes * bins)
        self.counts += found.cpu().numpy().reshape(num_classes, bins)

    def merge(self, other: ConfidenceHistogram) -> None:
        """Count what ``other`` counted as well."""
        self.counts += other.counts

    @property
    def predicted(self) -> np.ndarray:
        """int64 (C,): pixels predicted as each class."""
        return np.asarray(self.counts.sum(axis=1))

    def quantile(self, q: float) -> np.ndarray:
        """The confidence with a share ``q`` of its class below it, from below to the width of a bin.

        Of a class's ``n`` confidences in ascending order it is number ``floor(q * n)``, counted from 0 (and the last
        for ``q`` 1), rounded down to the edge of its bin: at least the share ``1 - q`` is at or above it.

        Returns:
            float64 (C,); NaN for a class never predicted.
        """
        num_classes, bins = self.counts.shape
        found = np.full(num_classes, np.nan)
        for index, (row, total) in enumerate(zip(self.counts, self.predicted, strict=True)):
            if total:
                rank = min(math.floor(q * int(total) + 1e-6), int(total) - 1)  # 0.29 * 100 is 28.999...
                found[index] = np.searchsorted(np.cumsum(row), rank, side="right") / bins
        return found


def thresholds(
    histogram: ConfidenceHistogram, select: str, *, threshold: float = 0.9, quantile: float = 0.5, cap: float = 0.9
) -> np.ndarray:
    """The confidence from which on a prediction of each class is kept.

    Args:
        histogram: Confidences of the whole set.
        select: ``threshold``: one for all classes, the "max probability threshold"; ``class-balanced``: per class the
            quantile of its own confidences, at most ``cap``, so that rare and unsure classes keep some pixels.
        threshold: That of ``threshold``.
        quantile: Share of a class's pixels to leave out: 0.5 in BDL's and RTDA's code, 0.66 in FDA's.
        cap: Confidence from which on every prediction is kept, whatever the class's quantile.

    Returns:
        float64 (C,); ``cap`` for a class never predicted.

    Raises:
        ConfigError: If ``select`` is unknown.

    Source: Li et al., BDL (CVPR 2019), section 3.3; the quantiles are those of the published codes.
    """
    if select == "threshold":
        return np.full(histogram.counts.shape[0], threshold)
    if select == "class-balanced":
        return np.asarray(np.fmin(histogram.quantile(quantile), cap))
    raise ConfigError(f"select {select!r} is unknown", hint=f"known: {', '.join(SELECTIONS)}")


def keep_confident(label: Tensor, confidence: Tensor, limits: np.ndarray) -> Tensor:
    """``label`` with 255 where the confidence is below its class's limit; a confidence of exactly the limit stays.

    Compared in float32, so that a float32 confidence of 0.9 meets a limit of 0.9.

    Args:
        label: Integer, any shape, class indices or 255.
        confidence: float32 of the same shape.
        limits: float (C,).
    """
    table = torch.ones(256, dtype=torch.float32, device=label.device)
    table[: len(limits)] = torch.as_tensor(limits, dtype=torch.float32, device=label.device)
    return torch.where(confidence.float() >= table[label.long()], label, torch.full_like(label, IGNORE_INDEX))


def fuse(probabilities: Sequence[Tensor], how: str = "confidence") -> tuple[Tensor, Tensor]:
    """One label per pixel from several outputs of a network, or from several networks.

    Args:
        probabilities: float (N, C, H, W) each, softmax values at the picture's size; the main output first.
        how: ``confidence``: the most confident output decides, the earlier one in a tie. ``majority``: the label most
            outputs vote for; in a tie of votes the most confident output among the tied ones decides. ``mean``: the
            largest mean probability. With two outputs ``majority`` is ``confidence``; with one all three are the same.

    Returns:
        int64 (N, H, W) labels, and float32 (N, H, W): the confidence of the most confident output that gave the label
        (``mean``: the mean probability).

    Raises:
        ConfigError: If ``how`` is unknown.

    Source: the multi-layer SSL paper, section III-D: "majority voting [...] according to their confidence" can be read
    in either of the first two ways; mean: Yang and Soatto, FDA (CVPR 2020), section 3.3.
    """
    if how not in FUSIONS:
        raise ConfigError(f"fuse {how!r} is unknown", hint=f"known: {', '.join(FUSIONS)}")
    if how == "mean" or len(probabilities) == 1:
        return _best(torch.stack([each.float() for each in probabilities]).mean(dim=0))
    found = [_best(each.float()) for each in probabilities]
    labels = torch.stack([label for label, _ in found])  # (K, N, H, W)
    confidences = torch.stack([confidence for _, confidence in found])
    decisive = confidences
    if how == "majority":
        votes = torch.stack([(labels == label).sum(dim=0) for label in labels])
        decisive = torch.where(votes == votes.amax(dim=0), confidences, -torch.ones_like(confidences))
    chosen = decisive.argmax(dim=0, keepdim=True)  # the first of equal ones
    return labels.gather(0, chosen)[0], confidences.gather(0, chosen)[0]


class Coverage(NamedTuple):
    """How many pixels were predicted and how many of them are kept; int64 (C,) each."""

    predicted: np.ndarray
    kept: np.ndarray

    @property
    def share(self) -> float:
        """Share of all pixels that are labelled, 0..1."""
        return float(self.kept.sum() / max(1, int(self.predicted.sum())))

    @property
    def per_class(self) -> np.ndarray:
        """float64 (C,): share of each class's predictions that are kept; NaN for a class never predicted."""
        return np.where(self.predicted > 0, self.kept / np.maximum(1, self.predicted), np.nan)


def _best(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    label = probabilities.argmax(dim=1, keepdim=True)
    return label[:, 0], probabilities.gather(1, label)[:, 0]
