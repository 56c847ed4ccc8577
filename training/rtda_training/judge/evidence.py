"""What is known of each candidate, frame by frame: numbers that any selection of frames can be drawn from.

What all agree on is the mean of their softmaxes. Collapsed candidates have no part in it: a network that says "road"
everywhere would vote for itself.
"""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence

import numpy as np

from rtda_training.judge.answers import Answers

__all__ = ["Evidence", "confusions", "evidence_of", "resampled_mean"]


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """One candidate; N frames, C classes, V views. Fields without a comment are those of ``Answers``.

    Attributes:
        confusion: float64 (N, C, C): cells of each frame, rows are the class that all agree on, columns this one's.
    """

    name: str
    mean: np.ndarray
    entropy: np.ndarray
    differs: np.ndarray
    confidence: np.ndarray
    confusion: np.ndarray
    norm_distance: Optional[float] = None
    norms_kept: bool = False

    @property
    def frames(self) -> int:
        """N."""
        return len(self.mean)


def evidence_of(answers: Sequence[Answers], voting: Sequence[bool]) -> List[Evidence]:
    """Hold every candidate against what the voting ones agree on.

    Args:
        answers: Of the same frames.
        voting: Which of them are averaged; where none is, all are.

    Source: Hu et al., EnsV (NeurIPS 2024, Datasets and Benchmarks).
    """
    voters = [found for found, votes in zip(answers, voting) if votes] or list(answers)
    count, classes = answers[0].mean.shape
    matrices = np.zeros((len(answers), count, classes, classes))
    for place in range(count):
        total = sum(np.asarray(found.probabilities[place], dtype=np.float32) for found in voters)
        agreed = np.asarray(total).argmax(axis=0)
        for number, found in enumerate(answers):
            matrices[number, place] = confusions(agreed, found.probabilities[place].argmax(axis=0), classes)
    return [
        Evidence(
            one.name, one.mean, one.entropy, one.differs, one.confidence, matrix, one.norm_distance, one.norms_kept
        )
        for one, matrix in zip(answers, matrices)
    ]


def confusions(truth: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """float64 (C, C) of two masks of one size, all of whose values are classes."""
    index = truth.astype(np.int64).ravel() * classes + mask.ravel()
    return np.asarray(np.bincount(index, minlength=classes**2).reshape(classes, classes), dtype=np.float64)


def resampled_mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean over frames: float64 (B, ...) of weights (B, N), which sum to 1 each, and values (N, ...)."""
    return np.asarray(np.tensordot(weights, values, axes=1), dtype=np.float64)
