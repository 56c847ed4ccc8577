"""Batch norms that no convolution stands before, written as convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtda_deploy.optional import require
from rtda_export.graph.nodes import drop_unused_weights, replace_nodes

__all__ = ["norms_as_convolutions"]


def norms_as_convolutions(model: Any) -> int:
    """Turn every BatchNormalization over maps into a 1x1 convolution of each channel by itself; in place.

    DAPPM, PAPPM and the heads of their networks begin with a batch norm, which cannot be folded into what comes before
    it. Between Q and DQ nodes it stays a float node, and OpenVINO (2026.4) crashes on it where it reads a
    concatenation one of whose inputs an addition reads too. A convolution computes the same and is quantised.

    Args:
        model: ``onnx.ModelProto`` with inferred shapes, for inference; a batch norm's four weights are initializers.

    Returns:
        How many there were.
    """
    onnx = require("onnx", extra="export")
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}
    values = [*model.graph.input, *model.graph.value_info]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    nodes, changed = [], 0
    for node in model.graph.node:
        known = all(name in weights for name in node.input[1:5])
        if node.op_type != "BatchNormalization" or ranks.get(node.input[0]) != 4 or not known:
            nodes.append(node)
            continue
        scale, shift, mean, variance = (weights[name].astype(np.float64) for name in node.input[1:5])
        epsilon = next((entry.f for entry in node.attribute if entry.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        made = {"weight": factor[:, None, None, None], "bias": shift - mean * factor}
        names = [f"{node.name}.{kind}" for kind in made]
        for name, value in zip(names, made.values(), strict=True):
            model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
        inputs = [node.input[0], *names]
        nodes.append(onnx.helper.make_node("Conv", inputs, [node.output[0]], name=node.name, group=len(factor)))
        changed += 1
    if changed:
        replace_nodes(model.graph, nodes)
        drop_unused_weights(model.graph)
    return changed
