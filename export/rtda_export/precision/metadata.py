"""``rtda.precision``: what making a file of lower precision found, in the metadata of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtda_deploy.border import json_values
from rtda_deploy.errors import ExportError
from rtda_deploy.onnx_file import PRECISION_KEY
from rtda_deploy.optional import require

__all__ = ["note_precision", "precision_of", "with_precision"]


def with_precision(model: Any, facts: Mapping[str, Any]) -> Any:
    """Write ``rtda.precision`` into a model's metadata, in place; everything else there is kept.

    Args:
        model: ``onnx.ModelProto``.
        facts: JSON values. ``precision``: ``fp16`` or ``int8``; ``keep_fp32``: names of the nodes that must be
            computed in float32; ``keep_float``: of an int8 file, those that are float, be it 32 or 16; ``why``: reason
            by name; ``bf16``: of a float32 file, see ``rtda_runtime.engines.bf16.Verified``; more as the writer knows
            it, see ``Rescue.to_dict`` and ``Quantized.to_dict``.
    """
    kept = {entry.key: entry.value for entry in model.metadata_props}
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)
    require("onnx", extra="export").helper.set_model_props(model, {**kept, PRECISION_KEY: text})
    return model


def note_precision(path: Path, facts: Mapping[str, Any]) -> None:
    """Write ``facts`` into ``rtda.precision`` of a file, beside what stands there; a value of None takes it out."""
    from rtda_deploy.files import write_bytes
    from rtda_export.graph.from_torch import read_onnx

    model = read_onnx(path)
    merged = {**precision_of(model), **facts}
    with_precision(model, {key: value for key, value in merged.items() if value is not None})
    write_bytes(path, model.SerializeToString(deterministic=True))


def precision_of(model: Any) -> dict[str, Any]:
    """What ``rtda.precision`` says; ``{"precision": "fp32"}`` where there is none.

    Raises:
        ExportError: If it is there and no JSON object.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == PRECISION_KEY), "")
    where = f"{PRECISION_KEY} in the metadata"
    facts = json_values(text, where, ExportError, hint="export the model again") if text else {"precision": "fp32"}
    if not isinstance(facts, dict):
        raise ExportError(f"{PRECISION_KEY} in the metadata is no JSON object", hint="export the model again")
    return facts
