"""What an export is asked for, with the model it starts from, and whether it ends in an engine.

Decided here, before work starts; what cannot be is refused, and why there is no engine is told.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Optional, Tuple, Union

from rtda_deploy.errors import ConfigError, DeviceError, ExportError, SpecError
from rtda_deploy.files import readable_file, writable_folder
from rtda_deploy.model_files import is_checkpoint_name
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_deploy.optional import available, require
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.allowed import check_size
from rtda_export.options import ExportOptions
from rtda_export.precision import ENGINE_DEFAULT, FP32, PRECISIONS, Precision, listed, precision_of_file

__all__ = ["EnginePlan", "Request", "checked_request", "engine_plan", "why_no_bf16"]


@dataclasses.dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        parent: The file it starts from.
        folder: Where files go.
        stem: Of their names.
        options: What was asked for.
        spec: Instead of the file's own. What is made of a checkpoint carries it; nothing else needs it then.
        own: Precision of an ``.onnx`` that is given; float32 for a checkpoint.
        trained_hw: Size that a checkpoint was trained at, where it is exported at one of its own; else None.
    """

    parent: Path
    folder: Path
    stem: str
    options: ExportOptions
    spec: Optional[ModelSpec]
    own: Precision
    trained_hw: Optional[Tuple[int, int]] = None

    @property
    def engine_precision(self) -> Precision:
        """What an engine is built in."""
        return self.options.chosen or (self.own if self.own.reduced else ENGINE_DEFAULT)

    @property
    def spec_of_parent(self) -> Optional[ModelSpec]:
        """What replaces the spec of an ``.onnx`` that is given; None for a checkpoint: its ONNX has the right one."""
        return None if self.from_checkpoint else self.spec

    @property
    def from_checkpoint(self) -> bool:
        """Whether it starts from a checkpoint rather than an ``.onnx``."""
        return is_checkpoint_name(self.parent)

    @property
    def in_place(self) -> bool:
        """Whether an ``.onnx`` that nothing is made of would be written over by itself."""
        return (self.folder / self.parent.name).resolve() == self.parent.resolve()

    def file(self, precision: Precision = FP32) -> Path:
        """Final name of the ONNX file of a precision: ``best.onnx``, ``best.fp16.onnx``, ``best.cpu.int8.onnx``."""
        ending = f".{precision.ending(self.options.target)}" if precision.reduced else ""
        return self.folder / f"{self.stem}{ending}.onnx"


def checked_request(model: Union[str, Path], options: ExportOptions) -> Request:
    """The request, if the model goes with the options and its files can be read and written.

    Raises:
        RtdaError: Otherwise, as ``export_model`` says.
    """
    parent = readable_file(model, what="model")
    from_onnx = parent.suffix.lower() == ".onnx"
    if not from_onnx and not is_checkpoint_name(parent):
        raise ExportError(f"{parent.name} is no model that can be exported", hint="known: .pth of train, or .onnx")
    request = Request(
        parent=parent,
        folder=parent.parent if options.out_dir is None else Path(options.out_dir),
        stem=options.name or _stem(parent),
        options=options,
        spec=None if options.spec_path is None else ModelSpec.load(options.spec_path),
        own=_own_precision(parent) if from_onnx else FP32,
    )
    _check_precision(request)
    _check_footage(request)
    if from_onnx:
        _check_onnx(request)
    else:
        request = _check_checkpoint(request)
    _check_data(request)
    writable_folder(request.folder)
    return request


def _stem(parent: Path) -> str:
    """``best.pth.tar`` -> ``best``; ``best.fp16.onnx`` -> ``best``, so that its engine is ``best.fp16.engine``."""
    if parent.suffix.lower() != ".onnx":
        return Path(parent.stem).stem if parent.suffix.lower() == ".tar" else parent.stem
    endings = (f".{ending}" for precision in PRECISIONS if precision.reduced for ending in precision.endings)
    found = next((ending for ending in endings if parent.stem.endswith(ending)), "")
    return parent.stem[: len(parent.stem) - len(found)]


def _own_precision(path: Path) -> Precision:
    try:
        return precision_of_file(read_onnx_facts(path))
    except ExportError:
        return FP32  # reading it for the export raises the error with its reason


def _check_precision(request: Request) -> None:
    chosen, own = request.options.chosen, request.own
    if own.reduced and chosen not in (None, own):
        raise ConfigError(
            f"{request.parent.name} is {own.name} already; no {request.options.precision} file or engine is made of it",
            hint=f"start from the fp32 file: rtda-deploy export {request.stem}.onnx "
            f"--precision {request.options.precision}",
        )
    if chosen is None or chosen is own:
        return
    if chosen.needs_calibration and request.options.calibrate is None:
        raise ConfigError(
            f"{chosen.title} needs pictures to calibrate on",
            why="the range of every layer is measured on what the robot sees",
            hint="--calibrate PATH   (a folder, a video, a bag: some dozens of frames, not those it is verified on)",
        )


def _check_footage(request: Request) -> None:
    options = request.options
    if options.footage is None:
        return
    if request.from_checkpoint and not options.monitor:
        raise ConfigError(
            "--footage is what the shift alarm is calibrated on, and nothing is exported for it",
            hint="--monitor --footage PATH",
        )
    made = options.chosen is not None and options.chosen is not request.own
    if not request.from_checkpoint and (made or options.engine_asked):
        raise ConfigError(
            f"--footage is written into {request.parent.name}'s own card, not into what is made of it",
            why="each file is calibrated on its own signals, and an engine takes the card of its .onnx",
            hint=f"rtda-deploy export {request.parent.name} --to onnx --footage PATH --out FOLDER, then make the other",
        )


def _check_data(request: Request) -> None:
    chosen = request.options.chosen
    if request.options.data is None or (chosen is not None and chosen.reduced):
        return
    why = why_no_bf16(request)
    if why:
        reduced = [precision for precision in PRECISIONS if precision.reduced]
        raise ConfigError(
            f"--data scores an {listed(p.title for p in reduced)} file, or the float32 one in bfloat16",
            why=f"the float32 file is not verified in bfloat16: {why}",
            hint=f"--precision {listed(p.name for p in reduced)}; else: rtda-deploy eval",
        )


def why_no_bf16(request: Request) -> str:
    """Why a float32 file of this export is not verified in bfloat16, for people; empty where it is."""
    from rtda_runtime.engines.auto import contest_wanted
    from rtda_runtime.engines.bf16 import bf16_here

    options = request.options
    made = (options.chosen is not None and options.chosen.reduced) or options.engine_asked
    if request.own.reduced or (made and not request.from_checkpoint):
        return "none is written"
    if not request.from_checkpoint and request.in_place and not options.force:
        return "none is written (--out FOLDER)"
    if options.batch > 1 or options.output not in ("logits", "mask"):
        return "it is for other programs"
    if not contest_wanted():
        return "RTDA_CONTEST says that auto measures nothing"
    if not available("openvino"):
        return "OpenVINO is not installed"
    return "" if bf16_here() else "this processor does not compute in bfloat16"


def _check_checkpoint(request: Request) -> Request:
    """The request, with the size that the checkpoint was trained at where another is asked for."""
    require("torch", extra="export", purpose="to export a checkpoint")
    options = request.options
    if options.size_hw is None and options.input == "float32":
        return request
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

    checkpoint = read_checkpoint(request.parent, spec=request.spec)
    try:
        checkpoint.spec.replace(input=options.input, layout=options.input_layout)
    except SpecError as err:  # it is letterboxed
        raise ConfigError(err.message, why=err.why, hint=err.hint) from err
    if options.size_hw is None:
        return request
    check_size(options.size_hw, model_from_checkpoint(checkpoint).size_multiple)
    return dataclasses.replace(request, trained_hw=checkpoint.spec.size_hw)


def _check_onnx(request: Request) -> None:
    options = request.options
    built_in = {
        "--for": "program",
        "--size": "size_hw",
        "--opset": "opset",
        "--input": "input",
        "--layout": "layout",
        "--output": "output",
        "--confidence": "confidence",
        "--batch": "batch",
        "--no-rewrite": "rewritten",
        "--monitor": "monitor",
    }
    for option, field in built_in.items():
        if getattr(options, field) != getattr(ExportOptions, field):
            raise ConfigError(
                f"{option} cannot be changed in {request.parent.name}: it is part of an .onnx file",
                hint=f"export the checkpoint it came from: rtda-deploy export ckpt.pth {option} ...",
            )
    if (options.chosen is not None and options.chosen.reduced) or options.engine_asked:
        inputs = read_onnx_facts(request.parent).inputs
        batch = (inputs[0].shape or (None,))[0] if inputs else None
        if batch != 1:
            raise ConfigError(
                f"{request.parent.name} takes {batch or 'any number of'} pictures at a time",
                why="precisions and engines are measured one picture at a time",
                hint="give the checkpoint: rtda-deploy export ckpt.pth --precision ... --batch N",
            )


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
