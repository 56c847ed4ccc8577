"""The hops of an export: each makes one file, compares it with what it came from, and only then gives it its name."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.engine_file import read_sidecar, sidecar_path
from rtda_deploy.errors import ExportError, ParityError, RtdaError
from rtda_deploy.files import atomic_path, write_bytes
from rtda_deploy.onnx_file import onnx_spec
from rtda_deploy.spec import ModelSpec
from rtda_export.parity.compare import LIMITS, ParityReport, verify
from rtda_export.parity.frames import NamedFrame, read_frames

if TYPE_CHECKING:
    from rtda_export.request import Request
    from rtda_export.tensorrt import BuildProgress

__all__ = [
    "CALIBRATION_FRAMES",
    "ExportStep",
    "Hop",
    "Pictures",
    "Tell",
    "build_engine",
    "check_onnx",
    "reduce_precision",
    "write_onnx",
]

CALIBRATION_FRAMES = 64  # at most
_INT8_LIMITS = (0.98, 0.99, 0.995)  # agreement asked for in turn, while labelled pictures lose too much
_STEPS = {
    "ranges": "ranges of activations",
    "calibrate": "calibrating, frame",
    "compare": "comparing ways to calibrate",
    "rank": "looking for what loses agreement",
    "drop": "looking for what can be spared",
}
_MIOU_LOSS = 0.5  # percent points that INT8 may lose


@dataclasses.dataclass(frozen=True)
class ExportStep:
    """What an export tells whoever watches.

    Attributes:
        name: ``plan``, ``note``, ``info``, ``onnx``, ``fp16``, ``int8``, ``engine``, ``verify``, ``score`` or ``spec``.
        state: ``start`` when a long step begins; ``progress`` while it goes on; ``done`` when it ended, and for those
            that take no time.
        text: One line for a person.
        path: The file it made, under its final name.
        size_bytes: Of that file.
        seconds: It took.
        parity: The comparison's figures, of ``verify``.
    """

    name: str
    state: str = "done"
    text: str = ""
    path: Optional[Path] = None
    size_bytes: Optional[int] = None
    seconds: Optional[float] = None
    parity: Optional[ParityReport] = None


Tell = Callable[[ExportStep], None]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Frames to verify on, and those that INT8 is calibrated on (empty where it is not)."""

    frames: List[NamedFrame]
    seen: List[NamedFrame] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Hop:
    """One file that an export made.

    Attributes:
        name: ``onnx``, ``fp16``, ``int8`` or ``engine``.
        path: The file.
        spec: What it holds.
        parity: How it compares with what it came from.
        seconds: Making it took.
        kept_fp32: Reason by name of the layers that were kept in float32.
        miou: Of the reference and of the file, percent, where labelled pictures were given.
        notes: What its maker has to say.
        more_files: Written beside it.
    """

    name: str
    path: Path
    spec: ModelSpec
    parity: ParityReport
    seconds: float
    kept_fp32: Mapping[str, str] = dataclasses.field(default_factory=dict)
    miou: Optional[Tuple[float, float]] = None
    notes: Tuple[str, ...] = ()
    more_files: Tuple[Path, ...] = ()

    @property
    def files(self) -> Tuple[Path, ...]:
        """Every file it made, but the page."""
        return (self.path, *self.more_files)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; see ``ExportResult.to_dict``."""
        return {
            "name": self.name,
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "seconds": round(self.seconds, 3),
            "parity": self.parity.to_dict(),
            "kept_fp32": dict(self.kept_fp32),
            "miou": None if self.miou is None else {"before": self.miou[0], "after": self.miou[1]},
            "notes": list(self.notes),
        }


def write_onnx(request: Request, reference: Path, target: Path, frames: List[NamedFrame], tell: Tell) -> Hop:
    """Checkpoint to float32 ONNX.

    Args:
        request: What was asked for.
        reference: Where the file with plain logits goes that later hops start from and are compared with.
        target: Final name.
        frames: To verify on.
        tell: Told of progress.

    Raises:
        ParityError: If it does not answer as the checkpoint.
    """
    from rtda_export.graph.from_torch import onnx_from_checkpoint

    tell(ExportStep("onnx", "start", path=target))
    started = time.perf_counter()
    asked = None if request.spec is None else request.spec.replace(output="logits")
    with atomic_path(target) as temporary:
        onnx_from_checkpoint(
            request.parent,
            temporary,
            size_hw=request.size_hw,
            opset=request.opset,
            spec=asked,
            rewritten=request.rewritten,
        )
        shutil.copyfile(temporary, reference)
        _finish(request, temporary)
        seconds = time.perf_counter() - started
        spec = onnx_spec(temporary)
        size = temporary.stat().st_size
        tell(ExportStep("onnx", text=_rewritten(spec), path=target, size_bytes=size, seconds=seconds))
        names = (request.parent.name, target.name)
        parity = _verified(request, request.parent, temporary, frames, "fp32", names, "torch = onnx", tell, asked)
    return Hop("onnx", target, spec, parity, seconds, notes=_forced([parity], tell))


def _rewritten(spec: ModelSpec) -> str:
    """What rewriting saved, for people."""
    changes = [made["macs"] for made in spec.provenance["export"]["rewritten"].values()]
    saved = sum(before - after for before, after in changes)
    text = f"{saved / 1e9:.1f} billion" if saved >= 1e9 else f"{saved / 1e6:.1f} million"
    return f"rewriting saves {text} multiply-adds " if changes else ""


def reduce_precision(
    request: Request, precision: str, reference: Path, scratch: Path, pictures: Pictures, tell: Tell
) -> Hop:
    """Float32 ONNX to an FP16 or INT8 one; see ``rescue`` and ``quantize``.

    Args:
        request: What was asked for.
        precision: ``fp16`` or ``int8``.
        reference: ``.onnx`` with plain logits in float32.
        scratch: Where an unfinished file may lie.
        pictures: To verify and to calibrate on.
        tell: Told of progress.

    Raises:
        ParityError: If it does not answer as the reference.
    """
    target = request.file(f"{precision}.onnx")
    tell(ExportStep(precision, "start", path=target))
    started = time.perf_counter()
    if precision == "fp16":
        kept, notes = _make_fp16(request, reference, scratch, pictures.frames, tell)
        miou = _scores(request, reference, scratch, tell)
    else:
        kept, notes, miou = _make_int8(request, reference, scratch, pictures.seen, tell)
    with atomic_path(target) as temporary:
        shutil.copyfile(scratch, temporary)
        _finish(request, temporary)
        seconds = time.perf_counter() - started
        text = f"{len(kept)} layers kept in fp32" if kept else ""
        tell(ExportStep(precision, text=text, path=target, size_bytes=temporary.stat().st_size, seconds=seconds))
        names = (request.file("onnx").name if request.from_checkpoint else reference.name, target.name)
        text = f"onnx = {precision}"
        spec = request.spec_of_parent
        parity = _verified(request, reference, temporary, pictures.frames, precision, names, text, tell, spec=spec)
        _check_loss(request, precision, miou)
        spec = onnx_spec(temporary)
    for note in notes:
        tell(ExportStep("info", text=note))
    return Hop(precision, target, spec, parity, seconds, kept, miou, (*notes, *_forced([parity], tell)))


def build_engine(
    request: Request,
    source: Path,
    kept: Optional[Sequence[str]],
    reference: Path,
    scratch: Path,
    frames: List[NamedFrame],
    tell: Tell,
) -> Hop:
    """ONNX to a TensorRT engine, verified on this GPU.

    Args:
        request: What was asked for.
        source: ``.onnx`` to build from, under its final name.
        kept: Layers to keep in float32 where precision is a flag; None: as the file says.
        reference: ``.onnx`` with plain logits in float32.
        scratch: Folder where an engine that is not verified yet may lie.
        frames: To verify on.
        tell: Told of progress.

    Raises:
        ParityError: If it does not answer as the reference.
        DeviceError: If TensorRT does not build it.
    """
    from rtda_export.tensorrt import engine_from_onnx, engine_path

    precision = request.engine_precision
    target = engine_path(request.file("onnx"), precision, request.engine.dla_core)
    tell(ExportStep("engine", "start", path=target))
    unverified = scratch / target.name
    for path in (target, sidecar_path(target)):  # found there, it is not built again
        if path.is_file():
            shutil.copyfile(path, scratch / path.name)
    options = request.engine
    made = engine_from_onnx(
        source,
        unverified,
        precision=precision,
        workspace_mib=options.workspace_mib,
        tactic_sources=options.tactic_sources,
        optimization_level=options.optimization_level,
        dla_core=options.dla_core,
        keep_fp32=kept,
        rebuild=options.rebuild,
        spec=request.spec_of_parent,
        on_progress=lambda progress: tell(ExportStep("engine", "progress", text=_progress_text(progress), path=target)),
    )
    size = unverified.stat().st_size
    text = "" if made.built else "as built before"
    notes = (*made.notes, *((made.dla.text,) if made.dla is not None else ()))
    for note in notes:
        tell(ExportStep("info", text=note))
    tell(ExportStep("engine", text=text, path=target, size_bytes=size, seconds=made.seconds))
    names = (source.name, target.name)
    text = f"onnx = engine {precision}"
    asked = request.spec_of_parent
    parity = _verified(request, reference, unverified, frames, precision, names, text, tell, spec=asked)
    spec = read_sidecar(unverified).spec
    for path in (target, sidecar_path(target)):
        with atomic_path(path) as temporary:
            shutil.copyfile(scratch / path.name, temporary)
    bound = dict.fromkeys(made.sidecar.built.kept_fp32, "by layer precision")
    notes = (*notes, *_forced([parity], tell))
    return Hop("engine", target, spec, parity, made.seconds, bound, notes=notes, more_files=(sidecar_path(target),))


def _progress_text(progress: BuildProgress) -> str:
    """``1:42`` and, where TensorRT tells, ``1:42, 45 %``."""
    elapsed = f"building, {int(progress.elapsed_s) // 60}:{int(progress.elapsed_s) % 60:02d}"
    share = "" if progress.fraction is None else f", {100 * progress.fraction:.0f} %"
    return progress.note or f"{elapsed}{share}"


def check_onnx(request: Request, graph: Any, notes: Sequence[str], tell: Tell) -> Tuple[ModelSpec, Tuple[str, ...]]:
    """Check that a given ``.onnx`` runs and answers in numbers; its spec, and what there is to say of it."""
    from rtda_export.graph.from_torch import IR_VERSION, OPSETS

    more: Tuple[str, ...] = ()
    opset = max(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if graph.ir_version > IR_VERSION or opset > OPSETS[-1]:
        more = (f"opset {opset}, ir_version {graph.ir_version}: a Jetson reads up to {OPSETS[-1]} and {IR_VERSION}",)
    for note in (*notes, *more):
        tell(ExportStep("note", text=note))
    if request.verify_path is not None:
        frames = read_frames(request.verify_path)
    else:
        height, width = (request.spec or onnx_spec(request.parent)).size_hw
        frames = [("a grey picture", np.full((height, width, 3), 127, np.uint8))]
    tell(ExportStep("verify", "start"))
    started = time.perf_counter()
    found = _answers(request.parent, request.spec, frames)
    text = f"loads, and its logits are finite on {len(frames)} picture(s)"
    tell(ExportStep("verify", text=text, seconds=time.perf_counter() - started))
    return found, more


def _answers(path: Path, spec: Optional[ModelSpec], frames: List[NamedFrame]) -> ModelSpec:
    from rtda_export.parity.networks import open_network
    from rtda_runtime.mask.preprocess import preprocess

    with open_network(path, spec=spec) as network:
        image = np.zeros((1, 3, *network.spec.size_hw), np.float32)
        for name, frame in frames:
            preprocess(frame, network.spec, image)
            if not np.isfinite(network.answer(image)).all():
                raise ExportError(
                    f"{path.name} gives NaN or infinite logits on {name}", hint="look for NaN in its weights"
                )
        return network.spec


def _verified(
    request: Request,
    a: Path,
    b: Path,
    frames: List[NamedFrame],
    limit: str,
    names: Tuple[str, str],
    text: str,
    tell: Tell,
    spec: Optional[ModelSpec],
) -> ParityReport:
    """Compare; ``spec`` is the reference's where it has none, or another, of its own."""
    tell(ExportStep("verify", "start"))
    started = time.perf_counter()
    of_checkpoint = a == request.parent and request.from_checkpoint
    page = "verify.html" if of_checkpoint else f"verify.{_kind(names[1])}.html"
    try:
        parity = verify(
            a,
            b,
            frames,
            limit=limit,
            out_dir=request.folder,
            page_name=page,
            size_hw=request.size_hw if of_checkpoint else None,
            specs=(spec, None),
            names=names,
            force=request.force,
        )
    except RtdaError as err:  # people know the file by its final name only
        err.message = err.message.replace(b.name, names[1])
        err.args = (err.message,)
        raise
    tell(ExportStep("verify", text=text, seconds=time.perf_counter() - started, parity=parity))
    return parity


def _kind(name: str) -> str:
    """``model.fp16.onnx`` -> ``fp16.onnx``."""
    return ".".join(name.rsplit(".", 2)[-2:])


def _forced(reports: Sequence[ParityReport], tell: Tell) -> Tuple[str, ...]:
    missed = [report for report in reports if report.missed]
    notes = tuple(f"{report.b} kept by --force although {'; '.join(report.missed)}" for report in missed)
    for note in notes:
        tell(ExportStep("note", text=note))
    return notes


def _finish(request: Request, path: Path) -> None:
    """Give a file with plain logits the batch and the outputs that were asked for; in place."""
    if request.plain:
        return
    import onnx

    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.graph.outputs import with_batch, with_mask_output

    model, spec = read_onnx(path), onnx_spec(path)
    if request.batch > 1:
        with_batch(model, request.batch)
    if request.output == "mask":
        spec = with_mask_output(model, spec, confidence=request.confidence)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(stamped(model, spec))


class _Images(Sequence[np.ndarray]):
    """Preprocessed pictures float32 (1, 3, H, W), made when asked for: dozens of them would fill the memory."""

    def __init__(self, frames: Sequence[NamedFrame], spec: ModelSpec) -> None:
        self._frames = frames
        self._spec = spec

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        from rtda_runtime.mask.preprocess import preprocess

        if isinstance(index, slice):
            return _Images(self._frames[index], self._spec)
        image = np.zeros((1, 3, *self._spec.size_hw), np.float32)
        preprocess(self._frames[index][1], self._spec, image)
        return image

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))


def _make_fp16(
    request: Request, reference: Path, scratch: Path, frames: List[NamedFrame], tell: Tell
) -> Tuple[Dict[str, str], Tuple[str, ...]]:
    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.precision.fp16_exceptions import rescue_fp16

    model, spec = read_onnx(reference), request.spec_of_parent or onnx_spec(reference)

    def progress(step: str, done: int, total: int) -> None:
        tell(ExportStep("fp16", "progress", text=f"{_STEPS.get(step, step)} {done}/{total}"))

    rescue = rescue_fp16(model, _Images(frames, spec), limit=LIMITS["fp16"].agreement, progress=progress)
    scratch.write_bytes(stamped(rescue.model, _reduced_spec(spec, "fp16")))
    notes = tuple(f"{name} stays in fp32: {reason}" for name, reason in rescue.reasons.items())
    target = request.file("onnx")
    if rescue.keep_fp32 and request.from_checkpoint:  # TensorRT 8 builds FP16 from the fp32 file and reads it there
        _note_kept(target, rescue.to_dict())
    return rescue.reasons, notes


def _note_kept(path: Path, facts: Mapping[str, Any]) -> None:
    """Write what FP16 must leave alone into the metadata of the float32 file."""
    from rtda_export.graph.from_torch import read_onnx
    from rtda_export.precision.fp16 import with_precision

    model = read_onnx(path)
    with_precision(model, {"precision": "fp32", **facts})
    write_bytes(path, model.SerializeToString(deterministic=True))


def _reduced_spec(spec: ModelSpec, precision: str) -> ModelSpec:
    made_by = {**spec.provenance.get("export", {}), "precision": precision}
    return spec.replace(provenance={**spec.provenance, "export": made_by})


def _make_int8(
    request: Request, reference: Path, scratch: Path, seen: List[NamedFrame], tell: Tell
) -> Tuple[Dict[str, str], Tuple[str, ...], Optional[Tuple[float, float]]]:
    """Quantise; where labelled pictures are given, leave more in float until they lose little enough."""
    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.precision.int8 import int8_onnx

    def progress(step: str, done: int, total: int) -> None:
        tell(ExportStep("int8", "progress", text=f"{_STEPS.get(step, step)} {done}/{total}"))

    spec = request.spec_of_parent or onnx_spec(reference)
    images = _Images(seen, spec)
    for limit in _INT8_LIMITS:
        made = int8_onnx(reference, images, scratch, target=request.int8_target, limit=limit, progress=progress)
        scratch.write_bytes(stamped(read_onnx(scratch), _reduced_spec(spec, "int8")))
        miou = _scores(request, reference, scratch, tell)
        if miou is None or miou[0] - miou[1] <= _MIOU_LOSS:
            break
    return made.reasons, (*made.report, *_speedup(request, reference, scratch, tell)), miou


def _speedup(request: Request, reference: Path, made: Path, tell: Tell) -> Tuple[str, ...]:
    """What INT8 gains on this CPU, where it is meant for one; what it gains on a GPU, ``bench`` tells there."""
    if request.int8_target != "cpu":
        return ()
    from rtda_export.precision.speedup import speedup

    tell(ExportStep("int8", "progress", text="timing against fp32"))
    return (speedup(reference, made).sentence("int8"),)


def _scores(request: Request, reference: Path, made: Path, tell: Tell) -> Optional[Tuple[float, float]]:
    """mIoU of both on the labelled pictures, percent."""
    if request.data is None:
        return None
    from rtda_export.parity.scoring import evaluate

    tell(ExportStep("score", "start"))
    started = time.perf_counter()
    specs = (request.spec_of_parent, None)
    before, after = (
        100 * evaluate(path, request.data, spec=spec).scores.miou() for path, spec in zip((reference, made), specs)
    )
    text = f"mIoU {before:.2f} -> {after:.2f} on {request.data.address}"
    tell(ExportStep("score", text=text, seconds=time.perf_counter() - started))
    return before, after


def _check_loss(request: Request, precision: str, miou: Optional[Tuple[float, float]]) -> None:
    if miou is None or precision != "int8" or miou[0] - miou[1] <= _MIOU_LOSS or request.force:
        return
    before, after = miou
    raise ParityError(
        f"INT8 loses {before - after:.2f} mIoU ({before:.2f} -> {after:.2f}), the limit is {_MIOU_LOSS}",
        why="leaving more layers in float, up to half of them, did not bring it back",
        hint="calibrate on more pictures of what the robot sees, or use fp16; to keep the file as it is: --force",
    )
