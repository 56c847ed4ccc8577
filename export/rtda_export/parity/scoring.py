"""Scores of a model file on a labelled set: a ``.pth``, an ``.onnx`` and an engine go through the same code.

Frames are prepared and masks made by the runtime's own functions, so the figure is the robot's. Needs neither
torch nor onnx for a file that the runtime runs.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.spec import ModelSpec
from rtda_export.parity.extremes import Extremes, ScoredPicture
from rtda_export.parity.figures import Boundaries, Calibration, GroupScores, group_scores
from rtda_export.parity.networks import Network, open_network
from rtda_runtime.mask.groups import ClassGroups
from rtda_runtime.mask.preprocess import Preprocessor, content_box, network_input
from rtda_training.judge.flicker import Flicker
from rtda_training.labels import IGNORE_INDEX, ClassList, describe_join, join_by_name, join_classes, needs_declared_join
from rtda_training.metrics import ConfusionMatrix, Scores, as_percent
from rtda_training.readers import LabelledSet

__all__ = ["Evaluation", "JoinedClasses", "evaluate"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model reached on a set.

    Attributes:
        model: The file.
        data: Address of the set.
        pictures: Number of pictures scored.
        scores: IoU per class and pixel accuracy; the model's classes, or the data's where masks were joined into them.
        confusion: int64 (C, C), rows are true classes, columns predicted ones.
        spec: The model's contract.
        palette: RGB of each scored class.
        extremes: The picture with the smallest share of right pixels, and the one with the largest; one where there is
            only one.
        joined: What was joined into the other side's classes, ``masks`` or ``labels``, and how; None where model and
            data have the same classes, or classes of the same names.
        label_counts: int64 (classes of the data,): pixels of each in the labels.
        labelled: Number of labelled pixels, in whatever class; ``scores`` are over those whose class is scored.
        without_partner: Classes of the ``data`` that the model has no partner for, whose pixels are not scored, and
            classes of the ``model`` that the data has none for, which are never right.
        by_picture: int64 (pictures, C, C + 1): pixels of each picture by true and predicted class, the last column of
            predictions that are none of the classes.
        boundary: Boundary F1 by class, 0..1; NaN for one without a boundary in the labels.
        calibration_error: 0..1; NaN for a model that gives masks only.
        groups: What was asked for by ``groups``.
        flicker: How its masks change on consecutive footage, and the footage's address; None where it was not measured.
    """

    model: str
    data: str
    pictures: int
    scores: Scores
    confusion: np.ndarray
    spec: ModelSpec
    palette: Tuple[Tuple[int, int, int], ...]
    extremes: Tuple[ScoredPicture, ...]
    joined: Optional[Tuple[str, str]] = None
    label_counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    labelled: int = 0
    without_partner: Mapping[str, Tuple[str, ...]] = dataclasses.field(default_factory=dict)
    by_picture: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))
    boundary: Tuple[float, ...] = ()
    calibration_error: float = math.nan
    groups: Tuple[GroupScores, ...] = ()
    flicker: Optional[Tuple[Flicker, str]] = None

    def boundary_f1(self, chosen: Optional[Sequence[int]] = None) -> float:
        """Mean over the classes that have a boundary in the labels, 0..1; NaN of none."""
        values = [self.boundary[index] for index in (range(len(self.boundary)) if chosen is None else chosen)]
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    @property
    def scored_percent(self) -> float:
        """Share of the labelled pixels that was scored, in percent."""
        return 100.0 * self.scores.pixels / self.labelled if self.labelled else 0.0

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``eval --json`` prints: model, data, pictures, the join, and the scores in percent."""
        joined = {"what": self.joined[0], "how": self.joined[1]} if self.joined else None
        return {
            "model": self.model,
            "data": self.data,
            "pictures": self.pictures,
            "joined": joined,
            "labelled_pixels": self.labelled,
            "scored_percent": round(self.scored_percent, 2),
            "without_partner": {side: list(names) for side, names in self.without_partner.items()},
            **self.scores.to_dict(),
            "boundary_f1": as_percent(self.boundary_f1()),
            "boundary_f1_by_class": {
                name: as_percent(value) for name, value in zip(self.scores.class_names, self.boundary)
            },
            "calibration_error": as_percent(self.calibration_error),
            "groups": {group.name: group.to_dict() for group in self.groups},
            "flicker": {"footage": self.flicker[1], **self.flicker[0].to_dict()} if self.flicker else None,
        }


def evaluate(
    model: Union[str, Path],
    data: LabelledSet,
    *,
    spec: Optional[ModelSpec] = None,
    max_pictures: int = 0,
    provider: str = "",
    groups: Sequence[str] = (),
    progress: Optional[Callable[[int, int], None]] = None,
) -> Evaluation:
    """Score a model on a labelled set, at each label's own size.

    Args:
        model: ``.pth``, ``.onnx`` or an engine; in float32 for the first two.
        data: Pictures and labels. Labels are joined to the model's classes by name, those it does not know are
            ignored. Where classes meet under other names (Cityscapes and CamVid), the finer side is joined into the
            coarser: masks into the data's classes, or labels into the model's.
        spec: Used instead of the file's own.
        max_pictures: Spread evenly over the set; 0: all.
        provider: As for ``open_network``.
        groups: ``NAME=CLASS,CLASS`` of the scored classes: each also scored as one.
        progress: Called with (done, total).

    Raises:
        DataError: If the model knows none of the set's classes, no pixel is labelled with one, or a pair does not fit.
        ConfigError: If a group names no scored class.
    """
    with open_network(model, spec=spec, provider=provider) as network:
        classes = JoinedClasses(network.spec, data, model)
        members = _members(groups, classes)
        count = min(len(data), max_pictures or len(data))
        scoring = _Scoring(network, data, classes)
        for done, index in enumerate(np.linspace(0, len(data) - 1, count).round().astype(int)):
            scoring.add(int(index))
            if progress is not None:
                progress(done + 1, count)
        scores = scoring.confusion.scores(classes.scored.names)
        if not scores.pixels:
            raise _nothing_scored(data, count, scoring.labelled, classes)
        by_picture = np.stack(scoring.by_picture)
        return Evaluation(
            model=str(model),
            data=str(data.address),
            pictures=count,
            scores=scores,
            confusion=scoring.confusion.counts,
            spec=network.spec,
            palette=tuple(classes.scored.palette),
            extremes=scoring.extremes.pictures(),
            joined=classes.joined,
            label_counts=scoring.held[: data.classes.num_classes],
            labelled=scoring.labelled,
            without_partner=classes.without_partner,
            by_picture=by_picture,
            boundary=scoring.boundaries.f1(),
            calibration_error=scoring.calibration.error(),
            groups=tuple(group_scores(name, chosen, by_picture.sum(axis=0)) for name, chosen in members.items()),
        )


class _Scoring:
    """One model on one set, picture by picture."""

    def __init__(self, network: Network, data: LabelledSet, classes: JoinedClasses) -> None:
        self._network, self._data, self._classes = network, data, classes
        self._prepare = Preprocessor(network.spec)
        self._image = network_input(network.spec)
        number = len(classes.scored.names)
        self.confusion = ConfusionMatrix(number)
        self.boundaries = Boundaries(number)
        self.calibration = Calibration(classes.of_mask)
        self.extremes = Extremes()
        self.by_picture: List[np.ndarray] = []
        self.labelled, self.held = 0, np.zeros(256, np.int64)

    def add(self, index: int) -> None:
        """Run the model on a picture and count."""
        spec, of_mask = self._network.spec, self._classes.of_mask
        frame, stored, pixels = self._data.counted_pair(index)
        self.labelled += pixels
        self.held += np.bincount(stored.ravel(), minlength=256)
        label = self._classes.of_label[stored]
        self._prepare(frame, self._image)
        box = content_box((frame.shape[0], frame.shape[1]), spec)
        answer = self._network.answer(self._image)
        predicted = self._network.mask(answer, (label.shape[0], label.shape[1]), box=box)
        mask = predicted if of_mask is None else of_mask[predicted]
        self.by_picture.append(self.confusion.of(label, mask))
        self.confusion.add_counts(self.by_picture[-1])
        self.boundaries.add(label, mask)
        if spec.output == "logits":
            top, left, height, width = (side / spec.output_stride for side in box)
            self.calibration.add(label, answer, (top, left, height, width))
        self.extremes.add(self._data.name(index), frame, mask, label)


def _members(groups: Sequence[str], classes: JoinedClasses) -> Dict[str, List[int]]:
    """Indices of the scored classes of each group that was asked for.

    Raises:
        ConfigError: As ``ClassGroups.parse`` does.
    """
    if not groups:
        return {}
    names = tuple(classes.scored.names)
    made = ClassGroups.parse(groups, ModelSpec((8, 8), names, tuple(classes.scored.palette)))
    asked = [text.partition("=")[0].strip() for text in groups]
    return {
        name: [int(i) for i in np.flatnonzero(made.table[: len(names)] == made.names.index(name))] for name in asked
    }


def _nothing_scored(data: LabelledSet, pictures: int, labelled: int, classes: JoinedClasses) -> DataError:
    if not labelled:
        text = f"no pixel of {pictures} pictures of {data.address} is labelled: nothing can be scored"
        return DataError(text, hint=data.check_command + ("" if data.address.split else " --split test"))
    names = ", ".join(classes.without_partner["data"])
    return DataError(
        f"none of the labelled pixels of {pictures} pictures of {data.address} is of a class that the model knows",
        hint=f"classes are joined by name; these have no partner: {names}",
    )


class JoinedClasses:
    """The classes that are scored, and the tables that bring labels and masks there.

    Attributes:
        scored: The classes.
        of_label: Index of the scored class by label value; 255: not scored.
        of_mask: The same by the model's own class; None: they are the scored ones.
        joined: What was joined (``masks`` or ``labels``) and how, for people; None: nothing.
        without_partner: Names of classes of the ``data`` and of the ``model`` that the other side does not have.

    Raises:
        DataError: If model and data share no class.
    """

    def __init__(self, spec: ModelSpec, data: LabelledSet, model: Union[str, Path]) -> None:
        own = ClassList(spec.class_names, spec.palette)
        self.scored = own
        self.of_mask: Optional[np.ndarray] = None
        self.joined: Optional[Tuple[str, str]] = None
        if not needs_declared_join(own, data.classes):
            self.of_label = join_by_name(data.classes.names, own.names)
        elif own.num_classes >= data.classes.num_classes:
            self.scored = data.classes
            self.of_label = join_by_name(data.classes.names, data.classes.names)
            self.of_mask = join_classes(own, data.classes)
            self.joined = ("masks", describe_join(own, data.classes))
        else:
            self.of_label = join_classes(data.classes, own)
            self.joined = ("labels", describe_join(data.classes, own))
        if int((self.of_label != 255).sum()) == 0:
            raise DataError(f"{data.address} shares no class name with {model}", hint="see rtda-deploy inspect MODEL")
        of_label, of_mask = self.of_label[: data.classes.num_classes], self.of_mask
        if of_mask is None:  # both are numbers of the model's classes
            data_only = _names(data.classes.names, of_label == IGNORE_INDEX)
            model_only = _names(own.names, ~np.isin(np.arange(own.num_classes), of_label))
        else:  # both are numbers of the data's
            data_only = _names(data.classes.names, ~np.isin(of_label, of_mask[: own.num_classes]))
            model_only = _names(own.names, of_mask[: own.num_classes] == IGNORE_INDEX)
        self.without_partner = {"data": (*data.without_partner, *data_only), "model": model_only}


def _names(names: Sequence[str], chosen: np.ndarray) -> Tuple[str, ...]:
    return tuple(name for name, taken in zip(names, chosen) if taken)
