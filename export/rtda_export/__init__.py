"""Checkpoint to ONNX to robot, verified at every hop.

The names below are loaded when first used. ``rtda_export.parity`` needs neither torch nor onnx, so that an engine
can be verified on the robot that built it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_export.export import export_model as export_model
    from rtda_export.graph.from_torch import onnx_from_checkpoint as onnx_from_checkpoint
    from rtda_export.parity.compare import verify as verify
    from rtda_export.parity.scoring import evaluate as evaluate
    from rtda_export.roofline.estimator import estimate as estimate
    from rtda_export.tensorrt import engine_from_onnx as engine_from_onnx

__all__ = ["engine_from_onnx", "estimate", "evaluate", "export_model", "onnx_from_checkpoint", "verify"]

_HOMES = {
    "engine_from_onnx": "rtda_export.tensorrt",
    "estimate": "rtda_export.roofline.estimator",
    "evaluate": "rtda_export.parity.scoring",
    "export_model": "rtda_export.export",
    "onnx_from_checkpoint": "rtda_export.graph.from_torch",
    "verify": "rtda_export.parity.compare",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
