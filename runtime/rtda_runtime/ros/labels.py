"""What the values of a mask mean, as ``vision_msgs/LabelInfo`` has it, and as JSON for where that does not exist."""

from __future__ import annotations

import dataclasses
import json
from typing import Tuple

from rtda_deploy.spec import ModelSpec
from rtda_runtime.ros.images import Header

__all__ = ["LabelInfo", "VisionClass", "label_info"]


@dataclasses.dataclass(frozen=True)
class VisionClass:
    """``vision_msgs/VisionClass``."""

    class_id: int
    class_name: str


@dataclasses.dataclass(frozen=True)
class LabelInfo:
    """``vision_msgs/LabelInfo``, with the palette beside it, for which the message has no field.

    Attributes:
        header: Stamp of the publication; no coordinate frame.
        class_map: One entry per class of the model, or per group of classes. 255 in a mask means unlabelled, as the
            message's own text says.
        threshold: Least confidence of a pixel; 0: every pixel gets its likeliest class.
        palette: RGB per class.
        ignore_index: What the model calls unlabelled.
    """

    header: Header
    class_map: Tuple[VisionClass, ...]
    threshold: float
    palette: Tuple[Tuple[int, int, int], ...]
    ignore_index: int

    def to_json(self) -> str:
        """For a ``std_msgs/String``: the message's fields, ``color`` beside each class, ``unlabeled``."""
        classes = [
            {"class_id": one.class_id, "class_name": one.class_name, "color": list(colour)}
            for one, colour in zip(self.class_map, self.palette)
        ]
        return json.dumps(
            {"class_map": classes, "threshold": self.threshold, "unlabeled": self.ignore_index}, ensure_ascii=False
        )


def label_info(spec: ModelSpec, header: Header) -> LabelInfo:
    """The classes of a model; with :attr:`Segmenter.spec`, the groups that its masks speak of."""
    classes = tuple(VisionClass(index, name) for index, name in enumerate(spec.class_names))
    return LabelInfo(header, classes, 0.0, spec.palette, spec.ignore_index)
