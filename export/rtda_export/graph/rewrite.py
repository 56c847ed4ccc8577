"""Exact rewrites of a network's graph: the same answer with fewer operations.

**Convolve before enlarging.** Enlargement mixes places, a 1x1 convolution mixes channels; neither notices the other, so
they may change places, bias included because bilinear weights sum to one. A k x k convolution is a 1x1
convolution to ``k * k`` channels per output, one for each tap, followed by shifting every tap to its place and adding
up. So a convolution of enlarged maps, alone or joined with others, is computed where the maps are small: 4 or 16 times
fewer multiply-adds for what is enlarged 2 or 4 times, and the enlarged maps themselves are never made.

The lineage of RTDA has two such places: the 1x1 convolution behind the last enlargement (its order is exchanged in
``BiSeNet.deploy_view`` already), and the fusion of 768 (ResNet-18) or 3072 (ResNet-101) enlarged channels by a 3x3
convolution. "Equal" is up to the rounding of float32: sums are taken in another order. The export compares the
rewritten file with the checkpoint, which is not rewritten.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtda_deploy.optional import require
from rtda_export.graph.nodes import drop_unused_weights, replace_nodes

__all__ = ["Rewrite", "rewrite"]

_MODES = (b"linear", b"nearest")
_WORTH = 0.8  # rewritten where the multiply-adds fall at least to this share


@dataclass(frozen=True)
class Rewrite:
    """One convolution that now runs on small maps.

    Attributes:
        node: Its name.
        macs_before: Multiply-adds for one picture.
        macs_after: Of all that took its place.
    """

    node: str
    macs_before: int
    macs_after: int


def rewrite(model: Any) -> tuple[Rewrite, ...]:
    """Rewrite what can be and pays; in place.

    Args:
        model: ``onnx.ModelProto`` in float32 with fixed shapes; inferred shapes in it are dropped where it changes.

    Returns:
        What was rewritten, in the order it runs; empty: the model is as it was.
    """
    done: list[Rewrite] = []
    while True:
        found = _first(model)
        if found is None:
            return tuple(done)
        done.append(_replace(model, found))


@dataclass(frozen=True)
class _Branch:
    """One input of the convolution's input: ``source`` itself, or what ``resize`` makes of it."""

    source: str
    channels: int
    pixels: int  # of the source
    resize: Any | None


@dataclass(frozen=True)
class _Candidate:
    conv: Any
    gone: list[Any]  # nodes that are no longer needed
    branches: list[_Branch]
    weight: np.ndarray  # (O, C, k, k)
    pixels: int  # of the output
    macs_before: int
    macs_after: int


def _first(model: Any) -> _Candidate | None:
    onnx = require("onnx", extra="export", purpose="to rewrite a graph")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    shapes = {v.name: tuple(side.dim_value for side in v.type.tensor_type.shape.dim) for v in values}
    constants = _constants(onnx, model.graph)
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(value.name for value in model.graph.output)
    for conv in model.graph.node:
        weight = constants.get(conv.input[1]) if conv.op_type == "Conv" else None
        if weight is None or not _is_plain(conv, weight) or (len(conv.input) > 2 and conv.input[2] not in constants):
            continue
        joined = makers.get(conv.input[0])
        names, gone = [conv.input[0]], []
        if joined is not None and joined.op_type == "Concat" and readers[joined.output[0]] == 1:
            if _attribute(joined, "axis", None) != 1:
                continue
            names, gone = list(joined.input), [joined]
        branches = [_branch(name, makers.get(name), readers, constants, shapes) for name in names]
        sides = [shapes.get(name, ()) for name in (*names, *(branch.source for branch in branches), conv.output[0])]
        enlarged = [branch.resize for branch in branches if branch.resize is not None]
        if not enlarged or any(len(shape) != 4 or 0 in shape[1:] for shape in sides):
            continue
        candidate = _counted(conv, [*gone, *enlarged], branches, weight, shapes)
        if candidate.macs_after <= _WORTH * candidate.macs_before:
            return candidate
    return None


def _counted(conv: Any, gone: list[Any], branches: list[_Branch], weight: np.ndarray, shapes: Any) -> _Candidate:
    outputs, channels, side, _ = weight.shape
    taps = side * side
    pixels = int(np.prod(shapes[conv.output[0]][2:]))
    after = sum(branch.channels * outputs * taps * branch.pixels for branch in branches)
    if taps > 1:
        after += (taps + outputs) * outputs * taps * pixels  # the shifts, the sums
    return _Candidate(conv, gone, branches, weight, pixels, channels * outputs * taps * pixels, after)


def _branch(name: str, maker: Any, readers: Counter[str], constants: Any, shapes: Any) -> _Branch:
    resize = maker if maker is not None and readers[name] == 1 and _enlarges(maker, constants) else None
    source = name if resize is None else resize.input[0]
    shape = shapes.get(source, ())
    return _Branch(source, shape[1] if len(shape) == 4 else 0, int(np.prod(shape[2:])), resize)


def _enlarges(node: Any, constants: dict[str, np.ndarray]) -> bool:
    """Whether a node enlarges height and width by constant factors, with weights that sum to one."""
    if node.op_type != "Resize" or _attribute(node, "mode", b"nearest") not in _MODES or len(node.input) != 3:
        return False
    if _attribute(node, "coordinate_transformation_mode", b"half_pixel") == b"tf_crop_and_resize":
        return False  # fills with a value from outside: its weights need not sum to one
    scales = constants.get(node.input[2], np.zeros(0))
    return len(scales) == 4 and bool((scales[:2] == 1).all() and (scales[2:] >= 1).all() and (scales[2:] > 1).any())


def _is_plain(conv: Any, weight: np.ndarray) -> bool:
    """Whether a convolution has an odd square kernel, and neither stride, dilation, groups nor a changed size."""
    side = weight.shape[-1]
    return (
        weight.ndim == 4
        and weight.dtype == np.float32
        and weight.shape[2] == side
        and side % 2 == 1
        and _attribute(conv, "auto_pad", b"NOTSET") == b"NOTSET"
        and _attribute(conv, "group", 1) == 1
        and set(_attribute(conv, "strides", [1])) == {1}
        and set(_attribute(conv, "dilations", [1])) == {1}
        and list(_attribute(conv, "pads", [0] * 4)) == [side // 2] * 4
    )


def _replace(model: Any, found: _Candidate) -> Rewrite:
    from onnx import helper, numpy_helper

    conv, weight = found.conv, found.weight
    outputs, _, side, _ = weight.shape
    taps, name = side * side, conv.name or conv.output[0]
    nodes: list[Any] = []

    def constant(suffix: str, values: np.ndarray) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name + suffix))
        return str(name + suffix)

    def add(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [name + suffix], name=name + suffix, **attributes))
        return str(name + suffix)

    bias = list(conv.input[2:])
    terms, start = [], 0
    for number, branch in enumerate(found.branches):
        part = weight[:, start : start + branch.channels]
        start += branch.channels
        flat = part.transpose(0, 2, 3, 1).reshape(outputs * taps, branch.channels, 1, 1)  # channel: output, then tap
        own_bias = bias if taps == 1 and number == 0 else []
        inputs = [branch.source, constant(f".weight{number}", flat), *own_bias]
        terms.append(add("Conv", inputs, f".part{number}", kernel_shape=[1, 1]))
        if branch.resize is not None:
            terms[-1] = add("Resize", [terms[-1], *branch.resize.input[1:]], f".enlarged{number}")
            nodes[-1].attribute.extend(branch.resize.attribute)
    total = terms[0]
    for number, term in enumerate(terms[1:]):
        total = add("Add", [total, term], f".sum{number}")
    if taps > 1:
        shifts = np.tile(np.eye(taps, dtype=np.float32).reshape(taps, 1, side, side), (outputs, 1, 1, 1))
        sums = np.repeat(np.eye(outputs, dtype=np.float32), taps, axis=1)[:, :, None, None]
        window = {"kernel_shape": [side, side], "pads": [side // 2] * 4, "group": outputs * taps}
        total = add("Conv", [total, constant(".shifts", shifts)], ".shifted", **window)
        add("Conv", [total, constant(".sums", sums), *bias], ".summed", kernel_shape=[1, 1])
    nodes[-1].output[0] = conv.output[0]
    _exchange(model.graph, conv, found.gone, nodes)
    return Rewrite(name, found.macs_before, found.macs_after)


def _exchange(graph: Any, conv: Any, gone: list[Any], nodes: list[Any]) -> None:
    """Replace ``conv`` by ``nodes``; remove ``gone``, unused weights and outdated shapes."""
    kept: list[Any] = []
    for node in graph.node:
        if node is conv or node == conv:
            kept.extend(nodes)
        elif node not in gone:
            kept.append(node)
    replace_nodes(graph, kept)
    drop_unused_weights(graph)
    del graph.value_info[:]


def _constants(onnx: Any, graph: Any) -> dict[str, np.ndarray]:
    found = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    return found


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
