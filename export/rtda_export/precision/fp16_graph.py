"""Typed FP16: an ONNX whose weights and activations are float16, float32 at its border and at the nodes that need it.

TensorRT 11 has no FP16 switch: the types in the file are the types that run. Every edge therefore has exactly one type,
a Cast stands only where two types meet, and a tensor between two nodes kept in float32 never passes through float16.

``onnxruntime.transformers.float16`` (1.31) does the same for a network without kept nodes. It is not used, because for
kept nodes it leaves a file that does not load (two Casts of one name as soon as two of them read the same tensor),
rounds a tensor to float16 between two kept nodes (an overflow stays infinite), appends its Casts unsorted, which
``onnx.checker`` refuses, clips weights beyond float16 in silence, and leads the scales of a Resize through a Cast where
TensorRT 8.5 wants a constant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.optional import require
from rtda_export.graph.nodes import lift_constants, named, replace_nodes
from rtda_export.precision.metadata import with_precision

__all__ = ["FP16_MAX", "fp16_onnx", "rounding_onnx"]

FP16_MAX = 65504.0  # largest finite float16 (IEEE 754 binary16)
_FLOAT, _FLOAT16 = 1, 10  # onnx.TensorProto's numbers
_FLOAT_INPUTS = {"Resize": (1, 2)}  # roi and scales: float32 whatever the picture's type
_DTYPE_OPERATORS = {"EyeLike", "Multinomial", "Bernoulli", "SequenceEmpty"}  # type in an attribute; no network has them


def fp16_onnx(model: Any, *, keep_fp32: Collection[str] = (), why: Mapping[str, str] | None = None) -> Any:
    """The same network in float16, with float32 at its inputs and outputs.

    Args:
        model: ``onnx.ModelProto`` in float32, valid; not modified. Metadata is carried over.
        keep_fp32: Names of nodes that compute in float32, as :func:`rtda_export.graph.nodes.named` gives them.
        why: Reason of each kept node, for the metadata.

    Returns:
        A new ``onnx.ModelProto``, checked with strict type inference; ``rtda.precision`` says what was kept. The same
        input gives the same bytes.

    Raises:
        ConfigError: If ``keep_fp32`` names a node that is not there.
        ExportError: If a weight of a node that is not kept lies beyond float16, the model is quantised or float16
            already, or has an operator that cannot be converted.
    """
    onnx = require("onnx", extra="export", purpose="to write float16 models")
    source = named(model)
    _check_source(source, keep_fp32)
    conversion = _Conversion(onnx, source, frozenset(keep_fp32))
    result = conversion.run()
    try:
        onnx.checker.check_model(result, full_check=True)
    except Exception as err:  # onnx's errors share no base
        raise ExportError(
            "this network cannot be written in float16: its types would not agree",
            why=(str(err).strip().splitlines() or [""])[0][:200],
            hint="keep the node that is named in float32, or export with --precision fp32",
        ) from err
    kept = [node.name for node in source.graph.node if node.name in conversion.keep]
    reasons = {name: why[name] for name in kept if name in why} if why else {}
    return with_precision(result, {"precision": "fp16", "keep_fp32": kept, "why": reasons})


def rounding_onnx(model: Any) -> Any:
    """A float16 model for checking on a CPU: ONNX Runtime rounds every tensor of it to float16.

    ONNX Runtime has no float16 convolution for x86. It computes in float32 and, at every optimisation level, removes
    the pairs of Casts between two nodes, also those that stand in the file: an overflow then never shows. Here each
    float16 tensor passes a pair of Unsqueeze and Squeeze, which is computed in float16 and which it does not remove.
    Sums inside an operator stay float32, as on tensor cores. For checking only: it is slow, and the same masks.

    Args:
        model: Of :func:`fp16_onnx`; not modified.
    """
    onnx = require("onnx", extra="export")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    halves = _typed(onnx, result, _FLOAT16) - {weight.name for weight in result.graph.initializer}
    nodes: list[Any] = []
    axes = "rtda_fence_axes"
    for node in result.graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in halves:
                node.output[index] = f"{name}/computed"
                nodes.append(onnx.helper.make_node("Unsqueeze", [node.output[index], axes], [f"{name}/fence"]))
                nodes.append(onnx.helper.make_node("Squeeze", [f"{name}/fence", axes], [name]))
    del result.graph.value_info[:]
    replace_nodes(result.graph, nodes)
    result.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), axes))
    return result


class _Conversion:
    """One pass over the nodes, in their order; Casts are put where a tensor is first needed in its other type."""

    def __init__(self, onnx: Any, source: Any, keep: frozenset[str]) -> None:
        self.keep = keep
        self._onnx = onnx
        self._source = source
        self._result = onnx.ModelProto()
        self._result.CopyFrom(source)
        lift_constants(onnx, self._result.graph)
        self._floats = _typed(onnx, self._result, _FLOAT)
        self._weights = {weight.name: weight for weight in self._result.graph.initializer}
        self._outputs = {value.name for value in self._result.graph.output}
        self._at: dict[tuple[str, int], str] = {}  # (tensor of the source, type) -> its name in the result
        self._nodes: list[Any] = []

    def run(self) -> Any:
        graph = self._result.graph
        uses = self._weight_uses(graph)
        for value in graph.input:
            self._at[value.name, _FLOAT] = value.name
        for name, types in uses.items():
            for kind in types:
                self._at[name, kind] = name if len(types) == 1 else f"{name}_{_suffix(kind)}"
        for node in graph.node:
            self._convert(node)
        replace_nodes(graph, self._nodes)
        weights = [self._weight(weight, kind) for weight in graph.initializer for kind in sorted(uses[weight.name])]
        del graph.initializer[:], graph.value_info[:]
        graph.initializer.extend(weights)
        return self._result

    def _convert(self, node: Any) -> None:
        kind = self._kind(node)
        for index, name in enumerate(node.input):
            if name in self._floats:
                node.input[index] = self._as(name, self._input_kind(node, index))
        self._nodes.append(node)
        if kind == _FLOAT16:
            _convert_attributes(self._onnx, node)
        for index, name in enumerate(node.output):
            if name not in self._floats:
                continue
            self._at[name, kind] = name
            if kind == _FLOAT16 and name in self._outputs:
                node.output[index] = self._at[name, kind] = f"{name}_fp16"
                self._cast(name, _FLOAT)

    def _as(self, name: str, kind: int) -> str:
        if (name, kind) not in self._at:
            self._cast(name, kind)
        return self._at[name, kind]

    def _cast(self, name: str, kind: int) -> None:
        source = self._at[name, _FLOAT if kind == _FLOAT16 else _FLOAT16]
        target = name if source != name else f"{name}_{_suffix(kind)}"
        self._nodes.append(self._onnx.helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=kind))
        self._at[name, kind] = target

    def _kind(self, node: Any) -> int:
        return _FLOAT if node.name in self.keep else _FLOAT16

    def _input_kind(self, node: Any, index: int) -> int:
        return _FLOAT if index in _FLOAT_INPUTS.get(node.op_type, ()) else self._kind(node)

    def _weight_uses(self, graph: Any) -> dict[str, set[int]]:
        """Types in which each weight is needed; its own where it is no float."""
        uses: dict[str, set[int]] = {name: set() for name in self._weights}
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in uses:
                    is_float = name in self._floats
                    uses[name].add(self._input_kind(node, index) if is_float else self._weights[name].data_type)
                    if is_float and self._input_kind(node, index) == _FLOAT16:
                        self._check_weight(node, name)
        return uses

    def _check_weight(self, node: Any, name: str) -> None:
        largest = float(np.abs(self._onnx.numpy_helper.to_array(self._weights[name])).max(initial=0.0))
        if not largest <= FP16_MAX:
            raise ExportError(
                f"{name} of {node.name} holds {largest:.4g}, float16 ends at {FP16_MAX:.0f}",
                hint=f"keep {node.name} in float32",
            )

    def _weight(self, weight: Any, kind: int) -> Any:
        values = self._onnx.numpy_helper.to_array(weight)
        if weight.data_type == _FLOAT and kind == _FLOAT16:
            values = values.astype(np.float16)
        return self._onnx.numpy_helper.from_array(values, self._at.get((weight.name, kind), weight.name))


def _check_source(model: Any, keep: Collection[str]) -> None:
    names = [node.name for node in model.graph.node]
    unknown = sorted(set(keep) - set(names))
    if unknown:
        raise ConfigError(
            f"the network has no node {', '.join(unknown[:3])}",
            hint=f"it has {len(names)}, such as {', '.join(names[:3])}",
        )
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise ExportError(
                "a quantised model cannot be made float16: QuantizeLinear takes float32 before opset 19",
                hint="make both from the float32 model: --precision fp16 and --precision int8",
            )
        inner = any(attribute.g.node or attribute.graphs for attribute in node.attribute)
        if inner or node.op_type in _DTYPE_OPERATORS or node.op_type.startswith("Random"):
            raise ExportError(
                f"operator {node.op_type} ({node.name}) cannot be converted to float16",
                hint="keep the float32 file: leave --precision fp16 out",
            )
    if any(weight.data_type == _FLOAT16 for weight in model.graph.initializer):
        raise ExportError("the model holds float16 weights already", hint="start from the float32 model")


def _convert_attributes(onnx: Any, node: Any) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
            attribute.i = _FLOAT16
        if attribute.t.data_type == _FLOAT:  # of ConstantOfShape
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(attribute.t).astype("f2")))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        zero = onnx.numpy_helper.from_array(np.zeros(1, np.float16))
        node.attribute.append(onnx.helper.make_attribute("value", zero))


def _typed(onnx: Any, model: Any, kind: int) -> set[str]:
    """Names of all tensors of a type."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    found = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return found | {weight.name for weight in graph.initializer if weight.data_type == kind}


def _suffix(kind: int) -> str:
    return "fp16" if kind == _FLOAT16 else "fp32"
