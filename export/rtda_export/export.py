"""One export from plan to verified file: what ``rtda-deploy export`` runs.

Everything that can be refused is refused before work starts; every file appears under its final name only once it was
verified.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.errors import ConfigError, DeviceError, ExportError
from rtda_deploy.files import atomic_path, readable_file, writable_folder, write_bytes
from rtda_deploy.optional import available, require
from rtda_deploy.spec import ModelSpec
from rtda_export.frames import NamedFrame, read_frames, stored_frames
from rtda_export.parity import ParityReport, verify

__all__ = ["ExportResult", "ExportStep", "export_model"]

_DEFAULT_OPSET = 17
_TARGETS = ("onnx", "engine")
_PRECISIONS = ("fp32", "fp16", "int8")


@dataclasses.dataclass(frozen=True)
class ExportStep:
    """What an export tells whoever watches.

    Attributes:
        name: ``plan``, ``note``, ``onnx``, ``verify`` or ``spec``.
        state: ``start`` when a long step begins; ``done`` when it ended, and for those that take no time.
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


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        model: The file it started from.
        onnx: The file to run.
        spec: What it holds.
        parity: Figures of the comparison with its parent; None where an ``.onnx`` was only checked and stamped.
        notes: What was left out and why.
        files: Every file written.
    """

    model: Path
    onnx: Path
    spec: ModelSpec
    parity: Optional[ParityReport]
    notes: Tuple[str, ...]
    files: Tuple[Path, ...]

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``export --json`` prints.

        ``model``, ``onnx``: paths. ``spec``: as in the file. ``parity``: as ``ParityReport.to_dict``, or null.
        ``notes``: sentences. ``files``: paths written.
        """
        return {
            "model": str(self.model),
            "onnx": str(self.onnx),
            "spec": self.spec.to_dict(),
            "parity": None if self.parity is None else self.parity.to_dict(),
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }


Tell = Callable[[ExportStep], None]


def export_model(
    model: Union[str, Path],
    *,
    to: Optional[Sequence[str]] = None,
    precision: str = "fp32",
    size_hw: Optional[Tuple[int, int]] = None,
    opset: Optional[int] = None,
    verify_path: Optional[Union[str, Path]] = None,
    spec_path: Optional[Union[str, Path]] = None,
    force: bool = False,
    out_dir: Optional[Union[str, Path]] = None,
    name: str = "",
    on_step: Optional[Tell] = None,
) -> ExportResult:
    """Export a checkpoint to ``<stem>.onnx`` and verify it, or check an ``.onnx`` and give it a spec.

    Args:
        model: ``.pth``; or ``.onnx``, which is checked, tried, and stamped where ``spec_path`` is given.
        to: ``("onnx",)``; None: that, and a note on why no engine is built.
        precision: ``fp32``; this version writes no other.
        size_hw: Input size; None: as trained. A checkpoint's only.
        opset: 11 to 17, for a checkpoint; None: 17.
        verify_path: Pictures to verify on; None: ``verify/`` beside the model.
        spec_path: ``spec.json`` used instead of the file's own.
        force: Keep a file that is past its limit.
        out_dir: Where files go; None: beside the model.
        name: Stem of the files; empty: the model's own.
        on_step: Called before and after each step.

    Raises:
        ParityError: If the ONNX does not answer as its checkpoint; nothing is left under the final name.
        ConfigError: If an option makes no sense, or this version does not do it.
        DeviceError: If an engine was asked for.
        ExportError: If there are no pictures to verify on, the size does not fit, or the export failed.
        RtdaError: As its stages do.
    """
    tell: Tell = on_step or (lambda step: None)
    parent = readable_file(model, what="model")
    _check_request(parent, to, precision)
    spec = None if spec_path is None else ModelSpec.load(spec_path)
    folder = writable_folder(parent.parent if out_dir is None else out_dir)
    target = folder / f"{name or parent.stem}.onnx"
    notes = [] if to is not None else [_engine_note(target)]
    if parent.suffix.lower() == ".onnx":
        _check_fixed(parent, size_hw, opset)
        return _export_onnx(parent, target, spec, verify_path, notes, tell)
    opset = _DEFAULT_OPSET if opset is None else opset
    _check_checkpoint_request(parent, spec, size_hw, opset)
    frames = read_frames(stored_frames(parent, verify_path))
    return _export_checkpoint(parent, target, spec, frames, size_hw, opset, force, notes, tell)


def _export_checkpoint(
    parent: Path,
    target: Path,
    spec: Optional[ModelSpec],
    frames: List[NamedFrame],
    size_hw: Optional[Tuple[int, int]],
    opset: int,
    force: bool,
    notes: List[str],
    tell: Tell,
) -> ExportResult:
    from rtda_export.graph import onnx_from_checkpoint

    tell(ExportStep("plan", text=f"onnx (opset {opset}, fp32) -> verify on {len(frames)} pictures"))
    _tell_notes(notes, tell)
    with atomic_path(target) as temporary:
        tell(ExportStep("onnx", "start", path=target))
        started = time.perf_counter()
        onnx_from_checkpoint(parent, temporary, size_hw=size_hw, opset=opset, spec=spec)
        seconds = time.perf_counter() - started
        tell(ExportStep("onnx", path=target, size_bytes=temporary.stat().st_size, seconds=seconds))
        tell(ExportStep("verify", "start"))
        started = time.perf_counter()
        parity = verify(
            parent,
            temporary,
            frames,
            out_dir=target.parent,
            size_hw=size_hw,
            spec=spec,
            names=(parent.name, target.name),
            force=force,
        )
        written = _spec_in(temporary)
    tell(ExportStep("verify", text="torch = onnx", seconds=time.perf_counter() - started, parity=parity))
    if parity.missed:
        kept = f"kept by --force although {'; '.join(parity.missed)}"
        notes = [*notes, kept]
        _tell_notes([kept], tell)
    tell(ExportStep("spec", text=_spec_text(written), path=target))
    pages = [] if parity.page is None else [parity.page]
    return ExportResult(parent, target, written, parity, tuple(notes), (target, *pages))


def _export_onnx(
    parent: Path,
    target: Path,
    spec: Optional[ModelSpec],
    verify_path: Optional[Union[str, Path]],
    notes: List[str],
    tell: Tell,
) -> ExportResult:
    """Check that a given ``.onnx`` runs and answers in numbers; write it with its spec where either is new."""
    from rtda_export.graph import IR_VERSION, OPSETS, read_onnx, stamped

    graph = read_onnx(parent)
    opset = max(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if graph.ir_version > IR_VERSION or opset > OPSETS[-1]:
        notes = [
            *notes,
            f"opset {opset}, ir_version {graph.ir_version}: a Jetson reads up to {OPSETS[-1]} and {IR_VERSION}",
        ]
    tell(ExportStep("plan", text=f"check {parent.name}" + (" and write its spec" if spec else "")))
    _tell_notes(notes, tell)
    frames = read_frames(verify_path) if verify_path is not None else [("a grey picture", _grey(parent, spec))]
    tell(ExportStep("verify", "start"))
    started = time.perf_counter()
    found = _answers(parent, spec, frames)
    seconds = time.perf_counter() - started
    tell(ExportStep("verify", text=f"loads, and its logits are finite on {len(frames)} picture(s)", seconds=seconds))
    files: Tuple[Path, ...] = ()
    if spec is not None or target.resolve() != parent.resolve():
        content = stamped(graph, found)
        write_bytes(target, content)
        files = (target,)
        tell(ExportStep("onnx", path=target, size_bytes=len(content)))
    tell(ExportStep("spec", text=_spec_text(found), path=target))
    return ExportResult(parent, target, found, None, tuple(notes), files)


def _answers(path: Path, spec: Optional[ModelSpec], frames: List[NamedFrame]) -> ModelSpec:
    from rtda_export.networks import open_network
    from rtda_runtime.preprocess import preprocess

    with open_network(path, spec=spec) as network:
        image = np.zeros((1, 3, *network.spec.size_hw), np.float32)
        for name, frame in frames:
            preprocess(frame, network.spec, image)
            if not np.isfinite(network.logits(image)).all():
                raise ExportError(
                    f"{path.name} gives NaN or infinite logits on {name}", hint="look for NaN in its weights"
                )
        return network.spec


def _grey(path: Path, spec: Optional[ModelSpec]) -> np.ndarray:
    height, width = (spec or _spec_in(path)).size_hw
    return np.full((height, width, 3), 127, np.uint8)


def _spec_in(path: Path) -> ModelSpec:
    from rtda_runtime.engines import open_engine

    with open_engine(path, "cpu") as engine:
        return engine.spec


def _check_request(model: Path, to: Optional[Sequence[str]], precision: str) -> None:
    if model.suffix.lower() not in (".pth", ".pt", ".ckpt", ".onnx"):
        raise ExportError(f"{model.name} is no model that can be exported", hint="known: .pth of train, or .onnx")
    unknown = [name for name in to or () if name not in _TARGETS]
    if unknown or (to is not None and not to):
        raise ConfigError(f"unknown --to {','.join(unknown) or '(nothing)'}", hint="known: onnx")
    if precision not in _PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}", hint="known: fp32")
    if to is not None and "engine" in to:
        raise _no_engine(model)
    if precision != "fp32":
        raise ConfigError(
            f"precision {precision} is not available in this version of rtda-deploy", hint="available: --precision fp32"
        )


def _check_checkpoint_request(
    parent: Path, spec: Optional[ModelSpec], size_hw: Optional[Tuple[int, int]], opset: int
) -> None:
    require("torch", extra="export", purpose="to export a checkpoint")
    from rtda_export.graph import check_opset, check_size

    check_opset(opset)
    if size_hw is not None:
        from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

        check_size(size_hw, model_from_checkpoint(read_checkpoint(parent, spec=spec)).size_multiple)


def _no_engine(model: Path) -> DeviceError:
    return DeviceError(
        f"no engine can be built: {_engine_state()}",
        why="an engine runs only on the kind of GPU it was built on, so it is built on the robot, from the .onnx",
        hint=f"here: rtda-deploy export {model} --to onnx; on the robot, with a version that builds engines: "
        f"rtda-deploy export {model.stem}.onnx --to engine",
    )


def _engine_note(target: Path) -> str:
    later = f"on the robot, with a version that does: rtda-deploy export {target.name} --to engine"
    return f"no engine: {_engine_state()}; {later}"


def _engine_state() -> str:
    missing = "" if available("tensorrt") else "TensorRT is not installed here, and "
    return f"{missing}this version of rtda-deploy builds none yet"


def _check_fixed(model: Path, size_hw: Optional[Tuple[int, int]], opset: Optional[int]) -> None:
    for option, given in (("--size", size_hw), ("--opset", opset)):
        if given is not None:
            raise ConfigError(
                f"{option} cannot be changed in {model.name}: it is part of an .onnx file",
                hint=f"export the checkpoint it came from: rtda-deploy export ckpt.pth {option} ...",
            )


def _tell_notes(notes: Sequence[str], tell: Tell) -> None:
    for note in notes:
        tell(ExportStep("note", text=note))


def _spec_text(spec: ModelSpec) -> str:
    height, width = spec.size_hw
    return f"{width}x{height}, {spec.num_classes} classes, mean/std, palette: in the file (rtda.spec)"
