"""One export from plan to verified files: what ``rtda-deploy export`` runs.

``checkpoint -> ONNX (fp32) -> [fp16 | int8] -> engine``, each step compared with what it came from, and the float32
file with itself in bfloat16 where this CPU computes in that. Everything that can be refused is refused before work
starts; every file appears under its final name only once it was verified.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.files import atomic_path, remove_leftovers
from rtda_deploy.onnx_file import onnx_spec
from rtda_deploy.run_folders import folder_lock, is_locked
from rtda_deploy.spec import ModelSpec
from rtda_export.options import EngineOptions, ExportOptions
from rtda_export.overwrite import refuse_losing
from rtda_export.parity.frames import NamedFrame, read_frames, stored_frames
from rtda_export.parity.report import ParityReport
from rtda_export.precision import FP32, Precision
from rtda_export.programs import Served, program_named
from rtda_export.remarks import another_size, no_footage, one_class, spec_text
from rtda_export.request import EnginePlan, Request, checked_request, engine_plan, why_no_bf16
from rtda_export.steps.familiar import give_blocks
from rtda_export.steps.step import ExportEvent, ExportStep, Tell, Workbench
from rtda_export.steps.to_bf16 import verify_bf16
from rtda_export.steps.to_engine import build_engine
from rtda_export.steps.to_onnx import check_onnx, write_onnx
from rtda_export.steps.to_precision import reduce_precision

__all__ = ["EngineOptions", "ExportEvent", "ExportOptions", "ExportResult", "ExportStep", "export_model"]

CALIBRATION_FRAMES = 64  # at most
_WORKSHOP = ".export-"
_LOCK = "lock"  # in it, held while the export runs


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        model: The file it started from.
        onnx: The ONNX file; the one given, where an engine was built from it and nothing else written.
        engine: The engine, where one was built.
        spec: What the files hold.
        parity: Figures of the ONNX compared with the checkpoint; None where an ``.onnx`` was given.
        steps: Every step that made a file, in order.
        notes: What was left out and why.
        files: Every file written.
        config: The configuration of another program, where one was named.
    """

    model: Path
    onnx: Path
    engine: Optional[Path]
    spec: ModelSpec
    parity: Optional[ParityReport]
    steps: Tuple[ExportStep, ...]
    notes: Tuple[str, ...]
    files: Tuple[Path, ...]
    config: Optional[Path] = None

    @property
    def best(self) -> Path:
        """The file to run here: the engine, else the last ONNX made, else the one given."""
        return self.engine or next((step.path for step in reversed(self.steps) if step.name != "engine"), self.onnx)

    @property
    def hops(self) -> Tuple[ExportStep, ...]:
        """The ``steps``, as the JSON record calls them."""
        return self.steps

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``export --json`` prints.

        ``model``, ``onnx``, ``engine`` (or null): paths. ``spec``: as in the file. ``parity``: of the ONNX with its
        checkpoint, as ``ParityReport.to_dict``, or null. ``hops``, the steps: ``name`` (onnx, bf16, fp16, int8,
        engine), ``path``, ``bytes``, ``seconds``, ``parity`` (or null), ``kept_fp32`` (reason by layer), ``miou``
        (before and after in percent, or null), ``notes``. ``notes``: sentences. ``files``: paths written.
        ``config``: of another program, where one was named; else left out.
        """
        return {
            "model": str(self.model),
            "onnx": str(self.onnx),
            "engine": None if self.engine is None else str(self.engine),
            "spec": self.spec.to_dict(),
            "parity": None if self.parity is None else self.parity.to_dict(),
            "hops": [step.to_dict() for step in self.steps],
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
            **({} if self.config is None else {"config": str(self.config)}),
        }


def export_model(
    model: Union[str, Path],
    options: Optional[ExportOptions] = None,
    *,
    on_step: Optional[Callable[[ExportEvent], None]] = None,
    **changes: Any,
) -> ExportResult:
    """Export a checkpoint or an ``.onnx`` to what a robot runs, each file verified against what it came from.

    ::

        export_model("best.pth", precision="fp16", out_dir="robot")

    Files are ``<stem>.onnx``, ``<stem>.fp16.onnx`` or ``<stem>.int8.onnx``, and ``<stem>.<precision>.engine`` with its
    ``.json``. An ``.onnx`` that nothing is made of is checked, tried, and stamped where ``spec_path`` is given.

    Args:
        model: ``.pth`` or ``.onnx``.
        options: What is made, and how; None: all as usual.
        on_step: Called before and after each step.
        changes: Fields of :class:`ExportOptions` by their names, instead of those of ``options``.

    Raises:
        ParityError: If a file does not answer as what it came from; nothing is left under its final name.
        ConfigError: If an option makes no sense.
        DeviceError: If an engine was asked for and cannot be built here.
        ExportError: If there are no pictures to verify on, the size does not fit, or the export failed.
        RtdaError: As its stages do.
    """
    request = checked_request(model, dataclasses.replace(options or ExportOptions(), **changes))
    plan = engine_plan(request)
    reduced = _reduced_precision(request, plan)
    _check_made_of_planes(request, reduced)
    run = _Export(request, plan, reduced, on_step or (lambda event: None))
    return run.from_checkpoint() if request.from_checkpoint else run.from_onnx()


@dataclasses.dataclass(frozen=True)
class _Export:
    """One export: what was asked for, what can be done here, the lower precision that a file is made in (or None)."""

    request: Request
    plan: EnginePlan
    reduced: Optional[Precision]
    tell: Tell

    def from_checkpoint(self) -> ExportResult:
        request = self.request
        frames, seen = self._pictures()
        self._tell_plan(f"onnx (opset {request.options.onnx_opset}, {FP32.name})", len(frames))
        notes = [*self.plan.notes, *another_size(request)]
        for note in notes:
            self.tell(ExportEvent("note", text=note))
        with self._workshop([request.file(), *self._more_targets()]) as folder:
            bench = Workbench(request, folder, frames, seen, self.tell)
            steps = [write_onnx(bench)]
            if not why_no_bf16(request):
                found, more = verify_bf16(bench, request.file())
                steps, notes = [*steps, *found], [*notes, *more]
            steps += self._more_steps(bench, request.file())
            config = self._configured(steps[-1])
        return self._result(request.file(), steps[0], steps, notes, config)

    def from_onnx(self) -> ExportResult:
        request = self.request
        if request.options.footage is not None or (not self.plan.wanted and self.reduced is None):
            return _checked_only(request, self.plan.notes, self.tell)
        frames, seen = self._pictures()
        self._tell_plan(request.parent.name, len(frames))
        for note in self.plan.notes:
            self.tell(ExportEvent("note", text=note))
        with self._workshop(self._more_targets()) as folder:
            steps = self._more_steps(Workbench(request, folder, frames, seen, self.tell), request.parent)
        return self._result(request.parent, steps[-1], steps, self.plan.notes)

    def _more_steps(self, bench: Workbench, source: Path) -> List[ExportStep]:
        """What comes after the float32 file ``source``."""
        steps = []
        kept: Optional[Tuple[str, ...]] = None  # None: as the file's metadata says
        if self.reduced is not None:
            steps.append(reduce_precision(bench, self.reduced))
            if self.plan.typed or not self.reduced.engine.from_float32:
                source = steps[-1].path
            else:
                kept = tuple(steps[-1].kept_fp32)
        if self.plan.wanted:
            steps.append(build_engine(bench, source, kept))
        return steps

    def _configured(self, last: ExportStep) -> Tuple[Path, ...]:
        """The files written for another program, where one was named."""
        options = self.request.options
        if not options.program:
            return ()
        program = program_named(options.program)
        precision = FP32.name if self.reduced is None else self.reduced.name
        served = Served(last.path, self.request.stem, last.spec, precision, options.batch, options.confidence)
        written = program.write(served)
        self.tell(ExportEvent(program.name, text=f"for {program.title}, not run here", path=written[0]))
        return written

    def _pictures(self) -> Tuple[List[NamedFrame], List[NamedFrame]]:
        """Frames to verify on and to calibrate on, read before work starts."""
        options = self.request.options
        frames = read_frames(stored_frames(self.request.parent, options.verify_path))
        calibrated = self.reduced is not None and self.reduced.needs_calibration
        seen = read_frames(options.calibrate, CALIBRATION_FRAMES) if calibrated and options.calibrate else []
        return frames, seen

    def _tell_plan(self, start: str, pictures: int) -> None:
        chain = [start]
        if self.reduced is not None:
            chain.append(f"onnx {self.reduced.name}")
        if self.plan.wanted:
            chain.append(f"engine {self.request.engine_precision.name} ({self.plan.machine})")
        also = "" if why_no_bf16(self.request) else ", fp32 in bfloat16 on this CPU too"
        self.tell(ExportEvent("plan", text=f"{' -> '.join(chain)}, verified on {pictures} pictures{also}"))

    def _more_targets(self) -> List[Path]:
        """Final names of what comes after the float32 file."""
        from rtda_export.tensorrt import engine_path

        request = self.request
        targets = [request.file(self.reduced)] if self.reduced is not None else []
        if self.plan.wanted:
            core = request.options.engine.dla_core
            targets.append(engine_path(request.file(), request.engine_precision.name, core))
        copy = program_named(request.options.program).copy if request.options.program else None
        return targets if copy is None else [*targets, copy(request.folder, request.stem)]

    @contextlib.contextmanager
    def _workshop(self, targets: Sequence[Path]) -> Iterator[Path]:
        """A folder for files that are not verified yet, on the disk where they will stay; killed exports' are removed.

        While it is open no other process exports under the same stem.

        Raises:
            ConfigError: If a target may not be written over.
            FolderBusyError: If another process makes files of that name.
        """
        folder = self.request.folder
        with folder_lock(folder, name=f".{self.request.stem}.export.lock"):
            refuse_losing(self.request, targets)
            remove_leftovers(folder, below=False)
            for left in folder.glob(f"{_WORKSHOP}*"):
                if left.is_dir() and not is_locked(left, name=_LOCK):
                    shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_WORKSHOP, dir=str(folder)) as work, folder_lock(work, name=_LOCK):
                (Path(work) / "reference").mkdir()
                yield Path(work)

    def _result(
        self,
        onnx: Path,
        told: ExportStep,
        steps: Sequence[ExportStep],
        notes: Sequence[str],
        config: Tuple[Path, ...] = (),
    ) -> ExportResult:
        self.tell(ExportEvent("spec", text=spec_text(told.spec), path=told.path))
        pages = [step.parity.page for step in steps if step.parity.page is not None]
        alone = (*one_class(told.spec, self.tell), *no_footage(onnx, told.spec, self.request, self.tell))
        return ExportResult(
            model=self.request.parent,
            onnx=onnx,
            engine=next((step.path for step in steps if step.name == "engine"), None),
            spec=told.spec,
            parity=steps[0].parity if self.request.from_checkpoint else None,
            steps=tuple(steps),
            notes=(*notes, *alone, *(note for step in steps for note in step.notes)),
            files=tuple(dict.fromkeys([*(path for step in steps for path in step.files), *config, *pages])),
            config=config[0] if config else None,
        )


def _reduced_precision(request: Request, plan: EnginePlan) -> Optional[Precision]:
    """The precision that an ONNX file of its own is made in; None: there is none to make.

    An fp16 engine of a checkpoint has one, because making it finds the layers that float16 would spoil. From an
    ``.onnx`` it is made where it is asked for and where TensorRT needs it: a robot has no onnx to make it with.
    """
    wanted = request.options.chosen
    if wanted is None and plan.wanted and (plan.typed or request.from_checkpoint):
        wanted = request.engine_precision
    if wanted is None or not wanted.reduced or wanted is request.own:
        return None
    engine_only = request.options.to is not None and "onnx" not in request.options.to
    made_by_builder = wanted.engine.from_float32 and not plan.typed
    return None if made_by_builder and engine_only and not request.from_checkpoint else wanted


def _check_made_of_planes(request: Request, reduced: Optional[Precision]) -> None:
    """Refuse to make a file of another precision of an ``.onnx`` that takes pixels."""
    if reduced is None or request.from_checkpoint:
        return
    spec = request.spec or onnx_spec(request.parent)
    if spec.input != "float32":
        raise ConfigError(
            f"{request.parent.name} takes {spec.input}: no {reduced.name} file is made of it",
            why="a precision is measured on the normalised picture, and pixels are put before it last; made the other "
            "way round, the subtraction of the mean would be rounded too",
            hint=f"rtda-deploy export ckpt.pth --input {spec.input} --precision {reduced.name} ...   (the checkpoint)",
        )


def _checked_only(request: Request, notes: Sequence[str], tell: Tell) -> ExportResult:
    from rtda_export.graph.from_torch import read_onnx, stamped

    target = request.folder / request.parent.name
    frames = _bf16_frames(request)
    stamps = request.spec is not None or request.options.footage is not None or not request.in_place
    if stamps or frames:
        refuse_losing(request, [target], in_place=request.in_place)
    graph = read_onnx(request.parent)
    tell(ExportEvent("plan", text=f"check {request.parent.name}" + (" and write its spec" if request.spec else "")))
    found, more = check_onnx(request, graph, notes, tell)
    if stamps:
        content = stamped(graph, found)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
            if request.options.footage is not None:
                give_blocks(temporary, request.options.footage, tell, target=target)
        tell(ExportEvent("onnx", path=target, size_bytes=len(content)))
    steps, in_bf16 = verify_bf16(Workbench(request, request.folder, frames, [], tell), target) if frames else ((), ())
    tell(ExportEvent("spec", text=spec_text(found), path=target))
    alone = (*one_class(found, tell), *no_footage(target, found, request, tell))
    notes = (*notes, *more, *alone, *in_bf16, *(note for step in steps for note in step.notes))
    pages = [step.parity.page for step in steps if step.parity.page is not None]
    files = (target, *pages) if stamps or frames else ()
    return ExportResult(request.parent, target, None, found, None, steps, notes, files)


def _bf16_frames(request: Request) -> List[NamedFrame]:
    """What an ``.onnx`` that nothing is made of is verified on in bfloat16; empty where it is not.

    Raises:
        ExportError: If there are no pictures, and labelled ones were given.
    """
    if why_no_bf16(request):
        return []
    options = request.options
    try:
        return read_frames(stored_frames(request.parent, options.verify_path))
    except ExportError:
        if options.verify_path is not None or options.data is not None:
            raise
        return []
