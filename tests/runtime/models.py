"""Small ONNX networks whose answers NumPy can compute: a strided convolution, 8x8 pixels to one logit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.spec import ModelSpec

STRIDE = 8
NAMES = ("road", "building", "sky", "car", "vegetation")
_BYTE = (("zero", 0), ("full", 255))
PALETTE = ((128, 64, 128), (70, 70, 70), (70, 130, 180), (0, 0, 142), (107, 142, 35))


def tiny_spec(**changes: Any) -> ModelSpec:
    """Five classes at 64x96, logits at 8x12."""
    return ModelSpec(size_hw=(64, 96), class_names=NAMES, palette=PALETTE, output_stride=STRIDE).replace(**changes)


def tiny_weights(seed: int = 0, classes: int = 5) -> np.ndarray:
    """float32 (C, 3, 8, 8)."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((classes, 3, STRIDE, STRIDE)) / STRIDE).astype(np.float32)


def tiny_logits(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    """What the network of :func:`write_model` gives for float32 (1, 3, H, W): (C, H/8, W/8), computed in float64."""
    _, channels, height, width = picture.shape
    blocks = picture[0].astype(np.float64).reshape(channels, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    return np.einsum("ciajb,kcab->kij", blocks, tiny_weights(seed).astype(np.float64))


def write_model(
    path: Path,
    spec: Optional[ModelSpec] = None,
    *,
    seed: int = 0,
    with_spec: bool = True,
    spec_text: Optional[str] = None,
    shape: Optional[Sequence[Any]] = None,
    ir_version: int = 8,
    classes: int = 5,
    second_output: bool = False,
    confidence: str = "",
) -> Path:
    """Write the network; ``spec.output == "mask"`` puts upsampling by repetition and argmax into the graph.

    Where ``spec.input`` is not ``float32`` the convolution reads the pixels themselves, as planes.

    ``confidence`` is the type of a second output beside the mask: the largest logit, cut to 0..255 as ``uint8``.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec = spec or tiny_spec()
    height, width = spec.size_hw
    shape = list(shape or spec.input_shape)
    grid: Tuple[int, int] = (height // STRIDE, width // STRIDE)
    nodes = [helper.make_node("Conv", ["frame", "weights"], ["logits"], strides=[STRIDE, STRIDE])]
    values = [numpy_helper.from_array(tiny_weights(seed, classes), "weights")]
    if all(isinstance(side, int) for side in shape):
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], classes, *grid])
    else:
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes, "h", "w"])
    if spec.output == "mask":
        values.append(numpy_helper.from_array(np.array([1, 1, STRIDE, STRIDE], np.float32), "scales"))
        nodes += [
            helper.make_node("Resize", ["logits", "", "scales"], ["large"], mode="nearest"),
            helper.make_node("ArgMax", ["large"], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
        ]
        output = helper.make_tensor_value_info("mask", TensorProto.UINT8, [1, height, width])
    outputs = [output]
    if confidence:
        kind = TensorProto.UINT8 if confidence == "uint8" else TensorProto.FLOAT
        nodes += [
            helper.make_node("ReduceMax", ["large"], ["most"], axes=[1], keepdims=0),
            helper.make_node("Clip", ["most", *(["zero", "full"] if confidence == "uint8" else [])], ["cut"]),
            helper.make_node("Cast", ["cut"], ["confidence"], to=kind),
        ]
        values += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in _BYTE]
        outputs.append(helper.make_tensor_value_info("confidence", kind, [1, height, width]))
    if second_output:
        nodes.append(helper.make_node("Identity", ["logits"], ["auxiliary"]))
        outputs.append(helper.make_tensor_value_info("auxiliary", TensorProto.FLOAT, [1, classes, *grid]))
    kind = TensorProto.UINT8 if spec.input == "uint8" else TensorProto.FLOAT
    source = helper.make_tensor_value_info("frame", kind, shape)
    if spec.input != "float32":
        order = [0, 3, 1, 2] if spec.layout == "nhwc" else [0, 1, 2, 3]
        nodes[0].input[0] = "planes"
        nodes[:0] = [
            helper.make_node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=order),
        ]
    graph = helper.make_graph(nodes, "tiny", [source], outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)
    if with_spec:
        entry = model.metadata_props.add()
        entry.key, entry.value = "rtda.spec", spec.to_json() if spec_text is None else spec_text
    onnx.save(model, str(path))
    return path
