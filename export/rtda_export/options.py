"""The options of an export: what the command line and a program ask for, checked before any file is looked at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence, Tuple, Union

from rtda_deploy.errors import ConfigError
from rtda_export.graph.allowed import OPSETS, check_input, check_mask_opset, check_opset, check_output
from rtda_export.precision import ENGINE_DEFAULT, INT8, PRECISIONS, Precision, listed, precision_named
from rtda_export.programs import program_named
from rtda_export.tensorrt.settings import BuildSettings

if TYPE_CHECKING:
    from rtda_training.readers import LabelledSet

__all__ = ["KINDS", "EngineOptions", "ExportOptions"]

KINDS = ("onnx", "engine")  # what an export can write


@dataclasses.dataclass(frozen=True)
class EngineOptions(BuildSettings):
    """How TensorRT builds; as the arguments of ``engine_from_onnx``.

    Attributes:
        dla_core: Deep Learning Accelerator to use, experimental; None: the GPU.
        rebuild: Build although an engine with the same key is there.
    """

    dla_core: Optional[int] = None
    rebuild: bool = False


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What :func:`rtda_export.export_model` makes of a model, and how.

    Attributes:
        to: ``onnx``, ``engine`` or both; None: the ONNX, and an engine where TensorRT works here.
        precision: Name of a row of :data:`rtda_export.precision.PRECISIONS`; None: fp32 in the ONNX and fp16 in the
            engine.
        size_hw: Input size; None: as trained. A checkpoint's only, as the next seven and ``monitor``.
        opset: 11 to 17; None: 17.
        input: ``float32`` normalised, for this runtime; or for others, with all but the resize in the graph, the
            frame's own pixels BGR: ``uint8``, or ``pixels``, the same as float32.
        layout: Of the input: ``nhwc`` or ``nchw``; None: nhwc for uint8, else nchw.
        output: ``logits`` at 1/8 for this runtime; or made in the graph, at input size, ``mask`` uint8, or
            ``probabilities`` of all classes, float32.
        confidence: With ``mask``, a second output: the winner's probability, float32.
        program: Name of a row of :data:`rtda_export.programs.PROGRAMS`: ``input``, ``layout`` and ``output`` are made
            what that program needs, and its configuration is written; empty: none.
        batch: Pictures at a time; more than one for other programs' runtimes only.
        rewritten: Whether convolutions of enlarged maps move to where the maps are small
            (:mod:`rtda_export.graph.rewrite`).
        monitor: A second output for the shift alarm of ``run --shift``; see :mod:`rtda_export.graph.monitor`.
        footage: What the robot sees, as it drives: each file is run over it, and its card says what is familiar. A
            video, a bag, or a folder of pictures, one a second. None: as the checkpoint's card says, if it does.
        verify_path: Pictures to verify on; None: ``verify/`` beside the model.
        calibrate: Pictures to calibrate INT8 on.
        int8_target: What an INT8 file is for: ``tensorrt`` (symmetric) or ``cpu`` (unsigned activations).
        data: Labelled pictures; FP16, INT8 and, where this CPU has it, the float32 file in bfloat16 are scored on them.
            INT8 may lose 0.5 mIoU, and so may bfloat16.
        spec_path: ``spec.json`` used instead of the file's own.
        engine: How an engine is built.
        force: Keep files that are past their limit, and write over another model's.
        out_dir: Where files go; None: beside the model.
        name: Stem of the files; empty: the model's own.

    Raises:
        ConfigError: If a value is unknown, or two of them do not go together.
    """

    to: Optional[Sequence[str]] = None
    precision: Optional[str] = None
    size_hw: Optional[Tuple[int, int]] = None
    opset: Optional[int] = None
    input: str = "float32"
    layout: Optional[str] = None
    output: str = "logits"
    confidence: bool = False
    program: str = ""
    batch: int = 1
    rewritten: bool = True
    monitor: bool = False
    footage: Optional[Union[str, Path]] = None
    verify_path: Optional[Union[str, Path]] = None
    calibrate: Optional[Union[str, Path]] = None
    int8_target: str = INT8.targets[0]
    data: Optional[LabelledSet] = None
    spec_path: Optional[Union[str, Path]] = None
    engine: EngineOptions = EngineOptions()
    force: bool = False
    out_dir: Optional[Union[str, Path]] = None
    name: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.to or () if name not in KINDS]
        if unknown or (self.to is not None and not self.to):
            raise ConfigError(f"unknown --to {','.join(unknown) or '(nothing)'}", hint=f"known: {', '.join(KINDS)}")
        check_opset(self.onnx_opset)
        self._fit_program()
        check_input(self.input, self.layout)
        check_output(self.output, confidence=self.confidence, batch=self.batch, monitor=self.monitor)
        if self.output != "logits":
            check_mask_opset(self.onnx_opset, self.output)
        self._check_precision(self.chosen)
        self._check_engine()

    def _fit_program(self) -> None:
        """Set what the program needs; refuse what it cannot feed or run."""
        if not self.program:
            return
        program = program_named(self.program)
        for option, field, allowed in (
            ("--input", "input", (program.input,)),
            ("--layout", "layout", program.layouts),
            ("--output", "output", (program.output,)),
            ("--to", "to", (("onnx",),)),
        ):
            asked, usual = getattr(self, field), getattr(type(self), field)
            if asked in (usual, None):
                object.__setattr__(self, field, allowed[0])  # the way to set a field of a frozen dataclass
            elif (tuple(asked) if field == "to" else asked) not in allowed:
                raise ConfigError(
                    f"--for {program.name} goes with {option} {' or '.join(map(_typed, allowed))}",
                    why=f"{program.title} is given an .onnx that takes {program.input} and gives {program.output}",
                    hint=f"leave {option} out",
                )
        if self.chosen is not None and self.chosen.name not in program.precisions:
            raise ConfigError(
                f"no {self.chosen.name} file is written for {program.title}",
                why=program.refused,
                hint=f"--precision {listed(program.precisions)}",
            )

    @property
    def chosen(self) -> Optional[Precision]:
        """The row of ``precision``."""
        return None if self.precision is None else precision_named(self.precision)

    @property
    def input_layout(self) -> str:
        """``layout``, decided."""
        return check_input(self.input, self.layout)

    @property
    def onnx_opset(self) -> int:
        """The opset that a checkpoint is exported at."""
        return OPSETS[-1] if self.opset is None else self.opset

    @property
    def target(self) -> str:
        """What the file of the chosen precision is for."""
        return self.int8_target if self.chosen is INT8 else (self.chosen or ENGINE_DEFAULT).targets[0]

    @property
    def engine_asked(self) -> bool:
        """Whether an engine was named, so that it is an error where none can be built."""
        return self.to is not None and "engine" in self.to

    def _check_precision(self, chosen: Optional[Precision]) -> None:
        calibrated = [precision for precision in PRECISIONS if precision.needs_calibration]
        if self.int8_target not in INT8.targets:
            raise ConfigError(f"unknown target {self.int8_target!r} of INT8", hint=f"known: {', '.join(INT8.targets)}")
        if chosen is not None and self.onnx_opset < chosen.least_opset:
            raise ConfigError(
                f"{chosen.name} needs opset {chosen.least_opset}, this is {self.onnx_opset}", hint="--opset 17"
            )
        if self.calibrate is not None and chosen not in calibrated:
            raise ConfigError(
                f"--calibrate goes with {listed(p.title for p in calibrated)} only",
                hint=f"--precision {listed(p.name for p in calibrated)}",
            )

    def _check_engine(self) -> None:
        if self.batch > 1 and self.engine_asked:
            raise ConfigError(
                f"an engine for {self.batch} pictures at a time cannot be run or verified here",
                hint="--to onnx, and build it with the program that will run it; or --batch 1",
            )
        if self.engine != EngineOptions() and self.to is not None and not self.engine_asked:
            raise ConfigError(
                "--workspace, --tactics, --optimization, --dla and --rebuild go with an engine", hint="--to onnx,engine"
            )
        if self.target == "cpu" and self.engine_asked:
            raise ConfigError(
                f"an {self.chosen.title if self.chosen else ''} file for a CPU makes no engine",
                hint="--int8-target tensorrt, or --to onnx",
            )


def _typed(value: Union[str, Sequence[str]]) -> str:
    return value if isinstance(value, str) else ",".join(value)
