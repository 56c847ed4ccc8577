"""TensorRT engines from ONNX files: one function for TensorRT 8.5 (a Xavier's) to 11 (a desktop's).

Runs where the engine will run: on Python 3.8 with TensorRT and numpy, without torch and onnx. The names below are
loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_export.tensorrt.builder import EngineFile as EngineFile
    from rtda_export.tensorrt.builder import engine_from_onnx as engine_from_onnx
    from rtda_export.tensorrt.cache import engine_path as engine_path
    from rtda_export.tensorrt.dla import DlaCoverage as DlaCoverage
    from rtda_export.tensorrt.library import this_machine as this_machine
    from rtda_export.tensorrt.progress import BuildProgress as BuildProgress

__all__ = ["BuildProgress", "DlaCoverage", "EngineFile", "engine_from_onnx", "engine_path", "this_machine"]

_HOMES = {
    "BuildProgress": "rtda_export.tensorrt.progress",
    "DlaCoverage": "rtda_export.tensorrt.dla",
    "EngineFile": "rtda_export.tensorrt.builder",
    "engine_from_onnx": "rtda_export.tensorrt.builder",
    "engine_path": "rtda_export.tensorrt.cache",
    "this_machine": "rtda_export.tensorrt.library",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
