"""A few numbers beside the mask, for the alarm that the world has changed: pooled features, class shares, confidence.

They are nodes of the graph, so that every engine and precision has them: means over maps that the network makes anyway.
TensorRT 8.5 parses all of them (Slice, Transpose, Softmax, ReduceMean, ReduceMax, Concat).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.familiar import MONITOR, MOST_FEATURES, SIGNALS
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.nodes import border

if TYPE_CHECKING:
    from torch import Tensor

    from rtda_training.models.network import DeployView

__all__ = ["DEEPEST_NAME", "giving_deepest", "with_monitor"]

DEEPEST_NAME = "rtda.deepest"


@contextmanager
def giving_deepest(view: DeployView) -> Iterator[None]:
    """While it is open, the view gives its backbone's coarsest map beside the logits; for tracing."""
    backbone: Any = view.backbone
    method = "branches" if hasattr(backbone, "branches") else "forward"
    whole, coarse = getattr(backbone, method), view.forward
    seen: list[Any] = []

    def tapped(image: Tensor) -> Any:
        seen.append(whole(image))
        return seen[-1]

    def both(image: Tensor) -> tuple[Tensor, Tensor]:
        seen.clear()
        logits = coarse(image)
        return logits, getattr(seen[-1], "features", seen[-1])[3]

    setattr(backbone, method, tapped)
    view.forward = both  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del view.forward
        delattr(backbone, method)


def with_monitor(model: Any, spec: ModelSpec) -> ModelSpec:
    """Turn a graph's second output, the coarsest map, into ``monitor`` float32 (1, D); in place.

    In the order of ``rtda_deploy.familiar.SIGNALS``: the mean of each channel of the map, of evenly spaced ones where
    there are more than ``MOST_FEATURES``; the mean probability of each class over the logits' cells; the mean of the
    largest probability.

    Args:
        model: ``onnx.ModelProto`` with the outputs logits and ``DEEPEST_NAME``, for one picture; opset below 18.
        spec: Of the model.

    Returns:
        The spec, whose provenance says under ``export`` how many numbers each signal has.

    Raises:
        ExportError: If the outputs are others.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    found = {name: shape for name, _, shape in border(graph.output)}
    logits = next(iter(found))
    if list(found)[1:] != [DEEPEST_NAME] or len(found[DEEPEST_NAME]) != 4:
        raise ExportError(
            f"signals are made of logits and the backbone's coarsest map; this gives {', '.join(found)}",
            hint="export the checkpoint: rtda-deploy export ckpt.pth --monitor",
        )
    channels = found[DEEPEST_NAME][1]
    every = -(-channels // MOST_FEATURES)
    deep = DEEPEST_NAME
    if every > 1:
        values = {"starts": 0, "ends": channels, "axes": 1, "steps": every}
        names = [f"rtda.monitor_{name}" for name in values]
        graph.initializer.extend(
            numpy_helper.from_array(np.array([value], np.int64), name) for name, value in zip(names, values.values())
        )
        deep = "rtda.monitor_channels"
        graph.node.append(helper.make_node("Slice", [DEEPEST_NAME, *names], [deep], name=deep))

    def mean(source: str, name: str) -> None:
        graph.node.append(helper.make_node("ReduceMean", [source], [name], name=name, axes=[2, 3], keepdims=0))

    # Classes last: before opset 13 a Softmax runs over its axis and all behind it.
    graph.node.append(helper.make_node("Transpose", [logits], ["rtda.cells"], name="rtda.cells", perm=[0, 2, 3, 1]))
    graph.node.append(helper.make_node("Softmax", ["rtda.cells"], ["rtda.sure"], name="rtda.sure", axis=3))
    signals = [f"rtda.signal_{name}" for name in SIGNALS]
    mean(deep, signals[0])
    shares = helper.make_node("ReduceMean", ["rtda.sure"], [signals[1]], name=signals[1], axes=[1, 2], keepdims=0)
    winner = helper.make_node("ReduceMax", ["rtda.sure"], ["rtda.winner"], name="rtda.winner", axes=[3], keepdims=1)
    sure = helper.make_node("ReduceMean", ["rtda.winner"], [signals[2]], name=signals[2], axes=[1, 2], keepdims=0)
    graph.node.extend([shares, winner, sure])
    graph.node.append(helper.make_node("Concat", signals, [MONITOR], name="rtda.monitor", axis=1))
    widths = (-(-channels // every), spec.num_classes, 1)
    del graph.output[1]
    graph.output.append(helper.make_tensor_value_info(MONITOR, TensorProto.FLOAT, [1, sum(widths)]))
    made = {**spec.provenance.get("export", {}), MONITOR: dict(zip(SIGNALS, widths))}
    return spec.replace(provenance={**spec.provenance, "export": made})
