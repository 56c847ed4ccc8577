"""Zeros around a map become the padding of the convolution that reads them.

A network with TensorFlow's padding has more zeros after a map than before it. Torch's convolution has no such padding,
so that the network pads on its own and the exporter writes a Pad, and the arithmetic that makes its sides; ONNX's
convolution has four sides. A Pad of its own would copy the map, and stand in float between two INT8 layers.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from rtda_deploy.optional import require
from rtda_export.graph.nodes import remove_nodes

__all__ = ["pads_into_convolutions"]


def pads_into_convolutions(model: Any) -> int:
    """Take every Pad of zeros out that one convolution alone reads; in place, and exact.

    Args:
        model: ``onnx.ModelProto``.

    Returns:
        How many.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(value.name for value in model.graph.output)
    gone: list[Any] = []
    for conv in model.graph.node:
        pad = makers.get(conv.input[0]) if conv.op_type == "Conv" else None
        if pad is None or pad.op_type != "Pad" or readers[pad.output[0]] > 1:
            continue
        sides = _sides(model, makers, pad)
        if sides is None or not _take(conv, sides):
            continue
        conv.input[0] = pad.input[0]
        gone.append(pad)
    if gone:
        remove_nodes(model.graph, gone)
    return len(gone)


def _take(conv: Any, sides: np.ndarray) -> bool:
    """Add sides (N, C, H, W before, then after) to a convolution's own; whether it can have them."""
    from onnx import helper

    known = {entry.name: helper.get_attribute_value(entry) for entry in conv.attribute}
    before, after = sides[: len(sides) // 2], sides[len(sides) // 2 :]
    if known.get("auto_pad", b"NOTSET") != b"NOTSET" or (sides < 0).any() or before[:2].any() or after[:2].any():
        return False
    own = known.get("pads", [0] * (len(sides) - 4))
    added = [int(side) + int(more) for side, more in zip(own, (*before[2:], *after[2:]))]
    kept = [entry for entry in conv.attribute if entry.name != "pads"]
    del conv.attribute[:]
    conv.attribute.extend([*kept, helper.make_attribute("pads", added)])
    return True


def _sides(model: Any, makers: dict[str, Any], pad: Any) -> np.ndarray | None:
    """What a Pad adds, if that is known before the first picture, and is zeros."""
    mode = next((entry.s for entry in pad.attribute if entry.name == "mode"), b"constant")
    if mode != b"constant" or len(pad.input) > 3 or len(pad.input) < 2:
        return None
    filled = _constant(model, makers, pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    if filled is None or filled.any():
        return None
    return _constant(model, makers, pad.input[1])


def _constant(model: Any, makers: dict[str, Any], name: str) -> np.ndarray | None:
    """The value of a tensor that depends on no picture; None for one that does."""
    onnx = require("onnx", extra="export", purpose="to export a checkpoint")
    from onnx.reference import ReferenceEvaluator

    weights = {weight.name: weight for weight in model.graph.initializer}
    needed: list[Any] = []
    used: dict[str, Any] = {}
    open_names = [name]
    while open_names:
        current = open_names.pop()
        if current in weights:
            used[current] = weights[current]
        elif current in makers:
            if makers[current] not in needed:
                needed.append(makers[current])
                open_names.extend(entry for entry in makers[current].input if entry)
        else:
            return None
    ordered = [node for node in model.graph.node if node in needed]
    output = onnx.helper.make_empty_tensor_value_info(name)
    graph = onnx.helper.make_graph(ordered, "constant", [], [output], list(used.values()))
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    results: Any = ReferenceEvaluator(part).run(None, {})
    return np.asarray(results[0])
