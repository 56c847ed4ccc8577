"""A few numbers beside the mask, for the alarm that the world has changed: pooled maps, class shares, confidence.

They are nodes of the graph, so that every engine and precision has them: means over maps that the network makes anyway.
TensorRT 8.5 parses all of them (GlobalAveragePool, Slice, Flatten, Transpose, Softmax, ReduceMean, ReduceMax, Concat).
They take a share of every frame: maps are pooled whole, which each engine has a kernel for in any precision, before
channels are chosen, and the softmax sees evenly spaced cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.familiar import MONITOR, MOST_APPEARANCE, MOST_FEATURES, SIGNALS, cells_step
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.nodes import border

if TYPE_CHECKING:
    from torch import Tensor

    from rtda_training.models.network import DeployView

__all__ = ["MAP_NAMES", "giving_maps", "with_monitor"]

MAP_NAMES = ("rtda.eighth", "rtda.deepest")
_PLACES = (1, 3)  # in the four maps of a backbone


@contextmanager
def giving_maps(view: DeployView) -> Iterator[None]:
    """While it is open, the view gives its backbone's maps at 1/8 and the coarsest beside the logits; for tracing."""
    backbone: Any = view.backbone
    method = "branches" if hasattr(backbone, "branches") else "forward"
    whole, coarse = getattr(backbone, method), view.forward
    seen: list[Any] = []

    def tapped(image: Tensor) -> Any:
        seen.append(whole(image))
        return seen[-1]

    def together(image: Tensor) -> tuple[Tensor, ...]:
        seen.clear()
        logits = coarse(image)
        features = getattr(seen[-1], "features", seen[-1])
        return logits, *(features[place] for place in _PLACES)

    setattr(backbone, method, tapped)
    view.forward = together  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del view.forward
        delattr(backbone, method)


def with_monitor(model: Any, spec: ModelSpec) -> ModelSpec:
    """Turn the maps among a graph's outputs into ``monitor`` float32 (1, D); in place.

    In the order of ``rtda_deploy.familiar.SIGNALS``: the mean of each channel of the map at 1/8 and of the coarsest, of
    evenly spaced ones where there are more than ``MOST_APPEARANCE`` and ``MOST_FEATURES``; the mean probability of each
    class over the logits' cells, every ``cells_step``-th row and column of them; the mean of the largest probability.

    Args:
        model: ``onnx.ModelProto`` with the outputs logits and ``MAP_NAMES``, for one picture; opset below 18.
        spec: Of the model.

    Returns:
        The spec, whose provenance says under ``export`` how many numbers each signal has.

    Raises:
        ExportError: If the outputs are others.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    found = {name: shape for name, _, shape in border(graph.output)}
    logits = next(iter(found))
    if tuple(found)[1:] != MAP_NAMES or any(len(found[name]) != 4 for name in MAP_NAMES):
        raise ExportError(
            f"signals are made of logits and maps of the backbone; this gives {', '.join(found)}",
            hint="export the checkpoint: rtda-deploy export ckpt.pth --monitor",
        )
    signals = [f"rtda.signal_{name}" for name in SIGNALS]
    pooled = tuple(
        _pooled(graph, name, found[name][1], most, signal)
        for name, most, signal in zip(MAP_NAMES, (MOST_APPEARANCE, MOST_FEATURES), signals)
    )
    height, width = found[logits][2:]
    every = cells_step((height, width))
    if every > 1:
        logits = _sliced(graph, logits, {2: (height, every), 3: (width, every)}, "rtda.some_cells")
    # Classes last: before opset 13 a Softmax runs over its axis and all behind it.
    graph.node.append(helper.make_node("Transpose", [logits], ["rtda.cells"], name="rtda.cells", perm=[0, 2, 3, 1]))
    graph.node.append(helper.make_node("Softmax", ["rtda.cells"], ["rtda.sure"], name="rtda.sure", axis=3))
    _, _, classes, confidence = signals
    shares = helper.make_node("ReduceMean", ["rtda.sure"], [classes], name=classes, axes=[1, 2], keepdims=0)
    winner = helper.make_node("ReduceMax", ["rtda.sure"], ["rtda.winner"], name="rtda.winner", axes=[3], keepdims=1)
    sure = helper.make_node("ReduceMean", ["rtda.winner"], [confidence], name=confidence, axes=[1, 2], keepdims=0)
    graph.node.extend([shares, winner, sure])
    graph.node.append(helper.make_node("Concat", signals, [MONITOR], name="rtda.monitor", axis=1))
    widths = (*pooled, spec.num_classes, 1)
    del graph.output[1:]
    graph.output.append(helper.make_tensor_value_info(MONITOR, TensorProto.FLOAT, [1, sum(widths)]))
    made = {**spec.provenance.get("export", {}), MONITOR: dict(zip(SIGNALS, widths))}
    return spec.replace(provenance={**spec.provenance, "export": made})


def _pooled(graph: Any, source: str, channels: int, most: int, name: str) -> int:
    """Add the mean of each channel of a map, of evenly spaced ones where there are more than ``most``; how many."""
    from onnx import helper

    every = -(-channels // most)
    means = f"{source}_means"
    graph.node.append(helper.make_node("GlobalAveragePool", [source], [means], name=means))
    if every > 1:
        means = _sliced(graph, means, {1: (channels, every)}, f"{source}_channels")
    graph.node.append(helper.make_node("Flatten", [means], [name], name=name, axis=1))
    return -(-channels // every)


def _sliced(graph: Any, source: str, axes: dict[int, tuple[int, int]], name: str) -> str:
    """Add a Slice of every so-manieth entry along axes, given as length and step; its output's name, ``name``."""
    from onnx import helper, numpy_helper

    lengths, steps = zip(*axes.values())
    values = {"starts": [0] * len(axes), "ends": lengths, "axes": list(axes), "steps": steps}
    names = [f"{name}_{key}" for key in values]
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), key) for key, value in zip(names, values.values())
    )
    graph.node.append(helper.make_node("Slice", [source, *names], [name], name=name))
    return name
