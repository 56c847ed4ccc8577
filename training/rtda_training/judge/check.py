"""A few labelled frames as a paired test: both networks on the same frames, and how far chance goes.

A set's mIoU is no mean over its frames, so the interval is that of the jackknife: every frame is left out once, the
difference computed anew, and Student's t taken with one degree of freedom less than there are frames.
"""

from __future__ import annotations

import json
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.judge.answers import glance, same_scene
from rtda_training.metrics import ConfusionMatrix
from rtda_training.readers import LabelledSet

__all__ = [
    "LEAST_LABELLED",
    "Paired",
    "check_counts",
    "miou_of",
    "paired",
    "refuse_other_classes",
    "refuse_unfit",
    "repeated",
]

_ENOUGH, _HALF = 0.8, 0.5  # shares of the labelled pixels that are of a class of the models
LEAST_LABELLED = 3  # frames; fewer give no interval that says anything
_SAME = 0.1  # points of mIoU: less is rounding, such as that of one network in two kinds of file

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Paired(NamedTuple):
    """How much more mIoU one network has than another on the same labelled frames; points, 0..100.

    Attributes:
        frames: Number of labelled frames.
        miou: Of the one and of the other, percent.
        difference: The one less the other.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        error: Standard error of the difference.
        least: The smallest difference with one of the frames left out.
    """

    frames: int
    miou: Tuple[float, float]
    difference: float
    low: float
    high: float
    error: float
    least: float

    @property
    def hangs_on_one_frame(self) -> bool:
        """Whether the lead is gone with one of the frames left out, such as the only one that shows a class."""
        return self.better and self.least <= _SAME

    @property
    def better(self) -> bool:
        """Whether the one leads by more than the standard error, and by more than rounding may.

        Source: the rule of one standard error, Breiman et al., Classification and Regression Trees (1984), 3.4.3.
        """
        return self.difference > max(self.error, _SAME)


def refuse_other_classes(labelled: LabelledSet, frames: Optional[Sequence[int]] = None) -> Tuple[str, ...]:
    """Look at labels before they decide; gives what makes them say less than they seem to.

    Args:
        labelled: Frames and labels in the models' classes.
        frames: Which of them are used; None: all.

    Raises:
        DataError: If a label cannot be read; or if nothing says what the labels' values mean, so that they are taken
            for Cityscapes' 19 classes, and the models know less than half of the pixels under these names.
    """
    known = every = 0
    for index in range(len(labelled)) if frames is None else frames:
        label, told = labelled.counted_label(index)
        known += int((label < labelled.classes.num_classes).sum())
        every += told
    share = known / every if every else 1.0
    if share >= _ENOUGH:
        return ()
    text = f"only {100 * share:.0f} % of the labelled pixels of {labelled.address} are of a class of the models"
    meaning = labelled.meaning
    if meaning is not None and meaning.assumed and share < _HALF:
        raise DataError(
            f"{text}: what decides would be labels of other classes",
            why="nothing says what their values mean, so they are taken for Cityscapes' 19 classes",
            hint=f"write the class of each value, in their order, into {meaning.file}: {_names(labelled)}",
        )
    return (text,)


def refuse_unfit(labelled: LabelledSet) -> None:
    """Refuse, before anything is trained, labels that :func:`check_counts` refuses in the end; every frame is read.

    Raises:
        DataError: If a frame or label cannot be read or their sizes differ, or too few frames have a labelled pixel.
    """
    _refuse_few(labelled)
    labels = (labelled.pair(index)[1] for index in range(len(labelled)))
    _refuse_untold(sum(bool((label < labelled.classes.num_classes).any()) for label in labels), labelled)


def repeated(labelled: LabelledSet) -> Tuple[str, ...]:
    """What to know of labelled frames that show what another of them shows; empty where each shows something else.

    The jackknife takes each for a draw of its own, so that the interval seems narrower than it is.
    """
    seen: List[np.ndarray] = []
    for index in range(len(labelled)):
        found = glance(labelled.frame(index))
        if not any(same_scene(found, other) for other in seen):
            seen.append(found)
    if len(seen) == len(labelled):
        return ()
    return (
        f"the {len(labelled)} labelled frames of {labelled.address} show {len(seen)} different"
        f" scene{'s' * (len(seen) != 1)}: a scene counts once, so that their labels seem to say more than they do",
    )


def _refuse_few(labelled: LabelledSet) -> None:
    if len(labelled) < LEAST_LABELLED:
        raise DataError(
            f"{labelled.address} has {len(labelled)} labelled frames: they give no interval",
            hint=f"label at least {LEAST_LABELLED}, better five to ten, of different scenes",
        )


def _refuse_untold(told: int, labelled: LabelledSet) -> None:
    """Refuse a set of which so few frames have a labelled pixel."""
    if not told:
        raise DataError(
            f"no pixel of {labelled.address} is labelled with a class of the models",
            hint=labelled.check_command,
        )
    if told < LEAST_LABELLED:
        raise DataError(
            f"{told} of the {len(labelled)} frames of {labelled.address} have a labelled pixel: no interval follows",
            hint=f"label at least {LEAST_LABELLED}, better five to ten; what is there: {labelled.check_command}",
        )


def _names(labelled: LabelledSet) -> str:
    return f'{{"names": {json.dumps(list(labelled.classes.names), ensure_ascii=False)}}}, where these are the ones'


def check_counts(mask: Callable[[np.ndarray, Tuple[int, int]], np.ndarray], labelled: LabelledSet) -> np.ndarray:
    """Confusion matrices int64 (N, C, C) of a network on labelled frames; rows are true classes.

    A frame without a labelled pixel says nothing and is left out, of every network the same.

    Args:
        mask: Gives the mask, uint8, of a frame at a height and width, of the set's classes and no other value.
        labelled: Frames and labels.

    Raises:
        DataError: If a frame or label cannot be read, or too few frames have a labelled pixel.
    """
    _refuse_few(labelled)
    found: List[np.ndarray] = []
    for index in range(len(labelled)):
        frame, label = labelled.pair(index)
        counts = ConfusionMatrix(labelled.classes.num_classes)
        counts.add(label, mask(frame, (label.shape[0], label.shape[1])))
        found.append(counts.counts)
    told = [counts for counts in found if counts.any()]  # the others would pass for frames on which networks are equal
    _refuse_untold(len(told), labelled)
    return np.stack(told)


def miou_of(counts: np.ndarray) -> float:
    """Mean IoU, 0..1, of one confusion matrix (C, C), over the classes that the labels hold."""
    hit, true = np.diag(counts), counts.sum(axis=1)
    there = true > 0
    union = (true + counts.sum(axis=0) - hit)[there]
    return float((hit[there] / union).mean()) if there.any() else 0.0


def paired(one: np.ndarray, other: np.ndarray) -> Paired:
    """Compare two networks by their confusion matrices (N, C, C) on the same frames.

    Source: Tukey's jackknife; Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    count = len(one)
    totals = one.sum(axis=0), other.sum(axis=0)
    scores = 100 * miou_of(totals[0]), 100 * miou_of(totals[1])
    whole = scores[0] - scores[1]
    without = np.asarray(
        [100 * (miou_of(totals[0] - a) - miou_of(totals[1] - b)) for a, b in zip(one, other)], dtype=np.float64
    )
    error = float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))
    reach = _quantile(count - 1) * error
    return Paired(count, scores, whole, whole - reach, whole + reach, error, float(without.min()))


def _quantile(freedom: int) -> float:
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom
