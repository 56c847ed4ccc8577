"""Checkpoint to float32 ONNX; the last touch of every ONNX file: its batch, input and outputs; and an ``.onnx`` that
nothing is made of: whether it runs and answers in numbers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.files import write_bytes
from rtda_deploy.onnx_file import onnx_spec
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.allowed import IR_VERSION, OPSETS
from rtda_export.options import ExportOptions
from rtda_export.parity.frames import NamedFrame, read_frames
from rtda_export.precision import FP32
from rtda_export.request import Request
from rtda_export.steps.familiar import give_blocks
from rtda_export.steps.step import ExportEvent, ExportStep, Tell, Workbench, copied

__all__ = ["check_onnx", "finish", "write_onnx"]

_PLAIN = {"output": "logits", "input": "float32", "layout": "nchw"}  # a spec that is given may be of a finished file


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
    asked = None if request.spec is None else request.spec.replace(**_PLAIN)
    onnx_from_checkpoint(
        request.parent,
        bench.reference,
        size_hw=options.size_hw,
        opset=options.onnx_opset,
        spec=asked,
        rewritten=options.rewritten,
        monitor=options.monitor,
    )
    unverified = copied(bench.reference, bench.folder / target.name)
    finish(unverified, options)
    if options.footage is not None:
        give_blocks(unverified, options.footage, bench.tell, target=target)
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


def finish(path: Path, options: ExportOptions, contract: Optional[ModelSpec] = None) -> None:
    """Give a file with plain planes and logits the batch, input and outputs that were asked for; in place.

    Args:
        path: ``.onnx``.
        options: What was asked for.
        contract: With the order, scale, mean and std of the network, where the file takes centred pixels; None: its
            own.
    """
    if options.output == "logits" and options.input == "float32" and options.batch == 1:
        return
    import onnx

    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.graph.inputs import with_pixel_input
    from rtda_export.graph.outputs import with_batch, with_mask_output, with_probabilities

    model, spec = read_onnx(path), onnx_spec(path)
    if options.batch > 1:
        with_batch(model, options.batch)
    if options.output == "mask":
        spec = with_mask_output(model, spec, confidence=options.confidence)
    elif options.output == "probabilities":
        spec = with_probabilities(model, spec)
    if options.input != "float32":
        spec = with_pixel_input(model, spec, input=options.input, layout=options.input_layout)
        spec = spec if contract is None else _normalised_as(contract, spec)
    onnx.checker.check_model(model, full_check=True)
    write_bytes(path, stamped(model, spec))


def _normalised_as(contract: ModelSpec, spec: ModelSpec) -> ModelSpec:
    """A spec with the colours and numbers of another; all of that is done in the graph."""
    fields = ("channel_order", "pixel_scale", "mean", "std")
    return spec.replace(**{field: getattr(contract, field) for field in fields})


def _rewritten(spec: ModelSpec) -> str:
    """What rewriting saved, for people."""
    changes = [made["macs"] for made in spec.provenance["export"]["rewritten"].values()]
    saved = sum(before - after for before, after in changes)
    text = f"{saved / 1e9:.1f} billion" if saved >= 1e9 else f"{saved / 1e6:.1f} million"
    return f"rewriting saves {text} multiply-adds " if changes else ""


def check_onnx(request: Request, graph: Any, notes: Sequence[str], tell: Tell) -> Tuple[ModelSpec, Tuple[str, ...]]:
    """The spec of the file, and notes on it for people.

    Args:
        request: What was asked for.
        graph: ``onnx.ModelProto`` of the file.
        notes: What is told first.
        tell: Told of progress.

    Raises:
        ExportError: If it does not run, or gives NaN or infinity.
    """
    more: Tuple[str, ...] = ()
    opset = max(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if graph.ir_version > IR_VERSION or opset > OPSETS[-1]:
        more = (f"opset {opset}, ir_version {graph.ir_version}: a Jetson reads up to {OPSETS[-1]} and {IR_VERSION}",)
    for note in (*notes, *more):
        tell(ExportEvent("note", text=note))
    tell(ExportEvent("verify", "start"))
    started = time.perf_counter()
    frames = _frames(request)
    found = _answers(request, frames)
    text = f"loads, and its logits are finite on {len(frames)} picture(s)"
    tell(ExportEvent("verify", text=text, seconds=time.perf_counter() - started))
    return found, more


def _frames(request: Request) -> List[NamedFrame]:
    path: Optional[Any] = request.options.verify_path
    if path is not None:
        return read_frames(path)
    height, width = (request.spec or onnx_spec(request.parent)).size_hw
    return [("a grey picture", np.full((height, width, 3), 127, np.uint8))]


def _answers(request: Request, frames: List[NamedFrame]) -> ModelSpec:
    from rtda_export.parity.networks import open_network
    from rtda_runtime.mask.preprocess import network_input, preprocess

    with open_network(request.parent, spec=request.spec) as network:
        image = network_input(network.spec)
        for name, frame in frames:
            preprocess(frame, network.spec, image)
            if not np.isfinite(network.answer(image)).all():
                raise ExportError(
                    f"{request.parent.name} gives NaN or infinite logits on {name}",
                    hint="look for NaN in its weights",
                )
        return network.spec
