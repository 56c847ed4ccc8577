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
