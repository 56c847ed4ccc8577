"""Sizes of enlarged maps as constants.

A map that is enlarged to another map's size is written with shape arithmetic, although every shape of the file is
known. TensorRT 8 chokes on it, and it runs again for each frame elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtda_deploy.optional import require
from rtda_export.graph.nodes import remove_nodes

__all__ = ["constant_sizes"]


def constant_sizes(model: Any) -> int:
    """Give every Resize whose size is computed the size that it comes to; in place.

    Args:
        model: ``onnx.ModelProto`` with fixed shapes.

    Returns:
        How many.
    """
    onnx = require("onnx", extra="export", purpose="to export a checkpoint")
    weights = {weight.name for weight in model.graph.initializer}
    constants = weights | {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    computed = [
        node
        for node in model.graph.node
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3] not in constants
    ]
    if not computed:
        return 0
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.output)}
    done = 0
    for node in computed:
        sides = [side.dim_value for side in shapes.get(node.output[0], ())]
        if len(sides) == 4 and all(sides):
            name = f"{node.output[0]}_size"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(sides, np.int64), name))
            node.input[3] = name
            done += 1
    remove_nodes(model.graph, [])
    return done
