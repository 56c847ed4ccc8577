"""The parameters of both nodes that say which network runs, and what its masks speak of."""

from __future__ import annotations

from typing import Any, List, Mapping

from rtda_deploy.spec import ModelSpec
from rtda_runtime.segmenter import Segmenter

__all__ = ["open_segmenter"]


def open_segmenter(parameters: Mapping[str, Any]) -> Segmenter:
    """Open what the parameters name; errors as of :meth:`Segmenter.open`.

    Args:
        parameters: ``model``, ``provider``, ``threads`` (0: one per core), ``spec`` (a file), ``groups`` (such as
            ``["walkable=road,sidewalk"]``), ``region`` (such as ``0,0.5,1,1``) and ``confidence``. Empty
            texts mean none.
    """
    spec, region = str(parameters["spec"]), str(parameters["region"])
    return Segmenter.open(
        str(parameters["model"]),
        str(parameters["provider"]),
        ModelSpec.load(spec) if spec else None,
        int(parameters["threads"]) or None,
        region=region or None,
        groups=_texts(parameters["groups"]),
        confidence=bool(parameters["confidence"]),
    )


def _texts(value: Any) -> List[str]:
    """One text, or a list of them; ROS 2 has no empty lists of texts, so empty texts in it stand for none."""
    return [text for text in ([value] if isinstance(value, str) else map(str, value or ())) if text]
