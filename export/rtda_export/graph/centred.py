"""A graph that takes centred pixels in the place of normalised planes: its first convolutions do the rest.

A convolution can scale its inputs and shift their sum, so mean and std cost nothing there. What is left of the picture
is ``pixel - centre``, a whole number of 8 bits: an INT8 file reads it from the camera's bytes as they are, without a
step that rounds the picture.
"""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np

from rtda_deploy.spec import ModelSpec
from rtda_export.graph.nodes import drop_unused_weights

__all__ = ["centred_range", "with_centred_input"]


def with_centred_input(model: Any, spec: ModelSpec) -> Optional[ModelSpec]:
    """Let the convolutions that read a float32 graph's planes take centred pixels, BGR; in place.

    A convolution pads with zeros, which were the mean and are the centre now. The centre is the mean of the three
    means, so what lies beyond the picture's edge differs by the distance between the means: 0.2 of a standard deviation
    with ImageNet's, half a level at most where the three are the same. Everywhere else the answer is the same but for
    rounding.

    Args:
        model: ``onnx.ModelProto`` whose input is float32 (N, 3, H, W), normalised as the spec says.
        spec: Of the model.

    Returns:
        The spec of the new graph: its ``mean`` is the centre, its ``std`` and ``pixel_scale`` 1, its order BGR. None,
        and the graph as it was, where something other than a convolution over all three colours reads the planes.
    """
    readers = [node for node in model.graph.node if model.graph.input[0].name in node.input]
    weights = {weight.name: weight for weight in model.graph.initializer}
    if spec.input != "float32" or spec.resize != "stretch" or not readers:
        return None
    if not all(_takes_colours(node, weights, model.graph.input[0].name) for node in readers):
        return None
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    centre = float(np.rint(np.clip(np.mean(mean / spec.pixel_scale), 0, 255)))
    factors, offsets = spec.pixel_scale / std, (centre * spec.pixel_scale - mean) / std
    for node in readers:
        _fold(model.graph, node, weights, factors, offsets, turned=spec.channel_order == "rgb")
    drop_unused_weights(model.graph)
    return spec.replace(channel_order="bgr", pixel_scale=1.0, mean=(centre,) * 3, std=(1.0, 1.0, 1.0))


def centred_range(spec: ModelSpec) -> Optional[Tuple[float, float]]:
    """Least and greatest value of centred pixels, BGR, 1 apart from the next; None: the planes are no such pixels."""
    centre = spec.mean[0]
    plain = spec.pixel_scale == 1 and spec.std == (1.0, 1.0, 1.0) and spec.mean == (centre,) * 3
    plain = plain and spec.channel_order == "bgr"
    return (-centre, 255.0 - centre) if plain and centre.is_integer() and 0 <= centre <= 255 else None


def _takes_colours(node: Any, weights: Any, name: str) -> bool:
    """Whether a node is a convolution of the planes whose weights, and bias where it has one, are in the file."""
    if node.op_type != "Conv" or node.input[0] != name or any(word not in weights for word in node.input[1:] if word):
        return False
    return list(weights[node.input[1]].dims)[1:2] == [3]


def _fold(graph: Any, node: Any, weights: Any, factors: np.ndarray, offsets: np.ndarray, *, turned: bool) -> None:
    """Give a convolution weights of its own that take ``pixel - centre`` for ``factor * (pixel - centre) + offset``."""
    from onnx import numpy_helper

    kernel = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)  # (O, 3, k, k)
    bias = np.zeros(len(kernel))
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(weights[node.input[2]]).astype(np.float64)
    bias = bias + np.einsum("ochw,c->o", kernel, offsets)
    kernel = kernel * factors[:, None, None]
    kernel = kernel[:, ::-1] if turned else kernel
    names = [f"{node.name or node.output[0]}.centred.{word}" for word in ("weight", "bias")]
    for name, values in zip(names, (kernel, bias)):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    del node.input[1:]
    node.input.extend(names)
