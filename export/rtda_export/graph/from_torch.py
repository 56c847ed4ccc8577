"""Checkpoint to ONNX: deploy view, batch norms folded, fixed shape, the ModelSpec in the metadata.

The graph holds only plain operators that TensorRT 8.5 (a Xavier's) parses, at opset <= 17 and ir_version 8, which the
last ONNX Runtime for Python 3.8 still reads. Nothing in the file depends on the machine or the minute it was made.
"""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtda_deploy import __version__
from rtda_deploy.border import reason
from rtda_deploy.errors import ExportError
from rtda_deploy.familiar import MONITOR
from rtda_deploy.files import readable_file, sha256_file, write_bytes
from rtda_deploy.model_files import impostor
from rtda_deploy.onnx_file import CARD_KEY, SPEC_KEY
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.allowed import IR_VERSION, check_input, check_opset, check_output, check_size
from rtda_export.graph.nodes import drop_unused_weights, replace_nodes
from rtda_export.precision.fp32 import FP32

if TYPE_CHECKING:
    from rtda_export.graph.rewrite import Rewrite
    from rtda_training.checkpoint import Checkpoint
    from rtda_training.models import DeployView

__all__ = [
    "INPUT_NAME",
    "OUTPUT_NAME",
    "onnx_from_checkpoint",
    "read_onnx",
    "stamped",
]

INPUT_NAME = "image"
OUTPUT_NAME = "logits"


def onnx_from_checkpoint(
    checkpoint_path: str | Path,
    out_path: str | Path,
    *,
    size_hw: tuple[int, int] | None = None,
    opset: int = 17,
    spec: ModelSpec | None = None,
    input: str = "float32",
    layout: str | None = None,
    output: str = "logits",
    confidence: bool = False,
    batch: int = 1,
    rewritten: bool = True,
    monitor: bool = False,
) -> Path:
    """Write a checkpoint's network as ONNX: float32 ``image`` (N, 3, H, W) to ``logits`` (N, C, H/8, W/8).

    The metadata ``rtda.spec`` holds the spec as JSON, its provenance extended by the checkpoint's sha256 and by the
    versions that made the file. :func:`rtda_export.export_model` does this and verifies the result.

    Args:
        checkpoint_path: ``.pth`` of ``rtda-deploy train``, or of the lineages that ``read_checkpoint`` knows.
        out_path: ``.onnx`` to write, whole or not at all.
        size_hw: Input height and width; None: as trained.
        opset: 11 to 17.
        spec: Used instead of the checkpoint's own.
        input: ``float32`` normalised; ``uint8``: the resized frame BGR, the rest is made in the graph, for programs
            other than ours; ``pixels``: the same as float32.
        layout: Of the input: ``nhwc`` or ``nchw``; None: nhwc for uint8, else nchw.
        output: ``logits``; or made in the graph, for programs other than ours, ``mask``: class ids uint8 (N, H, W), or
            ``probabilities`` of all classes, float32 (N, C, H, W).
        confidence: With ``mask``: a second output, float32 (N, H, W), the winner's probability.
        batch: Pictures at a time, N, fixed in the file; this project's runtime takes 1.
        rewritten: Whether convolutions of enlarged maps are computed where the maps are small; see
            :mod:`rtda_export.graph.rewrite`. The provenance lists them.
        monitor: With ``logits`` of one picture: a second output for the shift alarm; see
            :mod:`rtda_export.graph.monitor`.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        ExportError: If torch cannot export.
        ConfigError: If the size is no multiple of the network's stride, the opset none that every target reads, or
            another argument makes no sense.
        FileAccessError: If a file cannot be read or written.
        MissingPackageError: If torch or onnx is not installed.
    """
    for package in ("torch", "onnx"):
        require(package, extra="export", purpose="to export a checkpoint")
    check_opset(opset)
    layout = check_input(input, layout)
    check_output(output, confidence=confidence, batch=batch, monitor=monitor)
    from rtda_export.graph.inputs import with_pixel_input
    from rtda_export.graph.monitor import with_monitor
    from rtda_export.graph.outputs import with_batch, with_mask_output, with_probabilities
    from rtda_export.graph.padding import pads_into_convolutions
    from rtda_export.graph.resizing import constant_sizes
    from rtda_export.graph.rewrite import rewrite
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

    checkpoint = read_checkpoint(checkpoint_path, spec=spec)
    model = model_from_checkpoint(checkpoint)
    sized = checkpoint.spec.replace(size_hw=check_size(size_hw or checkpoint.spec.size_hw, model.size_multiple))
    graph = _traced(model.deploy_view(), sized, opset, maps=monitor)
    constant_sizes(graph)
    pads_into_convolutions(graph)
    changes = rewrite(graph) if rewritten else ()
    if monitor:
        sized = with_monitor(graph, sized)
    if batch > 1:
        with_batch(graph, batch)
    if output == "mask":
        sized = with_mask_output(graph, sized, confidence=confidence)
    elif output == "probabilities":
        sized = with_probabilities(graph, sized)
    if input != "float32":
        sized = with_pixel_input(graph, sized, input=input, layout=layout)
    _simplify(graph)
    if checkpoint.card:
        require("onnx", extra="export").helper.set_model_props(graph, {CARD_KEY: checkpoint.card})
    return write_bytes(out_path, stamped(graph, _with_provenance(sized, checkpoint, opset, changes, monitor)))


def read_onnx(path: str | Path) -> Any:
    """The ``onnx.ModelProto`` of a file, checked; weights in a file beside it are loaded too.

    Raises:
        ExportError: If it is no whole, valid ONNX model.
        FileAccessError: If it cannot be read.
    """
    onnx = require("onnx", extra="export", purpose="to read .onnx files")
    file = readable_file(path, what="model")
    try:
        graph = onnx.load(str(file))
        onnx.checker.check_model(graph)
    except Exception as err:  # protobuf's and onnx's errors share no base
        found = impostor(file)
        raise ExportError(
            f"{file.name} is no valid ONNX model",
            why=f"it is {found.text}" if found else reason(err),
            hint=found.hint
            if found
            else "was it copied to its end? Compare its size with the original's, or export it again",
        ) from err
    if not graph.graph.input or not graph.graph.output:
        missing = "input" if not graph.graph.input else "output"
        raise ExportError(f"{file.name} has no {missing}", hint="export the network again with a picture as its input")
    return graph


def stamped(graph: Any, spec: ModelSpec) -> bytes:
    """The bytes of an ``onnx.ModelProto`` with ``spec`` first in its metadata; other metadata is kept."""
    kept = {entry.key: entry.value for entry in graph.metadata_props if entry.key != SPEC_KEY}
    require("onnx", extra="export").helper.set_model_props(graph, {SPEC_KEY: spec.to_json(), **kept})
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _traced(view: DeployView, spec: ModelSpec, opset: int, *, maps: bool = False) -> Any:
    """The graph of a view; ``maps``: with those of the backbone that signals are made of as further outputs."""
    import onnx
    import torch

    from rtda_export.graph.fold import fold_batchnorms
    from rtda_export.graph.monitor import MAP_NAMES, giving_maps

    image = torch.zeros(1, 3, *spec.size_hw)
    fold_batchnorms(view, image)
    buffer = io.BytesIO()
    export: Any = torch.onnx.export  # its annotations leave out the streams it takes
    names = [OUTPUT_NAME, *MAP_NAMES] if maps else [OUTPUT_NAME]
    options = {"opset_version": opset, "input_names": [INPUT_NAME], "output_names": names}
    if "dynamo" in inspect.signature(export).parameters:  # the newer exporter writes opset 18 and later only
        options["dynamo"] = False
    try:
        with _quiet(), torch.no_grad(), giving_maps(view) if maps else nullcontext():
            export(view, (image,), buffer, **options)
    except RuntimeError as err:  # torch.onnx's own errors derive from it
        raise ExportError(
            f"torch {torch.__version__} cannot export this network at opset {opset}",
            why=(str(err).strip().splitlines() or [""])[0][:200],
            hint="--opset 17, or another torch: pip install 'rtda-deploy[export]'",
        ) from err
    return onnx.load_from_string(buffer.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracer's warnings and the exporter's chatter; its errors still come out."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _simplify(model: Any) -> None:
    """Drop what the exporter leaves behind: shared weights routed through Identity, unused weights, stack traces."""
    graph = model.graph
    results = {output.name for output in graph.output}
    origin: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.output[0] not in results:
            origin[node.output[0]] = origin.get(node.input[0], node.input[0])
        else:
            kept.append(node)
    for node in kept:
        node.doc_string = ""
        for index, name in enumerate(node.input):
            node.input[index] = origin.get(name, name)
    replace_nodes(graph, kept)
    drop_unused_weights(graph)
    graph.name = "rtda-deploy"
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "rtda-deploy", __version__
    require("onnx", extra="export").checker.check_model(model, full_check=True)


def _with_provenance(
    spec: ModelSpec, checkpoint: Checkpoint, opset: int, changes: tuple[Rewrite, ...], monitor: bool
) -> ModelSpec:
    import onnx
    import torch

    from rtda_training.ancestry import EXPORTED, descended

    path = Path(checkpoint.path)
    made_by: Mapping[str, Any] = {
        "opset": opset,
        "precision": FP32.name,
        "rewritten": {change.node: {"macs": [change.macs_before, change.macs_after]} for change in changes},
        "versions": {"rtda-deploy": __version__, "torch": str(torch.__version__), "onnx": str(onnx.__version__)},
    }
    if monitor:
        made_by = {**made_by, MONITOR: spec.provenance["export"][MONITOR]}
    sha256 = sha256_file(path)
    ancestry = descended(EXPORTED, checkpoint.spec.provenance, parent_sha256=sha256, card=checkpoint.card)
    more = {"parent": path.name, "parent_sha256": sha256, "export": made_by, "ancestry": ancestry}
    return spec.replace(provenance={**spec.provenance, **more})
