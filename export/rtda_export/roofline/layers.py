"""An ONNX graph as the layers an inference engine runs: operations and bytes of each, fused where engines fuse.

What TensorRT documents to fuse is fused here: batch norms, biases, an activation and a residual addition into the
convolution before them, elementwise operators among themselves. Concatenations cost nothing: producers write where the
consumer reads. Resizing and pooling stay layers of their own.

Source: NVIDIA TensorRT Developer Guide, "Types of Fusions".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from rtda_export.graph.operators import OperatorGraph

__all__ = ["Layer", "fused_layers"]

_ACTIVATIONS = frozenset(
    ("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Softplus", "Tanh")
)
_SCALES = frozenset(("Add", "BatchNormalization", "Div", "Mul", "Sub"))  # with constants: folded into weights
_ARITHMETIC = frozenset(
    ("Abs", "Ceil", "Erf", "Exp", "Floor", "Log", "Max", "Min", "Neg", "Pow", "Reciprocal", "Round", "Sqrt", "Sum")
)
_POINTWISE = _ACTIVATIONS | _SCALES | _ARITHMETIC | {"Not", "Where"}
_POOLS = frozenset(
    ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceSum")
)
_REDUCTIONS = frozenset(
    ("ArgMax", "ArgMin", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "LpNormalization", "Softmax")
)
_COPIES = frozenset(("DepthToSpace", "Expand", "Gather", "Pad", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose"))
_KINDS = {
    **dict.fromkeys(_POINTWISE, "pointwise"),
    **dict.fromkeys(_POOLS, "pool"),
    **dict.fromkeys(_REDUCTIONS, "reduce"),
    **dict.fromkeys(_COPIES, "copy"),
    **dict.fromkeys(("Conv", "ConvTranspose"), "conv"),
    **dict.fromkeys(("Gemm", "MatMul"), "matmul"),
    **dict.fromkeys(("Resize", "Upsample"), "resize"),
}
_WEIGHTED = frozenset(("conv", "depthwise", "matmul", "pointwise"))  # the constants of others are sizes and axes
_LEAST_GROUP = 8  # input channels of a group below which tensor cores, whose tiles are 8 deep, are not used


@dataclass(frozen=True)
class Layer:
    """One kernel of an engine.

    Attributes:
        name: Of its first operator; of what that writes where it has none.
        kind: ``conv``, ``depthwise`` (grouped too finely for tensor cores), ``matmul``, ``pool``, ``reduce``,
            ``resize``, ``copy``, ``pointwise``, or ``other`` for an operator that is not known here.
        operators: ONNX operators it holds, in order.
        macs: Multiply-adds of its convolution or matrix product; 0 for every other kind.
        weights: Values of its constants.
        activations: Values it reads and writes that stay inside the engine, at the engine's precision.
        border_bytes: Bytes of the network's own inputs and outputs that it reads and writes, in their own type.
        output_shape: Of what it writes, such as (1, 64, 128, 256).
    """

    name: str
    kind: str
    operators: tuple[str, ...]
    macs: int
    weights: int
    activations: int
    border_bytes: int
    output_shape: tuple[int, ...]

    @property
    def label(self) -> str:
        """Its name for people: ``backbone.layer1.0.conv1`` for ``/backbone/layer1/layer1.0/conv1/Conv``."""
        parts = [part for part in self.name.split("/") if part]
        if len(parts) > 1 and parts[-1].partition("_")[0] == self.operators[0]:
            parts.pop()
        kept = [part for part, after in zip(parts, [*parts[1:], ""]) if not after.startswith(f"{part}.")]
        return ".".join(kept)

    def bytes_moved(self, value_bytes: int) -> int:
        """Bytes it reads and writes at ``value_bytes`` a value; each map counts once, as if caches were ideal."""
        return (self.weights + self.activations) * value_bytes + self.border_bytes


def fused_layers(model: Any) -> tuple[Layer, ...]:
    """The layers of a network, in the order they run.

    Args:
        model: ``onnx.ModelProto`` of fixed height and width; an open batch counts as 1.

    Raises:
        ExportError: If a shape cannot be found out.
        MissingPackageError: If onnx is not installed.
    """
    graph = OperatorGraph(model)
    groups: list[_Group] = []
    made_by: dict[str, _Group] = {}
    for node in graph.nodes:
        if node.op_type == "Concat":
            continue
        group = _host(node, graph, made_by)
        if group is None:
            group = _Group(_kind(node, graph))
            groups.append(group)
        group.take(node, graph)
        made_by[group.output] = group
    return tuple(group.layer(graph) for group in groups)


@dataclass
class _Group:
    """A layer in the making: the operators that one kernel will hold."""

    kind: str
    nodes: list[Any] = field(default_factory=list)
    reads: dict[str, None] = field(default_factory=dict)  # an ordered set
    output: str = ""
    more_outputs: tuple[str, ...] = ()  # of an operator with several, those that are read
    weights: int = 0
    state: int = 0  # of a convolution: 0 bare, 1 with a residual added, 2 activated

    def take(self, node: Any, graph: OperatorGraph) -> None:
        """Add an operator; what the group wrote before stays in registers."""
        self.reads.update(dict.fromkeys(name for name in graph.maps(node) if name != self.output))
        self.nodes.append(node)
        self.output = node.output[0]
        self.more_outputs = tuple(name for name in node.output[1:] if graph.readers[name] or name in graph.outputs)
        if self.kind in _WEIGHTED:
            self.weights += sum(graph.size(name) for name in graph.weights(node))
        if node.op_type in _ACTIVATIONS:
            self.state = 2
        elif len(graph.maps(node)) > 1:
            self.state = max(self.state, 1)

    def layer(self, graph: OperatorGraph) -> Layer:
        first = self.nodes[0]
        touched = [*self.reads, self.output, *self.more_outputs]
        border = [name for name in touched if name in graph.inputs or name in graph.outputs]
        return Layer(
            name=first.name or first.output[0],
            kind=self.kind,
            operators=tuple(node.op_type for node in self.nodes),
            macs=_macs(first, graph),
            weights=self.weights,
            activations=sum(graph.size(name) for name in touched if name not in border),
            border_bytes=sum(graph.border_bytes(name) for name in border),
            output_shape=graph.shape(self.output),
        )


def _host(node: Any, graph: OperatorGraph, made_by: dict[str, _Group]) -> _Group | None:
    """The layer that takes an elementwise operator in, the latest where several could; None: it starts its own."""
    if node.op_type not in _POINTWISE:
        return None
    maps = graph.maps(node)
    hosts = [made_by[name] for name in maps if name in made_by and _ends_there(name, graph)]
    takers = [host for host in hosts if _takes(host, node, len(maps), graph)]
    order = {id(group): place for place, group in enumerate(made_by.values())}
    return max(takers, key=lambda host: order[id(host)], default=None)


def _ends_there(name: str, graph: OperatorGraph) -> bool:
    """Whether the tensor has one reader and is no output, so that it never has to reach memory."""
    return graph.readers[name] == 1 and name not in graph.outputs


def _takes(host: _Group, node: Any, maps: int, graph: OperatorGraph) -> bool:
    if host.kind == "pointwise":
        return True
    if host.kind not in ("conv", "depthwise", "matmul") or host.state == 2:
        return False
    if graph.size(host.output) != graph.size(node.output[0]):  # it would be broadcast
        return False
    if maps == 1:
        return node.op_type in _ACTIVATIONS or (node.op_type in _SCALES and host.state == 0)
    return node.op_type in ("Add", "Sum") and maps == 2 and host.state == 0


def _kind(node: Any, graph: OperatorGraph) -> str:
    kind = _KINDS.get(node.op_type, "other")
    groups = _attribute(node, "group", 1)
    if kind == "conv" and groups > 1 and graph.shape(node.input[0])[1] // groups < _LEAST_GROUP:
        return "depthwise"
    return kind


def _macs(node: Any, graph: OperatorGraph) -> int:
    """Multiply-adds: one per weight and place; a transposed convolution places its kernel on the input instead."""
    if node.op_type in ("Conv", "ConvTranspose"):
        placed = graph.shape(node.output[0] if node.op_type == "Conv" else node.input[0])
        return graph.size(node.input[1]) * placed[0] * math.prod(placed[2:])
    if node.op_type == "MatMul":
        return graph.size(node.output[0]) * graph.shape(node.input[0])[-1]
    if node.op_type == "Gemm":
        depth = graph.size(node.input[0]) // graph.shape(node.output[0])[0]
        return graph.size(node.output[0]) * depth
    return 0


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)
