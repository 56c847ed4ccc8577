"""Scores of a model file on a labelled set: a ``.pth``, an ``.onnx`` and an engine go through the same code.

Frames are prepared and masks made by the runtime's own functions, so the figure is the robot's. Needs neither
torch nor onnx for a file that the runtime runs. The best and the worst picture are kept, small enough for a page.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.spec import ModelSpec
from rtda_export.parity.networks import open_network
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.preprocess import Preprocessor, content_box
from rtda_training.labels import IGNORE_INDEX, ClassList, describe_join, join_by_name, join_classes, needs_declared_join
from rtda_training.metrics import ConfusionMatrix, Scores
from rtda_training.readers import LabelledSet

__all__ = ["Evaluation", "Extremes", "JoinedClasses", "ScoredPicture", "evaluate"]

_WIDTH = 640  # pixels; wider ones are reduced


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredPicture:
    """One picture, what the model made of it, and the truth; all of one size.

    Attributes:
        name: What the set calls it.
        right: Share of its scored pixels that have the right class.
        frame: uint8 (h, w, 3) BGR.
        mask: uint8 (h, w), the predicted class of the scored ones.
        truth: uint8 (h, w), 255 where nothing is scored.
    """

    name: str
    right: float
    frame: np.ndarray
    mask: np.ndarray
    truth: np.ndarray


class Extremes:
    """Looks at every picture and keeps two of them."""

    def __init__(self) -> None:
        self._worst: Optional[ScoredPicture] = None
        self._best: Optional[ScoredPicture] = None

    def add(self, name: str, frame: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> None:
        """Look at a picture; ``mask`` and ``truth`` are of one size. One without a scored pixel is passed over."""
        scored = truth != IGNORE_INDEX
        if not scored.any():
            return
        right = float((mask == truth)[scored].mean())
        worst = self._worst is None or right < self._worst.right
        best = self._best is None or right > self._best.right
        if worst or best:
            picture = ScoredPicture(name, right, *_small(frame, mask, truth))
            self._worst = picture if worst else self._worst
            self._best = picture if best else self._best

    def pictures(self) -> Tuple[ScoredPicture, ...]:
        """The worst and the best; one where they are the same, none where nothing was scored."""
        found: List[ScoredPicture] = []
        for picture in (self._worst, self._best):
            if picture is not None and not any(picture is other for other in found):
                found.append(picture)
        return tuple(found)


def _small(frame: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    cv2: Any = opencv("to show pictures")
    height, width = truth.shape
    size_wh = (min(width, _WIDTH), max(1, round(height * min(width, _WIDTH) / width)))
    small = cv2.resize(frame, size_wh, interpolation=cv2.INTER_AREA)
    masks = (cv2.resize(array, size_wh, interpolation=cv2.INTER_NEAREST) for array in (mask, truth))
    return (small, *masks)


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
        }


def evaluate(
    model: Union[str, Path],
    data: LabelledSet,
    *,
    spec: Optional[ModelSpec] = None,
    max_pictures: int = 0,
    provider: str = "",
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
        progress: Called with (done, total).

    Raises:
        DataError: If the model knows none of the set's classes, no pixel is labelled with one, or a pair does not fit.
    """
    with open_network(model, spec=spec, provider=provider) as network:
        classes = JoinedClasses(network.spec, data, model)
        confusion = ConfusionMatrix(len(classes.scored.names))
        prepare = Preprocessor(network.spec)
        image = np.empty((1, 3, *network.spec.size_hw), np.float32)
        count = min(len(data), max_pictures or len(data))
        extremes = Extremes()
        labelled, held = 0, np.zeros(256, np.int64)
        for done, index in enumerate(np.linspace(0, len(data) - 1, count).round().astype(int)):
            frame, stored, pixels = data.counted_pair(int(index))
            labelled += pixels
            held += np.bincount(stored.ravel(), minlength=256)
            label = classes.of_label[stored]
            prepare(frame, image)
            box = content_box((frame.shape[0], frame.shape[1]), network.spec)
            predicted = network.mask(network.answer(image), (label.shape[0], label.shape[1]), box=box)
            mask = predicted if classes.of_mask is None else classes.of_mask[predicted]
            confusion.add(label, mask)
            extremes.add(data.name(int(index)), frame, mask, label)
            if progress is not None:
                progress(done + 1, count)
        scores = confusion.scores(classes.scored.names)
        if not scores.pixels:
            raise _nothing_scored(data, count, labelled, classes)
        return Evaluation(
            model=str(model),
            data=str(data.address),
            pictures=count,
            scores=scores,
            confusion=confusion.counts,
            spec=network.spec,
            palette=tuple(classes.scored.palette),
            extremes=extremes.pictures(),
            joined=classes.joined,
            label_counts=held[: data.classes.num_classes],
            labelled=labelled,
            without_partner=classes.without_partner,
        )


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
