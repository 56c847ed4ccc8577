"""The tiny network of ``models.py`` with its input in INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from runtime.models import write_model


def write_quantised(path: Path) -> Path:
    """Write the tiny network behind a QuantizeLinear and a DequantizeLinear."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(write_model(path)))
    values = [numpy_helper.from_array(np.array(1 / 64, np.float32), "step")]
    values.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    model.graph.initializer.extend(values)
    model.graph.node[0].input[0] = "frame_back"
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["frame_q", "step", "zero"], ["frame_back"]))
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["frame", "step", "zero"], ["frame_q"]))
    onnx.save(model, str(path))
    return path


def write_half_quantised(path: Path) -> Path:
    """A 3x3 convolution in 8 bits, named ``in_8_bits``, then the tiny network's in float, ``logits``.

    Weights and pictures are on a grid of powers of two, so that both are exact in 8 bits.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(write_model(path)))
    graph = model.graph
    weights = np.random.default_rng(0).integers(-127, 128, (3, 3, 3, 3)).astype(np.int8)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(1 / 64, np.float32), "step"),
            numpy_helper.from_array(np.array(128, np.uint8), "zero"),
            numpy_helper.from_array(weights, "small_q"),
            numpy_helper.from_array(np.array(1 / 128, np.float32), "small_step"),
            numpy_helper.from_array(np.array(0, np.int8), "small_zero"),
        ]
    )
    graph.node[0].input[0] = "small"
    nodes = [
        helper.make_node("QuantizeLinear", ["frame", "step", "zero"], ["frame_q"]),
        helper.make_node("DequantizeLinear", ["frame_q", "step", "zero"], ["frame_back"]),
        helper.make_node("DequantizeLinear", ["small_q", "small_step", "small_zero"], ["small_back"]),
        helper.make_node("Conv", ["frame_back", "small_back"], ["small"], "in_8_bits", pads=[1, 1, 1, 1]),
    ]
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    onnx.save(model, str(path))
    return path
