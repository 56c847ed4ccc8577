"""What an export is asked for, and everything about it that can be refused before work starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence, Tuple, Union

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.files import readable_file, writable_folder
from rtda_deploy.model_files import is_checkpoint_name
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec

if TYPE_CHECKING:
    from rtda_training.readers import LabelledSet

__all__ = ["DEFAULT_OPSET", "PRECISIONS", "TARGETS", "EngineOptions", "Request", "checked_request"]

DEFAULT_OPSET = 17
TARGETS = ("onnx", "engine")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """How TensorRT builds; as the arguments of ``engine_from_onnx``.

    Attributes:
        workspace_mib: Scratch memory for tactics; None: TensorRT's own limit.
        tactic_sources: Libraries that tactics may come from; None: TensorRT's own choice, empty: none of them.
        optimization_level: 0 (quick to build) to 5 (quick to run), where this TensorRT has it; None: its own.
        dla_core: Deep Learning Accelerator to use, experimental; None: the GPU.
        rebuild: Build although an engine with the same key is there.
    """

    workspace_mib: Optional[int] = None
    tactic_sources: Optional[Tuple[str, ...]] = None
    optimization_level: Optional[int] = None
    dla_core: Optional[int] = None
    rebuild: bool = False


@dataclasses.dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        parent: The file it starts from.
        folder: Where files go.
        stem: Of their names.
        to: Of ``TARGETS``; None: the ONNX, and an engine where one can be built.
        precision: Of ``PRECISIONS``; None: fp32 in the ONNX, fp16 in the engine.
        size_hw: Input size; None: as trained.
        opset: Of the ONNX.
        output: ``logits`` or ``mask``.
        confidence: Second output of a mask.
        batch: Pictures at a time.
        rewritten: Whether the graph is rewritten to fewer operations.
        verify_path: Pictures to verify on; None: those stored beside the model.
        calibrate: Pictures to calibrate INT8 on.
        int8_target: What the INT8 file is for: ``tensorrt`` or ``cpu``.
        data: Labelled pictures that INT8 and FP16 are scored on.
        spec: Instead of the file's own. What is made of a checkpoint carries it; nothing else needs it then.
        own: Precision of an ``.onnx`` that is given; ``fp32`` for a checkpoint.
        force: Keep files past their limit.
        engine: How an engine is built.
    """

    parent: Path
    folder: Path
    stem: str
    to: Optional[Tuple[str, ...]]
    precision: Optional[str]
    size_hw: Optional[Tuple[int, int]]
    opset: int
    output: str
    confidence: bool
    batch: int
    rewritten: bool
    verify_path: Optional[Union[str, Path]]
    calibrate: Optional[Union[str, Path]]
    int8_target: str
    data: Optional[LabelledSet]
    spec: Optional[ModelSpec]
    own: str
    force: bool
    engine: EngineOptions

    @property
    def engine_precision(self) -> str:
        """Precision that an engine is built in."""
        return self.precision or ("int8" if self.own == "int8" else "fp16")

    @property
    def spec_of_parent(self) -> Optional[ModelSpec]:
        """What replaces the spec of an ``.onnx`` that is given; None for a checkpoint: its ONNX has the right one."""
        return None if self.from_checkpoint else self.spec

    @property
    def from_checkpoint(self) -> bool:
        """Whether it starts from a checkpoint rather than an ``.onnx``."""
        return is_checkpoint_name(self.parent)

    @property
    def plain(self) -> bool:
        """Whether the file gives coarse logits for one picture, which is what everything is compared by."""
        return self.output == "logits" and self.batch == 1

    def file(self, kind: str) -> Path:
        """Final name: ``onnx``, ``fp16.onnx``, ``int8.onnx``, ``fp16.engine`` and so on."""
        if kind == "int8.onnx" and self.int8_target == "cpu":
            kind = "cpu.int8.onnx"  # TensorRT's is another file
        return self.folder / f"{self.stem}.{kind}"


def checked_request(
    model: Union[str, Path],
    *,
    to: Optional[Sequence[str]],
    precision: Optional[str],
    size_hw: Optional[Tuple[int, int]],
    opset: Optional[int],
    output: str,
    confidence: bool,
    batch: int,
    rewritten: bool,
    verify_path: Optional[Union[str, Path]],
    calibrate: Optional[Union[str, Path]],
    int8_target: str,
    data: Optional[LabelledSet],
    spec_path: Optional[Union[str, Path]],
    force: bool,
    out_dir: Optional[Union[str, Path]],
    name: str,
    engine: EngineOptions,
) -> Request:
    """The request, if it makes sense and its files can be read and written; arguments as of ``export_model``.

    Raises:
        RtdaError: Otherwise, as ``export_model`` says.
    """
    parent = readable_file(model, what="model")
    suffix = parent.suffix.lower()
    if suffix != ".onnx" and not is_checkpoint_name(parent):
        raise ExportError(f"{parent.name} is no model that can be exported", hint="known: .pth of train, or .onnx")
    stem = name or (Path(parent.stem).stem if suffix == ".tar" else parent.stem)  # best.pth.tar -> best.onnx
    for ending in (".fp16", ".cpu.int8", ".int8"):  # model.fp16.onnx -> model.fp16.engine, not model.fp16.fp16.engine
        if not name and suffix == ".onnx" and stem.endswith(ending):
            stem = stem[: -len(ending)]
    request = Request(
        parent=parent,
        folder=parent.parent if out_dir is None else Path(out_dir),
        stem=stem,
        to=None if to is None else tuple(to),
        precision=precision,
        size_hw=size_hw,
        opset=DEFAULT_OPSET if opset is None else opset,
        output=output,
        confidence=confidence,
        batch=batch,
        rewritten=rewritten,
        verify_path=verify_path,
        calibrate=calibrate,
        int8_target=int8_target,
        data=data,
        spec=None if spec_path is None else ModelSpec.load(spec_path),
        own=_own_precision(parent) if suffix == ".onnx" else "fp32",
        force=force,
        engine=engine,
    )
    _check_words(request)
    if request.from_checkpoint:
        _check_checkpoint(request)
    else:
        _check_onnx(request, opset)
    writable_folder(request.folder)
    return request


def _check_words(request: Request) -> None:
    unknown = [name for name in request.to or () if name not in TARGETS]
    if unknown or (request.to is not None and not request.to):
        raise ConfigError(f"unknown --to {','.join(unknown) or '(nothing)'}", hint=f"known: {', '.join(TARGETS)}")
    if request.precision is not None and request.precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {request.precision!r}", hint=f"known: {', '.join(PRECISIONS)}")
    if request.int8_target not in ("tensorrt", "cpu"):
        raise ConfigError(f"unknown target {request.int8_target!r} of INT8", hint="known: tensorrt, cpu")
    if request.own != "fp32" and request.precision not in (None, request.own):
        raise ConfigError(
            f"{request.parent.name} is {request.own} already; no {request.precision} file or engine is made of it",
            hint=f"start from the fp32 file: rtda-deploy export {request.stem}.onnx --precision {request.precision}",
        )
    if request.precision == "int8" and request.calibrate is None and request.own != "int8":
        raise ConfigError(
            "INT8 needs pictures to calibrate on",
            why="the range of every layer is measured on what the robot sees",
            hint="--calibrate PATH   (a folder or a video: some dozens of frames, not those it is verified on)",
        )
    if request.calibrate is not None and request.precision != "int8":
        raise ConfigError("--calibrate goes with INT8 only", hint="--precision int8")
    if request.batch > 1 and "engine" in (request.to or ()):
        raise ConfigError(
            f"an engine for {request.batch} pictures at a time cannot be run or verified here",
            hint="--to onnx, and build it with the program that will run it; or --batch 1",
        )

    _check_engine_words(request)
    if request.data is not None and request.precision not in ("fp16", "int8"):
        raise ConfigError(
            "--data scores an FP16 or INT8 file", hint="--precision fp16, or int8; else: rtda-deploy eval"
        )


def _check_engine_words(request: Request) -> None:
    from rtda_export.tensorrt.settings import BuildSettings

    options = request.engine
    BuildSettings(options.workspace_mib, options.tactic_sources, options.optimization_level)  # refuses unknown words
    if options != EngineOptions() and request.to is not None and "engine" not in request.to:
        raise ConfigError(
            "--workspace, --tactics, --optimization, --dla and --rebuild go with an engine", hint="--to onnx,engine"
        )
    if request.precision == "int8" and request.int8_target == "cpu" and "engine" in (request.to or ()):
        raise ConfigError("an INT8 file for a CPU makes no engine", hint="--int8-target tensorrt, or --to onnx")


def _own_precision(path: Path) -> str:
    try:
        facts = read_onnx_facts(path)
    except ExportError:
        return "fp32"  # whoever reads it says what is wrong with it
    return "int8" if facts.quantized else "fp16" if facts.float16 else "fp32"


def _check_checkpoint(request: Request) -> None:
    require("torch", extra="export", purpose="to export a checkpoint")
    from rtda_export.graph.from_torch import check_opset, check_output, check_size

    check_opset(request.opset)
    check_output(request.output, confidence=request.confidence, batch=request.batch)
    if request.precision in ("fp16", "int8") and request.opset < 13:
        raise ConfigError(f"{request.precision} needs opset 13, this is {request.opset}", hint="--opset 17")
    if request.output == "mask" and request.opset < 13:
        raise ConfigError(f"a mask output needs opset 13, this is {request.opset}", hint="--opset 17")
    if request.size_hw is not None:
        from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

        checkpoint = read_checkpoint(request.parent, spec=request.spec)
        check_size(request.size_hw, model_from_checkpoint(checkpoint).size_multiple)


def _check_onnx(request: Request, opset: Optional[int]) -> None:
    changes = {
        "--size": request.size_hw is not None,
        "--opset": opset is not None,
        "--output": request.output != "logits",
        "--confidence": request.confidence,
        "--batch": request.batch != 1,
        "--no-rewrite": not request.rewritten,
    }
    for option, given in changes.items():
        if given:
            raise ConfigError(
                f"{option} cannot be changed in {request.parent.name}: it is part of an .onnx file",
                hint=f"export the checkpoint it came from: rtda-deploy export ckpt.pth {option} ...",
            )
    if request.precision in ("fp16", "int8") or "engine" in (request.to or ()):
        inputs = read_onnx_facts(request.parent).inputs
        batch = (inputs[0].shape or (None,))[0] if inputs else None
        if batch != 1:
            raise ConfigError(
                f"{request.parent.name} takes {batch or 'any number of'} pictures at a time",
                why="precisions and engines are measured one picture at a time",
                hint="give the checkpoint: rtda-deploy export ckpt.pth --precision ... --batch N",
            )
