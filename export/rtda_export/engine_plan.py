"""Whether an export ends in an engine, and what it says where it does not; decided before work starts."""

from __future__ import annotations

import dataclasses
from typing import Tuple

from rtda_deploy.errors import DeviceError
from rtda_deploy.optional import require
from rtda_export.precision import FP32
from rtda_export.request import Request

__all__ = ["EnginePlan", "engine_plan"]


@dataclasses.dataclass(frozen=True)
class EnginePlan:
    """Whether an engine is built.

    Attributes:
        wanted: It is.
        typed: This TensorRT takes its precision from the file, so that fp16 needs an ONNX of its own (11 and later).
        machine: TensorRT and GPU for people; empty where there is none.
        notes: Why there is none, and the command for the robot; empty where there is one or none was wanted.
    """

    wanted: bool
    typed: bool = False
    machine: str = ""
    notes: Tuple[str, ...] = ()


def engine_plan(request: Request) -> EnginePlan:
    """Decide before work starts whether this export ends in an engine.

    Raises:
        DeviceError: If an engine was asked for and cannot be built here.
    """
    options = request.options
    if options.to is not None and not options.engine_asked:
        return EnginePlan(False)
    from rtda_export.tensorrt.dialects import dialect_of
    from rtda_export.tensorrt.library import load_tensorrt, machine_of

    later = _later(request)
    if options.batch > 1:
        return EnginePlan(False, notes=(f"no engine: {options.batch} pictures at a time are for other programs",))
    if options.target == "cpu":
        return EnginePlan(False)
    try:
        trt = load_tensorrt()
        here = machine_of(trt)
    except DeviceError as err:
        if not options.engine_asked:
            return EnginePlan(
                False, notes=(f"no engine: {err.message}; on the robot, with verify/ beside it: {later}",)
            )
        raise DeviceError(
            f"no engine can be built: {err.message}",
            why="an engine runs only on the kind of GPU it was built on, so it is built on the robot, from the .onnx"
            + (f" ({err.why})" if err.why else ""),
            hint=f"on the robot, with verify/ beside it: {later}; here: rtda-deploy export {request.parent} --to onnx"
            + (f"; to build here: {err.hint}" if err.hint else ""),
        ) from err
    require("onnxruntime", extra="runtime", purpose="to verify the engine against its .onnx")
    return EnginePlan(True, not dialect_of(trt).flags, f"TensorRT {here.tensorrt}, {here.gpu}")


def _later(request: Request) -> str:
    """What to type on the robot."""
    chosen, options = request.options.chosen, request.options
    if chosen is not None and chosen.reduced and not chosen.engine.from_float32 and chosen is not request.own:
        source = request.file(chosen).name  # its precision is in the file
    else:
        source = request.file().name if request.from_checkpoint else request.parent.name
    words = f"rtda-deploy export {source} --to engine"
    if chosen is FP32:
        words += f" --precision {chosen.name}"
    if options.engine.dla_core is not None:
        words += f" --dla {options.engine.dla_core}"
    return words
