"""ONNX to a TensorRT engine, verified on the GPU at hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence

from rtda_deploy.engine_file import read_sidecar, sidecar_path
from rtda_export.steps.step import ExportEvent, ExportStep, Workbench, copied

if TYPE_CHECKING:
    from rtda_export.tensorrt import BuildProgress

__all__ = ["build_engine"]


def build_engine(bench: Workbench, source: Path, kept: Optional[Sequence[str]]) -> ExportStep:
    """Build the engine and give it its name once it answers as the reference.

    Args:
        bench: What it works with.
        source: ``.onnx`` to build from, under its final name.
        kept: Layers to keep in float32 where precision is a flag; None: as the file says.

    Raises:
        ParityError: If it does not answer as the reference.
        DeviceError: If TensorRT does not build it.
    """
    from rtda_export.tensorrt import engine_from_onnx, engine_path

    request = bench.request
    precision, options = request.engine_precision, request.options.engine
    target = engine_path(request.file(), precision.name, options.dla_core)
    bench.tell(ExportEvent("engine", "start", path=target))
    unverified = bench.folder / target.name
    for path in (target, sidecar_path(target)):  # found there, it is not built again
        if path.is_file():
            copied(path, bench.folder / path.name)

    def progress(told: BuildProgress) -> None:
        bench.tell(ExportEvent("engine", "progress", text=_progress_text(told), path=target))

    made = engine_from_onnx(
        source,
        unverified,
        precision=precision.name,
        keep_fp32=kept,
        spec=request.spec_of_parent,
        on_progress=progress,
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(options)},
    )
    size = unverified.stat().st_size
    notes = (*made.notes, *((made.dla.text,) if made.dla is not None else ()))
    for note in notes:
        bench.tell(ExportEvent("info", text=note))
    text = "" if made.built else "as built before"
    bench.tell(ExportEvent("engine", text=text, path=target, size_bytes=size, seconds=made.seconds))
    parity = bench.verified(
        bench.reference,
        unverified,
        precision,
        text=f"onnx = engine {precision.name}",
        spec=request.spec_of_parent,
        names=(source.name, ""),
    )
    for path in (target, sidecar_path(target)):
        copied(bench.folder / path.name, path)
    return ExportStep(
        "engine",
        target,
        read_sidecar(target).spec,
        parity,
        made.seconds,
        kept_fp32=dict.fromkeys(made.sidecar.built.kept_fp32, "by layer precision"),
        notes=(*notes, *bench.forced(parity)),
        more_files=(sidecar_path(target),),
    )


def _progress_text(progress: BuildProgress) -> str:
    """``1:42`` and, where TensorRT tells, ``1:42, 45 %``."""
    elapsed = f"building, {int(progress.elapsed_s) // 60}:{int(progress.elapsed_s) % 60:02d}"
    share = "" if progress.fraction is None else f", {100 * progress.fraction:.0f} %"
    return progress.note or f"{elapsed}{share}"
