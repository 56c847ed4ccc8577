"""What a graph takes: normalised planes for this runtime, or a camera's own pixels for others.

Wrong channel order, scale, mean or std is the first cause of "wrong after export". With pixels as the input they are
nodes of the graph, and whoever feeds it has nothing to do but resize.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.centred import centred_range
from rtda_export.graph.nodes import border, replace_nodes

__all__ = ["with_pixel_input"]

_PIXELS = "rtda.pixels"
_PLANES = "rtda.normalised"  # what the network's own nodes read in the place of the graph's input


def with_pixel_input(model: Any, spec: ModelSpec, *, input: str = "uint8", layout: str = "nhwc") -> ModelSpec:
    """Let a graph take the resized frame, BGR, in the place of normalised planes; in place.

    ``(pixel - mean / pixel_scale) * (pixel_scale / std)`` is within 2.4e-7 of the runtime's own tables for every pixel
    value (ImageNet's contract, ONNX Runtime on a CPU); ``pixel * factor + offset`` within 3.6e-7, and so is a 1x1
    convolution, which takes 3.5 times as long there and which TensorRT computes in TF32 unless told otherwise. The Cast
    comes first: TensorRT 8.5, the first with UINT8, takes it at the network's border only, and makes float of it and
    nothing else (``IIdentityLayer``).

    An INT8 file of centred pixels (:mod:`rtda_export.graph.centred`) is for a CPU and needs no such steps: the bytes
    are what its first step would have made of them, and that step goes.

    Args:
        model: ``onnx.ModelProto`` whose input is float32 (N, 3, H, W), of whatever precision inside.
        spec: Of the model, with the ``input`` float32.
        input: ``uint8``, or ``pixels``: the same numbers as float32.
        layout: ``nhwc``, as cameras and OpenCV have it: (N, H, W, 3); or ``nchw``: (N, 3, H, W).

    Returns:
        The spec of the new graph.

    Raises:
        SpecError: If the network is letterboxed.
        ExportError: If the graph's input is no float32 of the spec's size.
    """
    made = spec.replace(input=input, layout=layout)
    graph = model.graph
    batch, name = _planes_of(model, spec)
    rounding = _rounding_nothing(graph, spec, name) if input == "uint8" else None
    if rounding is not None:
        _read_bytes(graph, rounding, name, layout)
        _give_input(graph, made, batch)
        return made
    for node in graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = _PLANES
    _give_input(graph, made, batch)
    nodes = _normalising(graph, made, name)
    nodes[-1].output[0] = _PLANES
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    return made


def _give_input(graph: Any, spec: ModelSpec, batch: int) -> None:
    """Declare the graph's input as the spec says."""
    from onnx import TensorProto, helper

    kind = TensorProto.UINT8 if spec.input == "uint8" else TensorProto.FLOAT
    name, shape = graph.input[0].name, [batch, *spec.input_shape[1:]]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(name, kind, shape))


def _rounding_nothing(graph: Any, spec: ModelSpec, name: str) -> Any:
    """The QuantizeLinear that makes of centred pixels the camera's bytes, exactly; None: there is no such."""
    from onnx import numpy_helper

    quantize = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == name]
    if len(quantize) != 1 or centred_range(spec) is None:
        return None
    values = {weight.name: weight for weight in graph.initializer}
    scale, zero = (numpy_helper.to_array(values[word]) for word in quantize[0].input[1:])
    exact = zero.dtype == np.uint8 and scale.size == 1 and float(scale) == 1 and float(zero) == spec.mean[0]
    return quantize[0] if exact else None


def _read_bytes(graph: Any, quantize: Any, name: str, layout: str) -> None:
    """Let the nodes behind ``quantize`` read bytes from the input ``name``, and those beside it the pixels made there.

    OpenVINO runs the first convolution in 8 bits where the Transpose follows the DequantizeLinear, not before it.
    """
    from onnx import helper

    (dequantize,) = (node for node in graph.node if quantize.output[0] in node.input)
    pixels = dequantize.output[0]
    nodes = [node for node in graph.node if node not in (quantize, dequantize)]
    for node in nodes:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = pixels
    dequantize.input[0] = name
    first = [dequantize]
    if layout == "nhwc":
        dequantize.output[0] = _PIXELS
        first.append(helper.make_node("Transpose", [_PIXELS], [pixels], name="rtda.planes", perm=[0, 3, 1, 2]))
    replace_nodes(graph, [*first, *nodes])


def _normalising(graph: Any, spec: ModelSpec, name: str) -> list[Any]:
    """Nodes from the pixels ``name`` to normalised planes, at least one; their constants are put into the graph."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []

    def add(operator: str, word: str, *constants: np.ndarray, **attributes: Any) -> None:
        values = [numpy_helper.from_array(value, f"rtda.{word}.value") for value in constants]
        graph.initializer.extend(values)
        before = nodes[-1].output[0] if nodes else name
        reads = [before, *(value.name for value in values)]
        nodes.append(helper.make_node(operator, reads, [f"rtda.{word}"], name=f"rtda.{word}", **attributes))

    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    offsets, factors = (
        value.astype(np.float32)[None, :, None, None] for value in (mean / spec.pixel_scale, spec.pixel_scale / std)
    )
    if spec.input == "uint8":
        add("Cast", "pixels", to=TensorProto.FLOAT)
    centred = centred_range(spec) is not None
    if centred:  # before the Transpose: OpenVINO's convolutions read NHWC, and turn nothing then
        add("Sub", "mean", offsets[:, :1])
    if spec.layout == "nhwc":
        add("Transpose", "planes", perm=[0, 3, 1, 2])
    if centred:
        return nodes
    if spec.channel_order == "rgb":
        add("Gather", "channel_order", np.array([2, 1, 0], np.int64), axis=1)
    add("Sub", "mean", offsets)
    if (factors != 1).any():
        add("Mul", "std", factors)
    return nodes


def _planes_of(model: Any, spec: ModelSpec) -> tuple[int, str]:
    """Batch and name of the one input, checked."""
    from onnx import TensorProto

    weights = {weight.name for weight in model.graph.initializer}
    found = border(value for value in model.graph.input if value.name not in weights)
    expected = [3, *spec.size_hw]
    if spec.input != "float32" or len(found) != 1 or found[0][1] != TensorProto.FLOAT or found[0][2][1:] != expected:
        given = ", ".join(f"{name} {shape}" for name, _, shape in found)
        raise ExportError(
            f"pixels are put before one input, float32 [N, {', '.join(map(str, expected))}]; this takes {given}",
            hint="export the checkpoint: rtda-deploy export ckpt.pth --input uint8",
        )
    return found[0][2][0], found[0][0]
