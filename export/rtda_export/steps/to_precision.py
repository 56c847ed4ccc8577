"""Float32 ONNX to one of a lower precision, as the precision's own row makes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ParityError
from rtda_deploy.files import write_bytes
from rtda_deploy.onnx_file import onnx_spec
from rtda_deploy.spec import ModelSpec
from rtda_export.parity.frames import NamedFrame
from rtda_export.precision import FP32, Made, Precision, Work
from rtda_export.precision.metadata import note_precision
from rtda_export.steps.familiar import give_blocks
from rtda_export.steps.scores import miou_missed, scores
from rtda_export.steps.step import ExportEvent, ExportStep, Workbench, copied
from rtda_export.steps.to_onnx import finish
from rtda_runtime.engines.trial import Trial, trials

__all__ = ["reduce_precision"]

_PROGRESS = {
    "ranges": "ranges of activations",
    "calibrate": "calibrating, frame",
    "compare": "comparing ways to calibrate",
    "rank": "looking for what loses agreement",
    "drop": "looking for what can be spared",
    "time": "timing against fp32",
}


def reduce_precision(bench: Workbench, precision: Precision) -> ExportStep:
    """Make the file of ``precision``, score it where labelled pictures are given, and verify it.

    Raises:
        ParityError: If it does not answer as the reference, or scores too far below it.
    """
    request = bench.request
    target = request.file(precision)
    bench.tell(ExportEvent(precision.name, "start", path=target))
    started = time.perf_counter()
    unverified = bench.folder / target.name
    made = _made(bench, precision, unverified)
    contract = request.spec_of_parent or onnx_spec(bench.reference)
    finish(unverified, request.options, contract)
    if request.options.footage is not None:
        give_blocks(unverified, request.options.footage, bench.tell, target=target)
    tries = _trials(bench, precision, unverified)
    tried = tuple(trial.sentence for trial in tries if trial.error)
    kernels = _kernels(unverified, precision, tries)
    seconds, size = time.perf_counter() - started, unverified.stat().st_size
    text = f"{len(made.kept_fp32)} layers kept in fp32" if made.kept_fp32 else ""
    bench.tell(ExportEvent(precision.name, text=text, path=target, size_bytes=size, seconds=seconds))
    parity = bench.verified(
        bench.reference,
        unverified,
        precision,
        text=f"onnx = {precision.name}",
        spec=request.spec_of_parent,
    )
    if not request.options.force:
        _check_loss(precision, made.miou)
    copied(unverified, target)
    for note in (*made.notes, *kernels):
        bench.tell(ExportEvent("info", text=note))
    for note in tried:
        bench.tell(ExportEvent("note", text=note))
    notes = (*made.notes, *kernels, *tried, *bench.forced(parity))
    return ExportStep(precision.name, target, onnx_spec(target), parity, seconds, made.kept_fp32, made.miou, notes)


def _made(bench: Workbench, precision: Precision, out: Path) -> Made:
    assert precision.make is not None, "float32 is no lower precision"
    request = bench.request
    reference, spec = _reference(bench)

    def progress(step: str, done: int, total: int) -> None:
        text = f"{_PROGRESS.get(step, step)} {done}/{total}"
        bench.tell(ExportEvent(precision.name, "progress", text=text))

    made = precision.make(
        Work(
            reference=reference,
            out=out,
            spec=_reduced_spec(spec, precision),
            images=_Images(bench.frames, spec),
            calibration=_Images(bench.seen, spec),
            target=request.options.target,
            progress=progress,
            score=lambda: scores(bench, out),
        )
    )
    if made.for_parent and request.from_checkpoint:
        note_precision(request.file(), {"precision": FP32.name, **made.for_parent})
    return made


def _reference(bench: Workbench) -> Tuple[Path, ModelSpec]:
    """What the file is made of, and its spec: of one that will take a camera's bytes on a CPU, a copy of the reference
    that takes centred pixels where it can, so that no step of the file rounds the picture."""
    options = bench.request.options
    spec = bench.request.spec_of_parent or onnx_spec(bench.reference)
    if options.input != "uint8" or options.target != "cpu":
        return bench.reference, spec
    from rtda_export.graph.centred import with_centred_input
    from rtda_export.graph.from_torch import read_onnx, stamped

    model = read_onnx(bench.reference)
    centred = with_centred_input(model, spec)
    if centred is None:
        return bench.reference, spec
    path = bench.folder / "centred" / bench.reference.name
    path.parent.mkdir(exist_ok=True)
    return write_bytes(path, stamped(model, centred)), centred


def _trials(bench: Workbench, precision: Precision, path: Path) -> Sequence[Trial]:
    """Run the file in every library here and write into it which cannot take it.

    A file of a larger batch is for other programs: nothing of ours would run it.
    """
    if bench.request.options.batch > 1:
        return ()
    bench.tell(ExportEvent(precision.name, "progress", text="trying it in every library that is installed"))
    found = trials(path)
    note_precision(path, {"libraries": {trial.library: trial.to_dict() for trial in found}})
    return found


def _kernels(path: Path, precision: Precision, tries: Sequence[Trial]) -> Tuple[str, ...]:
    """Where OpenVINO runs an INT8 file: how much of it runs in 8 bits there, and what does not."""
    if precision.name != "int8" or not any(trial.library == "openvino" and not trial.error for trial in tries):
        return ()
    from rtda_runtime.engines.openvino_kernels import convolutions_sentence, layers_of

    sentence = convolutions_sentence(layers_of(path, runs=1))
    return (sentence,) if sentence else ()


def _reduced_spec(spec: ModelSpec, precision: Precision) -> ModelSpec:
    made_by = {**spec.provenance.get("export", {}), "precision": precision.name}
    return spec.replace(provenance={**spec.provenance, "export": made_by})


def _check_loss(precision: Precision, miou: Optional[Tuple[float, float]]) -> None:
    lost = miou_missed(precision, miou)
    if not lost:
        return
    raise ParityError(
        f"{precision.title} {lost}",
        why="leaving more layers in float, up to half of them, did not bring it back",
        hint="calibrate on more pictures of what the robot sees, or use fp16; to keep the file as it is: --force",
    )


class _Images(Sequence[np.ndarray]):
    """Pictures as the network takes them, made when asked for: dozens of them would fill the memory."""

    def __init__(self, frames: Sequence[NamedFrame], spec: ModelSpec) -> None:
        self._frames = frames
        self._spec = spec

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        from rtda_runtime.mask.preprocess import network_input, preprocess

        if isinstance(index, slice):
            return _Images(self._frames[index], self._spec)
        image = network_input(self._spec)
        preprocess(self._frames[index][1], self._spec, image)
        return image

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))
