"""Checkpoint to float32 ONNX; and the last touch of every ONNX file: its batch and its outputs."""

from __future__ import annotations

import time
from pathlib import Path

from rtda_deploy.files import write_bytes
from rtda_deploy.onnx_file import onnx_spec
from rtda_deploy.spec import ModelSpec
from rtda_export.options import ExportOptions
from rtda_export.precision import FP32
from rtda_export.steps.step import ExportEvent, ExportStep, Workbench, copied

__all__ = ["finish", "write_onnx"]


def write_onnx(bench: Workbench) -> ExportStep:
    """Write the reference and, made of it, the file under its final name.

    Raises:
        ParityError: If it does not answer as the checkpoint.
    """
    from rtda_export.graph.from_torch import onnx_from_checkpoint

    request = bench.request
    target, options = request.file(), request.options
    bench.tell(ExportEvent("onnx", "start", path=target))
    started = time.perf_counter()
    asked = None if request.spec is None else request.spec.replace(output="logits")
    onnx_from_checkpoint(
        request.parent,
        bench.reference,
        size_hw=options.size_hw,
        opset=options.onnx_opset,
        spec=asked,
        rewritten=options.rewritten,
    )
    unverified = copied(bench.reference, bench.folder / target.name)
    finish(unverified, options)
    seconds, spec = time.perf_counter() - started, onnx_spec(unverified)
    size = unverified.stat().st_size
    bench.tell(ExportEvent("onnx", text=_rewritten(spec), path=target, size_bytes=size, seconds=seconds))
    parity = bench.verified(
        request.parent,
        unverified,
        FP32,
        text="torch = onnx",
        spec=asked,
        size_hw=options.size_hw,
        page="verify.html",
    )
    copied(unverified, target)
    return ExportStep("onnx", target, spec, parity, seconds, notes=bench.forced(parity))


def finish(path: Path, options: ExportOptions) -> None:
    """Give a file with plain logits the batch and the outputs that were asked for; in place."""
    if options.output == "logits" and options.batch == 1:
        return
    import onnx

    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.graph.outputs import with_batch, with_mask_output

    model, spec = read_onnx(path), onnx_spec(path)
    if options.batch > 1:
        with_batch(model, options.batch)
    if options.output == "mask":
        spec = with_mask_output(model, spec, confidence=options.confidence)
    onnx.checker.check_model(model, full_check=True)
    write_bytes(path, stamped(model, spec))


def _rewritten(spec: ModelSpec) -> str:
    """What rewriting saved, for people."""
    changes = [made["macs"] for made in spec.provenance["export"]["rewritten"].values()]
    saved = sum(before - after for before, after in changes)
    text = f"{saved / 1e9:.1f} billion" if saved >= 1e9 else f"{saved / 1e6:.1f} million"
    return f"rewriting saves {text} multiply-adds " if changes else ""
