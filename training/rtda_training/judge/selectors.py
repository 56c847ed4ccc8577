"""Ways to tell how good a network is without labels; each gives a number, larger for a better one.

A selector takes the evidence of one candidate and weights float64 (B, N): B ways to count its N frames, each row of
sum 1. Two that are known to prefer networks that are sure of nonsense stand beside the others to be measured against.
"""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np

from rtda_deploy.card import BINS
from rtda_training.judge.answers import entropy
from rtda_training.judge.evidence import Evidence, resampled_mean

__all__ = ["SELECTORS", "Selector", "iou_of", "prediction_entropy"]

Selector = Callable[[Evidence, np.ndarray], np.ndarray]

_COLLAPSE_POWER = 3  # AETTA's: disagreement is divided by the third power of the mean prediction's entropy
_LEAST_SHARE = 0.002  # of the cells: a class below it has no say in a mean over classes


def ensemble_miou(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """mIoU with what all agree on, over the classes that are there.

    Source: Hu et al., EnsV (NeurIPS 2024, Datasets and Benchmarks); there as accuracy.
    """
    return iou_of(resampled_mean(weights, evidence.confusion), _LEAST_SHARE)


def ensemble_pixels(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """Share of the cells that have the class that all agree on. Source: as ``ensemble_miou``."""
    counts = resampled_mean(weights, evidence.confusion)
    return np.asarray(np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2)))


def views(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """How little the mask changes under other views, corrected for collapse: a constant mask never changes.

    Source: Lee et al., AETTA (CVPR 2024), with views in the place of dropout passes.
    """
    changed = resampled_mean(weights, evidence.differs).mean(axis=1)
    spread = np.maximum(1e-3, prediction_entropy(evidence, weights)) ** _COLLAPSE_POWER
    # A hundredth is added: what never changes has an estimate that the spread of its classes can still make worse.
    return np.asarray(1.0 - (changed + 0.01) / spread)


def infomax(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """Sure of each cell, and of different classes: entropy of the mean less mean of the entropy. Source: Shi and Sha
    (ICML 2012), as it is used to choose models by Musgrave et al. (2022)."""
    return np.asarray(prediction_entropy(evidence, weights) - resampled_mean(weights, evidence.entropy))


def certainty(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """Negative mean entropy. Prefers collapsed networks: to be measured against, not to choose by."""
    return np.asarray(-resampled_mean(weights, evidence.entropy))


def confidence(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """Mean winning probability. As ``certainty``."""
    centres = (np.arange(BINS) + 0.5) / BINS
    return np.asarray(resampled_mean(weights, evidence.confidence) @ centres)


def norms(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """How close the statistics of its batch norms are to the footage's; NaN where it does not say.

    A network whose statistics were taken from the footage is close whatever it says: it finds those that were not.
    """
    distance = np.nan if evidence.norm_distance is None else evidence.norm_distance
    return np.full(len(weights), -distance)


SELECTORS: Dict[str, Selector] = {
    "ensemble-miou": ensemble_miou,
    "ensemble-pixels": ensemble_pixels,
    "views": views,
    "infomax": infomax,
    "norms": norms,
    "certainty": certainty,
    "confidence": confidence,
}


def prediction_entropy(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    """float64 (B,): entropy of the mean prediction, 0..1; 0 for a network that says one class of everything."""
    return entropy(resampled_mean(weights, evidence.mean).T)


def iou_of(counts: np.ndarray, least_share: float = 0.0) -> np.ndarray:
    """Mean IoU of confusion matrices (B, C, C), over the classes with more than this share of the true pixels."""
    hit = np.diagonal(counts, axis1=1, axis2=2)
    true, said = counts.sum(axis=2), counts.sum(axis=1)
    there = true > np.maximum(least_share * counts.sum(axis=(1, 2), keepdims=True)[..., 0], 0.0)
    iou = np.where(there, hit / np.maximum(true + said - hit, 1e-12), 0.0)
    return np.asarray(iou.sum(axis=1) / np.maximum(1, there.sum(axis=1)))
