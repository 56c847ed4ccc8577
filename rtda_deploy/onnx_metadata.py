"""The metadata of an ``.onnx`` file, read without the onnx package and without reading its weights.

Source: onnx/onnx.proto3 (ModelProto, StringStringEntryProto).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Dict, Mapping, Union

from rtda_deploy.border import json_values
from rtda_deploy.errors import EngineError, SpecError
from rtda_deploy.protobuf import BrokenMessage, open_onnx_message
from rtda_deploy.spec import ModelSpec

__all__ = ["PRECISION_KEY", "SPEC_KEY", "precision_from_metadata", "read_onnx_metadata", "spec_from_metadata"]

SPEC_KEY = "rtda.spec"  # name of the ModelSpec in the metadata
PRECISION_KEY = "rtda.precision"  # name of what FP16 rescue and calibration found, JSON

_GRAPH, _METADATA = 7, 14  # fields of ModelProto


def read_onnx_metadata(path: Union[str, Path]) -> Dict[str, str]:
    """The ``metadata_props`` of an ONNX file, key to value; of a key that is there twice, the last.

    Raises:
        EngineError: If it is no whole ONNX file.
        FileAccessError: If it cannot be read.
    """
    with open_onnx_message(path, EngineError) as message:
        found: Dict[str, str] = {}
        has_graph = False
        for number, value in message.fields():
            has_graph = has_graph or number == _GRAPH
            if number == _METADATA:
                key, text = message.inner(value).entry()
                found[key] = text
        if not has_graph:
            raise BrokenMessage("it holds no graph")
        return found


def spec_from_metadata(metadata: Dict[str, str], name: str) -> ModelSpec:
    """The spec in a file's metadata; ``name`` is the file's, for errors.

    Raises:
        SpecError: If there is none, or it is broken.
    """
    text = metadata.get(SPEC_KEY)
    if not text:
        raise SpecError(
            f"{name} says nothing about its classes, mean and size (no {SPEC_KEY} in its metadata)",
            hint=f"rtda-deploy inspect {name} --spec-template > spec.json, fill it in, then write it into a copy: "
            f"rtda-deploy export {name} --spec spec.json --out with-spec",
        )
    return ModelSpec.from_json(text, where=f"{SPEC_KEY} in {name}")


def precision_from_metadata(metadata: Mapping[str, str]) -> Dict[str, Any]:
    """What an export wrote of the file's precision: ``precision``, ``keep_fp32`` or ``kept_float``, and reasons.

    ``{"precision": "fp32"}`` where it wrote nothing that can be read.
    """
    with contextlib.suppress(EngineError):
        found = json_values(metadata.get(PRECISION_KEY, ""), PRECISION_KEY, EngineError, hint="")
        if isinstance(found, dict) and isinstance(found.get("precision", ""), str):
            return {"precision": "fp32", **found}
    return {"precision": "fp32"}
