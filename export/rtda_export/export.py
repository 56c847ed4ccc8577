"""One export from plan to verified files: what ``rtda-deploy export`` runs.

``checkpoint -> ONNX (fp32) -> [fp16 | int8] -> engine``, each hop compared with what it came from. Everything that can
be refused is refused before work starts; every file appears under its final name only once it was verified.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from rtda_deploy.files import atomic_path, remove_leftovers
from rtda_deploy.folder_lock import folder_lock, is_locked
from rtda_deploy.spec import ModelSpec
from rtda_export.earlier import refuse_losing
from rtda_export.parity.compare import ParityReport
from rtda_export.request import EngineOptions, Request, checked_request
from rtda_export.steps import (
    CALIBRATION_FRAMES,
    ExportStep,
    Hop,
    Pictures,
    Tell,
    build_engine,
    check_onnx,
    reduce_precision,
    write_onnx,
)
from rtda_export.targets import EnginePlan, engine_plan

if TYPE_CHECKING:
    from rtda_training.readers import LabelledSet

__all__ = ["EngineOptions", "ExportResult", "ExportStep", "Hop", "export_model"]

_WORKSHOP = ".export-"
_LOCK = "lock"  # in it, held while the export runs
_FAR = 1.3  # times the trained width or height; augmentation teaches scales of that order


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        model: The file it started from.
        onnx: The ONNX file; the one given, where an engine was built from it and nothing else written.
        engine: The engine, where one was built.
        spec: What the files hold.
        parity: Figures of the ONNX compared with the checkpoint; None where an ``.onnx`` was given.
        hops: Every step that made a file, in order.
        notes: What was left out and why.
        files: Every file written.
    """

    model: Path
    onnx: Path
    engine: Optional[Path]
    spec: ModelSpec
    parity: Optional[ParityReport]
    hops: Tuple[Hop, ...]
    notes: Tuple[str, ...]
    files: Tuple[Path, ...]

    @property
    def best(self) -> Path:
        """The file to run here: the engine, else the last ONNX made, else the one given."""
        return self.engine or next((hop.path for hop in reversed(self.hops) if hop.name != "engine"), self.onnx)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``export --json`` prints.

        ``model``, ``onnx``, ``engine`` (or null): paths. ``spec``: as in the file. ``parity``: of the ONNX with its
        checkpoint, as ``ParityReport.to_dict``, or null. ``hops``: ``name`` (onnx, fp16, int8, engine), ``path``,
        ``bytes``, ``seconds``, ``parity`` (or null), ``kept_fp32`` (reason by layer), ``miou`` (before and after in
        percent, or null), ``notes``. ``notes``: sentences. ``files``: paths written.
        """
        return {
            "model": str(self.model),
            "onnx": str(self.onnx),
            "engine": None if self.engine is None else str(self.engine),
            "spec": self.spec.to_dict(),
            "parity": None if self.parity is None else self.parity.to_dict(),
            "hops": [hop.to_dict() for hop in self.hops],
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }


def export_model(
    model: Union[str, Path],
    *,
    to: Optional[Sequence[str]] = None,
    precision: Optional[str] = None,
    size_hw: Optional[Tuple[int, int]] = None,
    opset: Optional[int] = None,
    output: str = "logits",
    confidence: bool = False,
    batch: int = 1,
    rewritten: bool = True,
    verify_path: Optional[Union[str, Path]] = None,
    calibrate: Optional[Union[str, Path]] = None,
    int8_target: str = "tensorrt",
    data: Optional[LabelledSet] = None,
    spec_path: Optional[Union[str, Path]] = None,
    engine: Optional[EngineOptions] = None,
    force: bool = False,
    out_dir: Optional[Union[str, Path]] = None,
    name: str = "",
    on_step: Optional[Callable[[ExportStep], None]] = None,
) -> ExportResult:
    """Export a checkpoint or an ``.onnx`` to what a robot runs, verified at every hop.

    Files are ``<stem>.onnx``, ``<stem>.fp16.onnx`` or ``<stem>.int8.onnx``, and ``<stem>.<precision>.engine`` with its
    ``.json``. An ``.onnx`` that nothing is made of is checked, tried, and stamped where ``spec_path`` is given.

    Args:
        model: ``.pth`` or ``.onnx``.
        to: ``onnx``, ``engine`` or both; None: the ONNX, and an engine where TensorRT works here.
        precision: ``fp32``, ``fp16`` or ``int8``; None: fp32 in the ONNX and fp16 in the engine.
        size_hw: Input size; None: as trained. A checkpoint's only, as the next five.
        opset: 11 to 17; None: 17.
        output: ``logits`` at 1/8 for this runtime, or ``mask`` uint8 at input size, made in the graph.
        confidence: With ``mask``, a second output: the winner's probability, float32.
        batch: Pictures at a time; more than one for other programs' runtimes only.
        rewritten: Whether convolutions of enlarged maps move to where the maps are small
            (:mod:`rtda_export.graph.rewrite`).
        verify_path: Pictures to verify on; None: ``verify/`` beside the model.
        calibrate: Pictures to calibrate INT8 on.
        int8_target: ``tensorrt`` (symmetric) or ``cpu`` (unsigned activations).
        data: Labelled pictures; FP16 and INT8 are scored on them, and INT8 may lose 0.5 mIoU.
        spec_path: ``spec.json`` used instead of the file's own.
        engine: How an engine is built.
        force: Keep files that are past their limit.
        out_dir: Where files go; None: beside the model.
        name: Stem of the files; empty: the model's own.
        on_step: Called before and after each step.

    Raises:
        ParityError: If a file does not answer as what it came from; nothing is left under its final name.
        ConfigError: If an option makes no sense.
        DeviceError: If an engine was asked for and cannot be built here.
        ExportError: If there are no pictures to verify on, the size does not fit, or the export failed.
        RtdaError: As its stages do.
    """
    request = checked_request(
        model,
        to=to,
        precision=precision,
        size_hw=size_hw,
        opset=opset,
        output=output,
        confidence=confidence,
        batch=batch,
        rewritten=rewritten,
        verify_path=verify_path,
        calibrate=calibrate,
        int8_target=int8_target,
        data=data,
        spec_path=spec_path,
        force=force,
        out_dir=out_dir,
        name=name,
        engine=engine or EngineOptions(),
    )
    tell: Tell = on_step or (lambda step: None)
    plan = engine_plan(request)
    return (_from_checkpoint if request.from_checkpoint else _from_onnx)(request, plan, tell)


def _from_checkpoint(request: Request, plan: EnginePlan, tell: Tell) -> ExportResult:
    reduced = _reduced_precision(request, plan)
    pictures = _pictures(request, reduced)
    _tell_plan(f"onnx (opset {request.opset}, fp32)", reduced, request, plan, len(pictures.frames), tell)
    hops: List[Hop] = []
    target = request.file("onnx")
    with _workshop(request, [target, *_more_targets(request, plan, reduced)]) as work:
        hops.append(write_onnx(request, work / "reference.onnx", target, pictures.frames, tell))
        _add_hops(hops, request, plan, reduced, work / "reference.onnx", target, work, pictures, tell)
    spec = hops[0].spec
    tell(ExportStep("spec", text=_spec_text(spec), path=target))
    return _result(request, target, spec, hops, (*plan.notes, *_one_class(spec, tell), *_another_size(request, tell)))


def _from_onnx(request: Request, plan: EnginePlan, tell: Tell) -> ExportResult:
    reduced = _reduced_precision(request, plan)
    if not plan.wanted and reduced is None:
        return _checked_only(request, plan.notes, tell)
    pictures = _pictures(request, reduced)
    _tell_plan(request.parent.name, reduced, request, plan, len(pictures.frames), tell)
    hops: List[Hop] = []
    with _workshop(request, _more_targets(request, plan, reduced)) as work:
        _add_hops(hops, request, plan, reduced, request.parent, request.parent, work, pictures, tell)
    spec = hops[-1].spec
    tell(ExportStep("spec", text=_spec_text(spec), path=hops[-1].path))
    return _result(request, request.parent, spec, hops, (*plan.notes, *_one_class(spec, tell)))


def _add_hops(
    hops: List[Hop],
    request: Request,
    plan: EnginePlan,
    reduced: Optional[str],
    reference: Path,
    source: Path,
    work: Path,
    pictures: Pictures,
    tell: Tell,
) -> None:
    """What comes after the float32 file: ``reference`` with plain logits, ``source`` what an engine is built from."""
    kept: Optional[Tuple[str, ...]] = None  # None: as the file's metadata says
    if reduced is not None:
        hops.append(reduce_precision(request, reduced, reference, work / "reduced.onnx", pictures, tell))
        if plan.typed or reduced == "int8":
            source = hops[-1].path
        else:
            kept = tuple(hops[-1].kept_fp32)
    if plan.wanted:
        hops.append(build_engine(request, source, kept, reference, work, pictures.frames, tell))


def _pictures(request: Request, reduced: Optional[str]) -> Pictures:
    """Everything that is looked at, read before work starts."""
    from rtda_export.parity.frames import read_frames, stored_frames

    frames = read_frames(stored_frames(request.parent, request.verify_path))
    seen = read_frames(request.calibrate, CALIBRATION_FRAMES) if reduced == "int8" and request.calibrate else []
    return Pictures(frames, seen)


def _checked_only(request: Request, notes: Sequence[str], tell: Tell) -> ExportResult:
    from rtda_export.graph.from_torch import read_onnx, stamped

    target = request.folder / request.parent.name
    in_place = target.resolve() == request.parent.resolve()
    if request.spec is not None or not in_place:
        refuse_losing(request, [target], in_place=in_place)
    graph = read_onnx(request.parent)
    tell(ExportStep("plan", text=f"check {request.parent.name}" + (" and write its spec" if request.spec else "")))
    found, more = check_onnx(request, graph, notes, tell)
    files: Tuple[Path, ...] = ()
    if request.spec is not None or not in_place:
        content = stamped(graph, found)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
        files = (target,)
        tell(ExportStep("onnx", path=target, size_bytes=len(content)))
    tell(ExportStep("spec", text=_spec_text(found), path=target))
    notes = (*notes, *more, *_one_class(found, tell))
    return ExportResult(request.parent, target, None, found, None, (), notes, files)


def _reduced_precision(request: Request, plan: EnginePlan) -> Optional[str]:
    """The precision that an ONNX file of its own is made in; None: there is none to make.

    An fp16 engine of a checkpoint has one, because making it finds the layers that float16 would spoil. From an
    ``.onnx`` it is made where it is asked for and where TensorRT needs it: a robot has no onnx to make it with.
    """
    wanted = request.precision
    if wanted is None and plan.wanted and (plan.typed or request.from_checkpoint):
        wanted = request.engine_precision
    if wanted in (None, "fp32", request.own):
        return None
    engine_only = request.to is not None and "onnx" not in request.to
    return None if wanted == "fp16" and engine_only and not request.from_checkpoint and not plan.typed else wanted


def _result(request: Request, onnx: Path, spec: ModelSpec, hops: Sequence[Hop], notes: Sequence[str]) -> ExportResult:
    pages = [hop.parity.page for hop in hops if hop.parity is not None and hop.parity.page is not None]
    files = [path for hop in hops for path in hop.files]
    first = hops[0].parity if request.from_checkpoint else None
    engines = [hop.path for hop in hops if hop.name == "engine"]
    return ExportResult(
        model=request.parent,
        onnx=onnx,
        engine=engines[0] if engines else None,
        spec=spec,
        parity=first,
        hops=tuple(hops),
        notes=(*notes, *(note for hop in hops for note in hop.notes)),
        files=(*files, *pages),
    )


def _more_targets(request: Request, plan: EnginePlan, reduced: Optional[str]) -> List[Path]:
    """Final names of what comes after the float32 file."""
    from rtda_export.tensorrt import engine_path

    targets = [request.file(f"{reduced}.onnx")] if reduced is not None else []
    if plan.wanted:
        targets.append(engine_path(request.file("onnx"), request.engine_precision, request.engine.dla_core))
    return targets


@contextlib.contextmanager
def _workshop(request: Request, targets: Sequence[Path]) -> Iterator[Path]:
    """A folder for files that are not verified yet, on the disk where they will stay; killed exports' are removed.

    While it is open no other process exports under the same stem.

    Raises:
        ConfigError: If a target may not be written over.
        FolderBusyError: If another process makes files of that name.
    """
    folder = request.folder
    with folder_lock(folder, name=f".{request.stem}.export.lock"):
        refuse_losing(request, targets)
        remove_leftovers(folder, below=False)
        for left in folder.glob(f"{_WORKSHOP}*"):
            if left.is_dir() and not is_locked(left, name=_LOCK):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_WORKSHOP, dir=str(folder)) as work, folder_lock(work, name=_LOCK):
            yield Path(work)


def _tell_plan(
    start: str, reduced: Optional[str], request: Request, plan: EnginePlan, pictures: int, tell: Tell
) -> None:
    chain = [start]
    if reduced is not None:
        chain.append(f"onnx {reduced}")
    if plan.wanted:
        chain.append(f"engine {request.engine_precision} ({plan.machine})")
    tell(ExportStep("plan", text=f"{' -> '.join(chain)}, verified on {pictures} pictures"))
    for note in plan.notes:
        tell(ExportStep("note", text=note))


def _one_class(spec: ModelSpec, tell: Tell) -> Tuple[str, ...]:
    """What to know of a network of one class; empty for all others."""
    if spec.num_classes > 1:
        return ()
    name = spec.class_names[0]
    note = (
        f"{name} is the only class, so that its mask is 0 in every pixel: the largest of one logit is that one. "
        f"To tell {name} from the rest, train two classes, such as background and {name}"
    )
    tell(ExportStep("note", text=note))
    return (note,)


def _another_size(request: Request, tell: Tell) -> Tuple[str, ...]:
    """What to know of a network that is to run at a size far from the one it was trained at; else empty.

    Parity cannot show it: the checkpoint is as wrong there as its export.
    """
    if request.size_hw is None:
        return ()
    from rtda_training.checkpoint import read_checkpoint

    trained = read_checkpoint(request.parent, spec=request.spec).spec.size_hw
    sides = [side / learned for side, learned in zip(request.size_hw, trained)]
    factor = max(sides, key=lambda side: max(side, 1 / side))
    if 1 / _FAR <= factor <= _FAR:
        return ()
    (height, width), (was_high, was_wide) = request.size_hw, trained
    note = (
        f"trained at {was_wide}x{was_high}, exported at {width}x{height}: things are {factor:.3g} times as large there "
        "as those that the network learned, and its masks may be far worse, in the checkpoint as in the file. "
        f"Score both sizes (rtda-deploy eval FILE --data DATA), or train with --set size={width}x{height}"
    )
    tell(ExportStep("note", text=note))
    return (note,)


def _spec_text(spec: ModelSpec) -> str:
    height, width = spec.size_hw
    return f"{width}x{height}, {spec.num_classes} classes, mean/std, palette: in the file (rtda.spec)"
