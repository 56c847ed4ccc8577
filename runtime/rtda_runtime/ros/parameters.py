"""The parameters of both ROS nodes that say which network runs, and what the values of its masks mean."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from rtda_deploy.spec import ModelSpec
from rtda_runtime.fleet.deployed import deployed_model
from rtda_runtime.pipeline.shadow import open_shadow
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.sources.image_messages import Header

__all__ = ["LabelInfo", "VisionClass", "label_info", "open_candidate", "open_segmenter"]


def open_segmenter(parameters: Mapping[str, Any]) -> Segmenter:
    """Open what the parameters name; errors as of :meth:`Segmenter.open`.

    Args:
        parameters: ``model`` (a file, or ``models/NAME``: what is current there), ``provider``, ``threads`` (0: one per
            core), ``spec`` (a file), ``groups`` (such as ``["walkable=road,sidewalk"]``), ``region`` (such as
            ``0,0.5,1,1``) and ``confidence``. Empty texts mean none.
    """
    return Segmenter.open(
        deployed_model(Path(str(parameters["model"]))),
        str(parameters["provider"]),
        threads=int(parameters["threads"]) or None,
        confidence=bool(parameters["confidence"]),
        **_meaning(parameters),
    )


def open_candidate(parameters: Mapping[str, Any]) -> Optional[AnySegmenter]:
    """Open what ``shadow`` names beside the network, on one CPU thread that gives way; None where it is empty.

    Args:
        parameters: As of :func:`open_segmenter`; ``shadow`` is named as ``model`` is.
    """
    named = str(parameters["shadow"])
    if not named:
        return None
    return open_shadow(deployed_model(Path(named)), str(parameters["provider"]), **_meaning(parameters))


def _meaning(parameters: Mapping[str, Any]) -> Dict[str, Any]:
    """What the values of masks mean, and of which part of a picture they are."""
    spec, region = str(parameters["spec"]), str(parameters["region"])
    groups = _texts(parameters["groups"])
    return {"spec": ModelSpec.load(spec) if spec else None, "region": region or None, "groups": groups}


def _texts(value: Any) -> List[str]:
    """One text, or a list of them; ROS 2 has no empty lists of texts, so empty texts in it stand for none."""
    return [text for text in ([value] if isinstance(value, str) else map(str, value or ())) if text]


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
