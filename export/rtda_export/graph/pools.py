"""Average pools over padded maps, written as convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtda_deploy.optional import require
from rtda_export.graph.nodes import replace_nodes

__all__ = ["padded_pools_as_convolutions"]

_FROM_ZERO_ON = ("Clip", "Relu", "Sigmoid")  # in 8 bits their zero is the number 0


def padded_pools_as_convolutions(model: Any) -> int:
    """Turn every AveragePool that counts zeros around its map into a convolution of each channel by itself; in place.

    In 8 bits a zero is the map's zero point. OpenVINO (2026.4) pools quantised maps and puts the number 0 around them
    instead, which stands for the map's lowest value: where that is not 0 the answer is wrong, without a word. DDRNet's
    and GCNet's pyramids pool so, after a sum. A convolution's padding is right in every library, and its equal weights
    are exact in 8 bits.

    Args:
        model: ``onnx.ModelProto`` with inferred shapes.

    Returns:
        How many there were.
    """
    onnx = require("onnx", extra="export")
    values = [*model.graph.input, *model.graph.value_info]
    channels = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in values}
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    nodes, changed = [], 0
    for node in model.graph.node:
        known = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        shape = channels.get(node.input[0], []) if node.input else []
        if (
            node.op_type != "AveragePool"
            or makers.get(node.input[0]) in _FROM_ZERO_ON
            or not _counts_zeros(known, shape)
        ):
            nodes.append(node)
            continue
        kernel = list(known["kernel_shape"])
        weights = np.full((shape[1], 1, *kernel), 1 / np.prod(kernel), np.float32)
        name = f"{node.name}.weight"
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
        kept = {key: list(known[key]) for key in ("strides", "pads", "dilations") if key in known}
        inputs, outputs = [node.input[0], name], [node.output[0]]
        conv = onnx.helper.make_node(
            "Conv", inputs, outputs, name=node.name, group=shape[1], kernel_shape=kernel, **kept
        )
        nodes.append(conv)
        changed += 1
    if changed:
        replace_nodes(model.graph, nodes)
    return changed


def _counts_zeros(known: Any, shape: Any) -> bool:
    """Whether zeros around the map count in the mean, in a pool that a convolution can do."""
    if not known.get("count_include_pad") or not any(known.get("pads", ())):
        return False
    return (
        len(shape) == 4
        and shape[1] > 0
        and not known.get("ceil_mode")
        and known.get("auto_pad", b"NOTSET") == b"NOTSET"
    )
