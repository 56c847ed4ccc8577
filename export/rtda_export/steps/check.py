"""An ``.onnx`` that nothing is made of: whether it runs and answers in numbers."""

from __future__ import annotations

import time
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.onnx_file import onnx_spec
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.allowed import IR_VERSION, OPSETS
from rtda_export.parity.frames import NamedFrame, read_frames
from rtda_export.request import Request
from rtda_export.steps.step import ExportEvent, Tell

__all__ = ["check_onnx"]


def check_onnx(request: Request, graph: Any, notes: Sequence[str], tell: Tell) -> Tuple[ModelSpec, Tuple[str, ...]]:
    """The spec of the file, and what there is to say of it.

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
    from rtda_runtime.mask.preprocess import preprocess

    with open_network(request.parent, spec=request.spec) as network:
        image = np.zeros((1, 3, *network.spec.size_hw), np.float32)
        for name, frame in frames:
            preprocess(frame, network.spec, image)
            if not np.isfinite(network.answer(image)).all():
                raise ExportError(
                    f"{request.parent.name} gives NaN or infinite logits on {name}",
                    hint="look for NaN in its weights",
                )
        return network.spec
