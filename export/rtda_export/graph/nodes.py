"""Edits of an ONNX graph: name its nodes, replace them, lift constants out of them, drop unused weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from rtda_deploy.optional import require

__all__ = ["border", "drop_unused_weights", "lift_constants", "named", "remove_nodes", "replace_nodes"]


def named(model: Any) -> Any:
    """A copy in which every node has a name of its own; names that are there and unique stay."""
    result = require("onnx", extra="export").ModelProto()
    result.CopyFrom(model)
    taken: set[str] = set()
    for index, node in enumerate(result.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}"
        taken.add(node.name)
    return result


def border(values: Iterable[Any]) -> list[tuple[str, int, list[int]]]:
    """Name, ONNX element type and shape of inputs or outputs; 0 for a side without a fixed length."""
    return [
        (value.name, value.type.tensor_type.elem_type, [side.dim_value for side in value.type.tensor_type.shape.dim])
        for value in values
    ]


def replace_nodes(graph: Any, nodes: list[Any]) -> None:
    """Replace all nodes of the graph by ``nodes``, some of which may be its own."""
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def drop_unused_weights(graph: Any) -> None:
    """Remove the initializers that no node reads; one that is an output of the graph stays."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    weights = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def lift_constants(onnx: Any, graph: Any) -> None:
    """Turn Constant nodes into initializers: these have a type, and TensorRT requires them for Resize's scales."""
    nodes = []
    for node in graph.node:
        value = _constant(onnx, node) if node.op_type == "Constant" else None
        if value is None:
            nodes.append(node)
        else:
            graph.initializer.append(onnx.numpy_helper.from_array(value, node.output[0]))
    replace_nodes(graph, nodes)


def _constant(onnx: Any, node: Any) -> np.ndarray | None:
    for entry in node.attribute:
        if entry.name == "value":
            return np.asarray(onnx.numpy_helper.to_array(entry.t))
        if entry.name in ("value_float", "value_floats"):
            return np.array(onnx.helper.get_attribute_value(entry), np.float32)
        if entry.name in ("value_int", "value_ints"):
            return np.array(onnx.helper.get_attribute_value(entry), np.int64)
    return None


def remove_nodes(graph: Any, gone: list[Any]) -> None:
    """Remove nodes, whatever only they read, and weights that are unused then."""
    kept = [node for node in graph.node if node not in gone]
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in kept for name in node.input} | outputs
        fewer = [node for node in kept if read & set(node.output)]
        if len(fewer) == len(kept):
            break
        kept = fewer
    replace_nodes(graph, kept)
    drop_unused_weights(graph)
