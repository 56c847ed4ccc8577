"""INT8: Q/DQ nodes in the ONNX, calibrated on real frames, sensitive layers left in float by measurement.

``onnxruntime.quantization`` inserts the nodes. Chosen here are the layout that each kind of engine fuses, the ranges,
and the nodes that stay in float: what follows the last convolution and what works on a single pixel always do, because
they cost nothing; further ones are searched for where the masks need it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.files import write_bytes
from rtda_deploy.optional import require
from rtda_export.graph.nodes import drop_unused_weights, lift_constants, named, replace_nodes
from rtda_export.graph.norms import norms_as_convolutions
from rtda_export.graph.pools import padded_pools_as_convolutions
from rtda_export.parity.report import percent
from rtda_export.precision.activations import answers, check_images, reference_answers, signal_to_noise
from rtda_export.precision.calibration import METHODS, Calibration, calibrate
from rtda_export.precision.metadata import precision_of, with_precision
from rtda_export.precision.sensitivity import Progress, Sensitivity

__all__ = ["Quantized", "int8_onnx"]

_CHECKED_FRAMES = 8  # of the calibration frames, when none are given to measure the agreement on
_CONVOLUTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# On a CPU every operator that has an integer kernel is quantised: a float one between two others costs two conversions.
# TensorRT moves Q and DQ across the others by itself, and wants them at the inputs of convolutions and residual sums.
_OPERATORS = {
    "tensorrt": ("Add", "Conv"),
    "cpu": ("Add", "Clip", "Concat", "Conv", "GlobalAveragePool", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid"),
}


@dataclasses.dataclass(frozen=True)
class Quantized:
    """An INT8 file, and what it took.

    Attributes:
        path: The file.
        target: ``tensorrt`` or ``cpu``.
        kept_float: Names of the nodes left in float of those that could have been quantised, in the graph's order.
        reasons: Why, by name.
        quantised: How many nodes are INT8.
        agreement_before: Share of pixels, 0..1, of all checked frames together that agree with float32, with nothing
            left in float that was searched for.
        agreement_after: The same of the file that was written.
        limit: What was asked for.
        calibration: ``method``, ``frames``, ``checked_frames``, and ``signal_to_noise_db`` of the logits by method.
    """

    path: Path
    target: str
    kept_float: tuple[str, ...]
    reasons: dict[str, str]
    quantised: int
    agreement_before: float
    agreement_after: float
    limit: float
    calibration: dict[str, Any]

    @property
    def report(self) -> list[str]:
        """For people, a sentence a line."""
        found = self.calibration
        lines = [
            f"int8 for {self.target}: {self.quantised} nodes, ranges by {found['method']} of {found['frames']} frames; "
            f"{percent(self.agreement_after)} of the pixels agree with float32 on {found['checked_frames']} frames"
        ]
        searched = [name for name in self.kept_float if self.reasons[name].startswith("alone")]
        if searched:
            lines.append(f"before {len(searched)} nodes were left in float: {percent(self.agreement_before)}")
            lines += [f"{name}: {self.reasons[name]}" for name in searched]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; shares are 0..1."""
        return {**dataclasses.asdict(self), "path": str(self.path), "kept_float": list(self.kept_float)}


def int8_onnx(
    model_path: str | Path,
    images: Sequence[np.ndarray],
    out_path: str | Path,
    *,
    target: str = "tensorrt",
    keep_float: Collection[str] = (),
    limit: float = 0.98,
    method: str = "auto",
    check: Sequence[np.ndarray] | None = None,
    max_float: float = 0.5,
    input_range: tuple[float, float] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Quantized:
    """Write an INT8 version of a float32 ONNX; float32 at its border, the metadata carried over.

    Args:
        model_path: ``.onnx`` in float32, opset 13 to 17, fixed shapes.
        images: Calibration frames, preprocessed, float32 (1, 3, H, W) each: what the robot sees, some dozens.
        out_path: File to write, whole or not at all. The same input gives the same bytes.
        target: ``tensorrt``: symmetric int8, weights per channel as float with Q and DQ, float biases. ``cpu``: uint8
            activations and int8 weights per channel with int32 biases, for ONNX Runtime and OpenVINO on a CPU with
            VNNI; one without it may saturate.
        keep_float: Nodes to leave in float whatever is measured.
        limit: Share of pixels, 0..1, of all checked frames that should agree with float32.
        method: A key of ``calibration.METHODS``; ``auto``: the one that changes the logits least.
        check: Frames to measure on; None: eight of ``images``.
        max_float: Stop searching when this share of the nodes is left in float: INT8 is then not for this network.
        input_range: Of the network's input, where it is known; None: as on the calibration frames.
        threads: Of ONNX Runtime; 0: as many as there are cores.
        progress: Called with (``calibrate``, ``compare``, ``rank`` or ``drop``, done, total).

    Returns:
        What was written. It may be below the limit, see ``agreement_after``.

    Raises:
        ConfigError: If an option makes no sense.
        ExportError: If the model or the frames cannot be used.
        FileAccessError: If a file cannot be read or written.
    """
    _check_options(target, method, limit, max_float)
    from rtda_export.graph.from_torch import read_onnx

    source = _prepared(read_onnx(model_path), target)
    size_hw = check_images(source, images)
    checked = _spread(images) if check is None else check
    check_images(source, checked)
    tell: Progress = progress or (lambda step, done, total: None)
    units, reasons = _units(source, target, keep_float)
    produced = [name for node in source.graph.node for name in node.output]
    found = calibrate(
        source,
        images,
        produced,
        known=None if input_range is None else {source.graph.input[0].name: input_range},
        threads=threads,
        tell=lambda done, total: tell("calibrate", done, total),
    )
    writer = _Writer(source, target, units)
    reference = reference_answers(source, checked, threads=threads)
    noise = _compare(writer, found, reference, checked, METHODS if method == "auto" else (method,), threads, tell)
    chosen = max(noise, key=lambda name: noise[name])
    ranges = found.ranges(chosen)

    def respond(keep: frozenset[str], frames: Sequence[int]) -> list[np.ndarray]:
        return answers(writer.model(ranges, keep), [checked[index] for index in frames], threads=threads)

    search = Sensitivity(units, respond, reference, size_hw, limit=limit, score=mean, tell=tell)
    before, after, needed = _needed(search, limit, most=int(max_float * len(units)))
    reasons.update(needed)
    kept = tuple(node.name for node in source.graph.node if node.name in reasons)
    result = Quantized(
        path=Path(out_path),
        target=target,
        kept_float=kept,
        reasons={name: reasons[name] for name in kept},
        quantised=sum(name not in reasons for name in units),
        agreement_before=before,
        agreement_after=after,
        limit=limit,
        calibration={
            "method": chosen,
            "frames": found.frames,
            "checked_frames": len(checked),
            "signal_to_noise_db": {name: round(value, 2) for name, value in noise.items()},
        },
    )
    written = writer.model(ranges, frozenset(kept))
    with_precision(written, _facts(result, precision_of(source)))
    write_bytes(out_path, written.SerializeToString(deterministic=True))
    return result


def _check_options(target: str, method: str, limit: float, max_float: float) -> None:
    if target not in _OPERATORS:
        raise ConfigError(f"unknown target {target!r}", hint=f"known: {', '.join(_OPERATORS)}")
    if method not in ("auto", *METHODS):
        raise ConfigError(f"unknown calibration method {method!r}", hint=f"known: auto, {', '.join(METHODS)}")
    if not 0 < limit <= 1 or not 0 <= max_float <= 1:
        raise ConfigError(
            f"limit and max_float must be shares up to 1, got {limit} and {max_float}",
            hint="such as limit=0.98, max_float=0.5",
        )


def _needed(search: Sensitivity, limit: float, *, most: int) -> tuple[float, float, dict[str, str]]:
    """Agreement with nothing more left in float and with what is needed for the limit; and that, with its reasons."""
    before = mean(search.shares(frozenset()))
    if before >= limit:
        return before, before, {}
    errors = search.needed(frozenset(), most=most)
    reasons = {
        name: f"alone in int8 it moves the logits by {error:.1e} of their size" for name, error in errors.items()
    }
    return before, mean(search.shares(frozenset(errors))), reasons


class _Writer:
    """A float32 model with Q/DQ nodes around the units that are not kept."""

    def __init__(self, source: Any, target: str, units: Sequence[str]) -> None:
        self._onnx = require("onnx", extra="export")
        require("onnxruntime.quantization", extra="export", purpose="to quantise")
        self._source, self._target, self._units = source, target, list(units)

    def model(self, ranges: dict[str, tuple[float, float]], keep: frozenset[str]) -> Any:
        from onnxruntime.quantization import CalibrationMethod, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        chosen = [name for name in self._units if name not in keep]
        model = self._onnx.ModelProto()
        model.CopyFrom(self._source)
        if not chosen:  # an empty list would mean all
            return model
        data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
        operators = list(_OPERATORS[self._target])
        with _quiet():
            quantizer = QDQQuantizer(
                model,
                True,  # per channel
                False,  # reduced range: of CPUs without VNNI
                QuantType.QInt8,
                QuantType.QInt8 if self._target == "tensorrt" else QuantType.QUInt8,
                TensorsData(CalibrationMethod.MinMax, data),
                chosen,
                [],
                operators,
                _options(self._target, operators),
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        return self._finished(quantizer.model.model, set(chosen))

    def _finished(self, model: Any, chosen: set[str]) -> Any:
        """The library's own marks taken out, ours kept."""
        if self._target == "tensorrt":
            _free_sums(self._onnx, model.graph)
        self._free_readers(model.graph, chosen)
        metadata = {entry.key: entry.value for entry in self._source.metadata_props}
        self._onnx.helper.set_model_props(model, metadata)
        model.producer_name, model.producer_version = self._source.producer_name, self._source.producer_version
        model.ir_version = self._source.ir_version
        del model.graph.value_info[:]
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def _free_readers(self, graph: Any, chosen: set[str]) -> None:
        """Let float nodes read the network's input as it came; the library gives all readers the rounded one."""
        entry = graph.input[0].name
        rounded = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == entry}
        rounded = {node.output[0] for node in graph.node if node.input and node.input[0] in rounded}
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in rounded and node.name not in chosen:
                    node.input[index] = entry


def _options(target: str, operators: list[str]) -> dict[str, Any]:
    if target == "cpu":
        return {"ActivationSymmetric": False, "WeightSymmetric": True}
    # TensorRT: zero points of 0, Q and DQ in pairs that no two layers share, int32 biases not understood, and outputs
    # left alone so that a convolution fuses with the activation behind it (options as ONNX Runtime documents for it).
    return {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": operators,
    }


def _free_sums(onnx: Any, graph: Any) -> None:
    """Take Q and DQ from one input of each residual sum: the convolution there then fuses with the sum.

    Source: NVIDIA's Q/DQ placement for residual networks (TensorFlow-Quantization toolkit, ResNetV1QDQCase): only the
    other branch is quantised.
    """
    producers = {name: node for node in graph.node for name in node.output}
    removed: list[Any] = []
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for index, name in enumerate(node.input):
            dequantize = producers.get(name)
            quantize = producers.get(dequantize.input[0]) if dequantize is not None else None
            if dequantize is None or quantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            origin = producers.get(quantize.input[0])
            if origin is not None and origin.op_type == "Conv":
                node.input[index] = quantize.input[0]
                removed += [dequantize, quantize]
                break
    read = {name for node in graph.node if node not in removed for name in node.input}
    # A map without an activation, as between the blocks of a MobileNet, is read by the next convolution too.
    removed = [node for node in removed if not _read_elsewhere(node, removed, read)]
    gone = {output for node in removed for output in node.output}
    kept = [node for node in graph.node if not gone & set(node.output)]
    replace_nodes(graph, kept)
    drop_unused_weights(graph)


def _read_elsewhere(node: Any, removed: list[Any], read: set[str]) -> bool:
    """Whether a node that stays reads what this one gives, by itself or through a node of ``removed``."""
    behind = [other for other in removed if set(other.input) & set(node.output)]
    return bool(read & set(node.output)) or any(_read_elsewhere(other, removed, read) for other in behind)


def _prepared(model: Any, target: str) -> Any:
    """Named nodes, constants as weights, shapes known: what the library needs; for a CPU no batch norm by itself."""
    onnx = require("onnx", extra="export")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < 13:
        raise ExportError(
            f"opset {opset} has no scale per channel, int8 needs 13 or later",
            hint="export the checkpoint again: rtda-deploy export ckpt.pth --opset 17",
        )
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ExportError("the model is quantised already", hint="start from the float32 model")
    result = named(model)
    lift_constants(onnx, result.graph)
    result = onnx.shape_inference.infer_shapes(result, data_prop=True)
    if target == "cpu":
        padded_pools_as_convolutions(result)
        norms_as_convolutions(result)
    return result


def _units(model: Any, target: str, keep_float: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Nodes to quantise, and those that stay in float whatever is measured, with the reason."""
    _check_names(model, keep_float)
    shapes = _shapes(model)
    weights = {weight.name for weight in model.graph.initializer}
    before_convolution = _leads_to_convolution(model)
    units: list[str] = []
    cheap: dict[str, str] = {}
    for node in model.graph.node:
        inputs = [name for name in node.input if name and name not in weights]
        if node.op_type not in _OPERATORS[target] or (
            target == "tensorrt" and node.op_type == "Add" and len(inputs) < 2
        ):
            continue
        sides = [shapes.get(name, (1,)) for name in (*inputs, *node.output)]
        if not any(np.prod(shape[2:]) > 1 for shape in sides):
            cheap[node.name] = "works on a single pixel"
        elif node.name not in before_convolution:
            cheap[node.name] = "no convolution follows: its rounding would go straight into the masks"
        else:
            units.append(node.name)
    asked = {name: "asked for" for name in keep_float if name in units or name in cheap}
    return [name for name in units if name not in asked], {**cheap, **asked}


def _leads_to_convolution(model: Any) -> set[str]:
    """Names of the nodes whose output reaches a convolution over more than one pixel."""
    shapes = _shapes(model)
    wanted: set[str] = set()
    names: set[str] = set()
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            names.add(node.name)
            wanted.update(node.input)
        if node.op_type in _CONVOLUTIONS and np.prod(shapes.get(node.output[0], (1,))[2:]) > 1:
            wanted.update(node.input)
    return names


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return {value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim) for value in values}


def _compare(
    writer: _Writer,
    found: Calibration,
    reference: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    methods: Collection[str],
    threads: int,
    tell: Progress,
) -> dict[str, float]:
    """Signal to noise of the logits in dB by method, the larger the better."""
    noise: dict[str, float] = {}
    for done, method in enumerate(methods):
        given = answers(writer.model(found.ranges(method), frozenset()), images, threads=threads)
        noise[method] = float(10 * np.log10(min(1e12, max(1e-12, signal_to_noise(reference, given)))))
        tell("compare", done + 1, len(methods))
    return noise


def _facts(result: Quantized, parent: dict[str, Any]) -> dict[str, Any]:
    """For the metadata. ``keep_fp32`` are the nodes that float16 would spoil, as the float32 file may say; those of
    ``keep_float`` are only not int8: a builder may compute them in float16."""
    facts = result.to_dict()
    del facts["path"]
    reasons = {**parent.get("why", {}), **facts.pop("reasons")}
    kept = {"keep_fp32": parent.get("keep_fp32", []), "keep_float": facts.pop("kept_float")}
    return {"precision": "int8", **kept, "why": reasons, **facts}


def _check_names(model: Any, names: Collection[str]) -> None:
    known = [node.name for node in model.graph.node]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(
            f"the network has no node {', '.join(unknown[:3])}", hint=f"it has {len(known)}, such as {known[0]}"
        )


def _spread(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    count = min(len(images), _CHECKED_FRAMES)
    return [images[int(index)] for index in np.linspace(0, len(images) - 1, count).round()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that the library logs at the root."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
