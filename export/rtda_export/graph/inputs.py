"""What a graph takes: normalised planes for this runtime, or a camera's own pixels for others.

Wrong channel order, scale, mean or std is the first cause of "wrong after export". With pixels as the input they are
nodes of the graph, and whoever feeds it has nothing to do but resize.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.nodes import border

__all__ = ["with_pixel_input"]

_PLANES = "rtda.normalised"  # what the network's own nodes read in the place of the graph's input


def with_pixel_input(model: Any, spec: ModelSpec, *, input: str = "uint8", layout: str = "nhwc") -> ModelSpec:
    """Let a graph take the resized frame, BGR, in the place of normalised planes; in place.

    ``(pixel - mean / pixel_scale) * (pixel_scale / std)`` is within 2.4e-7 of the runtime's own tables for every pixel
    value (ImageNet's contract, ONNX Runtime on a CPU); ``pixel * factor + offset`` within 3.6e-7, and so is a 1x1
    convolution, which takes 3.5 times as long there and which TensorRT computes in TF32 unless told otherwise. Factors
    folded into the first convolutions would save the Mul, an eighth of the time; but an INT8 file has one scale for all
    channels of the picture. The Cast comes first: TensorRT 8.5, the first with UINT8, takes it at the network's border
    only, and makes float of it and nothing else (``IIdentityLayer``).

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
    from onnx import TensorProto, helper

    made = spec.replace(input=input, layout=layout)
    graph = model.graph
    batch, name = _planes_of(model, spec)
    for node in graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = _PLANES
    kind = TensorProto.UINT8 if input == "uint8" else TensorProto.FLOAT
    shape = [batch, *made.input_shape[1:]]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    nodes = _normalising(graph, made, name)
    nodes[-1].output[0] = _PLANES
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    return made


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
    if spec.layout == "nhwc":
        add("Transpose", "planes", perm=[0, 3, 1, 2])
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
