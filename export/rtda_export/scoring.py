"""Scores of a model file on a labelled set: a ``.pth``, an ``.onnx`` and an engine go through the same code.

Frames are prepared and logits enlarged by the runtime's own functions, so the figure is the robot's. Needs neither
torch nor onnx for a file that the runtime runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple, Union

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.spec import ModelSpec
from rtda_export.networks import open_network
from rtda_runtime.preprocess import Preprocessor
from rtda_runtime.upsample import upsample_argmax
from rtda_training.labels import join_by_name
from rtda_training.metrics import ConfusionMatrix, Scores
from rtda_training.readers import LabelledSet

__all__ = ["Evaluation", "evaluate"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model reached on a set.

    Attributes:
        model: The file.
        data: Address of the set.
        pictures: Number of pictures scored.
        scores: IoU per class and pixel accuracy.
        confusion: int64 (C, C), rows are true classes, columns predicted ones.
        spec: The model's contract.
        worst: Index of the picture with the smallest share of right pixels, and that share.
    """

    model: str
    data: str
    pictures: int
    scores: Scores
    confusion: np.ndarray
    spec: ModelSpec
    worst: Tuple[int, float]

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``eval --json`` prints: model, data, pictures, and the scores in percent."""
        return {"model": self.model, "data": self.data, "pictures": self.pictures, **self.scores.to_dict()}


def evaluate(
    model: Union[str, Path],
    data: LabelledSet,
    *,
    spec: Optional[ModelSpec] = None,
    max_pictures: int = 0,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Evaluation:
    """Score a model on a labelled set, at each label's own size.

    Args:
        model: ``.pth``, ``.onnx`` or an engine; in float32 for the first two.
        data: Pictures and labels; classes are joined to the model's by name, those it does not know are ignored.
        spec: Used instead of the file's own.
        max_pictures: Spread evenly over the set; 0: all.
        progress: Called with (done, total).

    Raises:
        DataError: If the model knows none of the set's classes, or a pair does not fit.
    """
    with open_network(model, spec=spec) as network:
        names = network.spec.class_names
        table = join_by_name(data.classes.names, names)
        if int((table != 255).sum()) == 0:
            raise DataError(f"{data.address} shares no class name with {model}", hint="see rtda-deploy inspect MODEL")
        confusion = ConfusionMatrix(len(names))
        prepare = Preprocessor(network.spec)
        image = np.empty((1, 3, *network.spec.size_hw), np.float32)
        count = min(len(data), max_pictures or len(data))
        worst = (0, 2.0)
        for done, index in enumerate(np.linspace(0, len(data) - 1, count).round().astype(int)):
            frame, stored = data.pair(int(index))
            label = table[stored]
            prepare(frame, image)
            mask = upsample_argmax(network.logits(image), (label.shape[0], label.shape[1]))
            confusion.add(label, mask)
            right = float((mask == label)[label != 255].mean()) if (label != 255).any() else 1.0
            worst = min(worst, (int(index), right), key=lambda entry: entry[1])
            if progress is not None:
                progress(done + 1, count)
        return Evaluation(
            model=str(model),
            data=str(data.address),
            pictures=count,
            scores=confusion.scores(names),
            confusion=confusion.counts,
            spec=network.spec,
            worst=worst,
        )
