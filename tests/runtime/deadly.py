"""What pyramids begin with, as DAPPM: quantised plainly, a batch norm kills OpenVINO and a padded pool misleads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

import numpy as np
from runtime.models import STRIDE, tiny_spec

CHANNELS = 16


def write_pyramid(path: Path) -> Path:
    """Float32: a concatenation, one of whose inputs an addition reads too, a batch norm, and convolutions behind it."""
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    two = 2 * CHANNELS
    shapes = {
        "w0": (CHANNELS, 3, STRIDE, STRIDE),
        "w1": (CHANNELS, CHANNELS, 1, 1),
        "w2": (CHANNELS, CHANNELS, 3, 3),
        "w3": (CHANNELS, two, 1, 1),
        "w4": (5, CHANNELS, 3, 3),
    }
    weights = [weight(name, *shape) for name, shape in shapes.items()]
    norm = {"scale": np.linspace(0.5, 2, two), "shift": rng.standard_normal(two), "mean": rng.standard_normal(two)}
    norm["variance"] = np.linspace(0.3, 3, two)
    weights += [numpy_helper.from_array(value.astype(np.float32), name) for name, value in norm.items()]
    make, padded = helper.make_node, {"pads": [1, 1, 1, 1]}
    nodes = [
        make("Conv", ["frame", "w0"], ["stem"], strides=[STRIDE, STRIDE]),
        make("Relu", ["stem"], ["stem_relu"]),
        make("Conv", ["stem_relu", "w1"], ["branch"]),
        make("Conv", ["branch", "w2"], ["wider"], **padded),
        make("Add", ["wider", "branch"], ["sum"]),
        make("Concat", ["branch", "sum"], ["both"], axis=1),
        make("BatchNormalization", ["both", *norm], ["normed"], epsilon=1e-3),
        make("Relu", ["normed"], ["normed_relu"]),
        make("Conv", ["normed_relu", "w3"], ["narrow"]),
        make("Relu", ["narrow"], ["narrow_relu"]),
        make("Conv", ["narrow_relu", "w4"], ["logits"], **padded),
    ]
    return _written(nodes, weights, path)


def write_pooled(path: Path) -> Path:
    """Float32: a sum, which has values below 0, pooled with zeros around it that count, and a convolution behind."""
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"w0": (CHANNELS, 3, STRIDE, STRIDE), "w1": (CHANNELS, CHANNELS, 1, 1), "w2": (5, CHANNELS, 1, 1)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    make, pooled = helper.make_node, {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "count_include_pad": 1}
    nodes = [
        make("Conv", ["frame", "w0"], ["stem"], strides=[STRIDE, STRIDE]),
        make("Conv", ["stem", "w1"], ["branch"]),
        make("Add", ["stem", "branch"], ["sum"]),
        make("AveragePool", ["sum"], ["pooled"], **pooled),
        make("Conv", ["pooled", "w2"], ["logits"]),
    ]
    return _written(nodes, weights, path)


def _written(nodes: Sequence[Any], weights: Sequence[Any], path: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    height, width = tiny_spec().size_hw
    frame = helper.make_tensor_value_info("frame", TensorProto.FLOAT, (1, 3, height, width))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 5, height // STRIDE, width // STRIDE))
    graph = helper.make_graph(nodes, "small", [frame], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"rtda.spec": tiny_spec().to_json()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def write_deadly(path: Path) -> Path:
    """:func:`write_pyramid`, quantised by ONNX Runtime's own tool with nothing done about its batch norm."""
    return _quantised(write_pyramid(path.with_suffix(".plain.onnx")), path)


def write_misleading(path: Path) -> Path:
    """:func:`write_pooled`, quantised so, with nothing done about its pool."""
    return _quantised(write_pooled(path.with_suffix(".plain.onnx")), path)


def _quantised(plain: Path, path: Path) -> Path:
    import logging

    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left = 2

        def get_next(self) -> Any:
            self.left -= 1
            height, width = tiny_spec().size_hw
            picture = np.random.default_rng(self.left + 1).standard_normal((1, 3, height, width), dtype=np.float32)
            return {"frame": picture} if self.left >= 0 else None

    logging.disable(logging.WARNING)
    try:
        options = {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": QuantType.QUInt8}
        quantize_static(str(plain), str(path), Reader(), **options)
    finally:
        logging.disable(logging.NOTSET)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"rtda.spec": tiny_spec().to_json()})
    path.write_bytes(model.SerializeToString())
    return path
