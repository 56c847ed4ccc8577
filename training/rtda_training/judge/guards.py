"""Signs that a network has collapsed, against the one it is compared with: the first of those given."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np

from rtda_training.judge.answers import Answers, entropy

__all__ = ["remarks_of", "warnings_of"]

# None is published; docs/results/ranking.md measures them.
_THERE = 0.01  # share of the cells: a class that the first sees
_VANISHED = 0.2  # of its share with the first: less is gone
_ENTROPY_KEPT = 0.75  # of the entropy of the first's class shares, and of the median of all
_ONE_CLASS = 0.95  # share of all cells


def warnings_of(answers: Sequence[Answers], class_names: Sequence[str]) -> List[Tuple[str, ...]]:
    """For each candidate what looks like a collapse; nothing for a sound one.

    One class everywhere is told by the candidate itself, few classes by the first and by the median of all. What counts
    is which class wins in each cell, not the mean of the softmaxes: that of a network that became sure has less
    entropy though it says the same.
    """
    spreads = [float(entropy(found.won.mean(axis=0))) for found in answers]
    measure = max(spreads[0], float(np.median(spreads)))
    return [_alone(found.won.mean(axis=0), spread, measure, class_names) for found, spread in zip(answers, spreads)]


def remarks_of(answers: Sequence[Answers], class_names: Sequence[str]) -> List[Tuple[str, ...]]:
    """For each candidate the classes that the first sees and it does not: worth a look, and no proof of anything.

    A first that calls trees buildings is mended by a candidate in which buildings vanish: on AirSim to CamVid the five
    best checkpoints had lost that class, and a guard that put them behind cost 6 mIoU.
    """
    shares = [found.won.mean(axis=0) for found in answers]
    return [_vanished(share, shares[0], class_names) for share in shares]


def _alone(share: np.ndarray, spread: float, measure: float, class_names: Sequence[str]) -> Tuple[str, ...]:
    told = []
    largest = int(share.argmax())
    if share[largest] >= _ONE_CLASS:
        told.append(f"{class_names[largest]} nearly everywhere")
    if spread < _ENTROPY_KEPT * measure:
        told.append(f"few classes: entropy {spread:.2f}, others {measure:.2f}")
    return tuple(told)


def _vanished(share: np.ndarray, before: np.ndarray, class_names: Sequence[str]) -> Tuple[str, ...]:
    gone = [name for name, now, was in zip(class_names, share, before) if was >= _THERE and now < _VANISHED * was]
    return (f"{', '.join(gone)} vanished",) if gone else ()
