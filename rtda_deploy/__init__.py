"""rtda-deploy: adapt a real-time segmentation network to a real robot, export it, run it.

The names below are loaded when first used; ``import rtda_deploy`` itself loads none of torch, OpenCV or ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy
from rtda_deploy.telemetry import silence

if TYPE_CHECKING:
    from rtda_deploy.errors import RtdaError as RtdaError
    from rtda_deploy.spec import ModelSpec as ModelSpec
    from rtda_export import onnx_from_checkpoint as onnx_from_checkpoint
    from rtda_export import verify as verify
    from rtda_runtime import Pipeline as Pipeline
    from rtda_runtime import Segmenter as Segmenter
    from rtda_runtime import open_source as open_source

__version__ = "0.1.0"

__all__ = ["ModelSpec", "Pipeline", "RtdaError", "Segmenter", "onnx_from_checkpoint", "open_source", "verify"]

_HOMES = {
    "ModelSpec": "rtda_deploy.spec",
    "Pipeline": "rtda_runtime",
    "RtdaError": "rtda_deploy.errors",
    "Segmenter": "rtda_runtime",
    "onnx_from_checkpoint": "rtda_export",
    "open_source": "rtda_runtime",
    "verify": "rtda_export",
}

silence()  # here, because nothing of ours and no library that we ask for is loaded before

__getattr__, __dir__ = lazy(__name__, _HOMES)
