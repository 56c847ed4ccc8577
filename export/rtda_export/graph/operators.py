"""An ONNX graph as a list of operators that really run, with every shape known.

Constants are folded away, whatever computes shapes with them, and views (casts, reshapes, quantisation pairs) are
looked through.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from rtda_deploy.errors import ExportError
from rtda_deploy.optional import require

__all__ = ["VIEWS", "OperatorGraph"]

# Cost nothing in an engine: the consumer reads the same memory, or converts while it loads.
VIEWS = frozenset(
    ("Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Unsqueeze")
)


class OperatorGraph:
    """Operators, shapes, constants and readers of one network.

    Args:
        model: ``onnx.ModelProto``; an open batch counts as 1, any other open side is refused once it matters.

    Attributes:
        nodes: ONNX nodes that run, in order; without those that only make constants, and without views.
        constants: Names of tensors that are known before the first picture.
        inputs: Names of the network's inputs.
        outputs: The network's outputs, each under the name of the tensor it is a view of.
        readers: How many operators read a tensor.

    Raises:
        ExportError: If the shapes contradict each other.
    """

    def __init__(self, model: Any) -> None:
        onnx = require("onnx", extra="export", purpose="to read .onnx files")
        graph = _inferred(onnx, model)
        self._onnx = onnx
        self._shapes: dict[str, tuple[int, ...] | None] = {w.name: tuple(w.dims) for w in graph.initializer}
        self._types: dict[str, int] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self._shapes.setdefault(value.name, _shape(value))
            self._types[value.name] = value.type.tensor_type.elem_type
        self.constants = {weight.name for weight in graph.initializer}
        self.inputs = {value.name for value in graph.input} - self.constants
        self._origin: dict[str, str] = {}
        running = [node for node in graph.node if not self._is_constant(node)]
        for node in running:
            if node.op_type in VIEWS:
                self._origin[node.output[0]] = self.origin(node.input[0])
        self.nodes = [node for node in running if node.op_type not in VIEWS]
        self.outputs = {self.origin(value.name): value.name for value in graph.output}
        self.readers = Counter(name for node in self.nodes for name in set(self.maps(node)))

    def origin(self, name: str) -> str:
        """The tensor that ``name`` is a view of, or itself."""
        return self._origin.get(name, name)

    def maps(self, node: Any) -> list[str]:
        """What an operator reads besides constants."""
        return [self.origin(name) for name in node.input if name and name not in self.constants]

    def weights(self, node: Any) -> list[str]:
        """The constants an operator reads."""
        return [name for name in node.input if name in self.constants]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor.

        Raises:
            ExportError: If it cannot be found out, or a side of it is open.
        """
        found = self._shapes.get(name)
        if found is None:
            raise ExportError(
                f"the shape of {name!r} is not fixed in this graph",
                why="an estimate holds for one size",
                hint="export the network with a fixed height and width",
            )
        return found

    def size(self, name: str) -> int:
        """Values in a tensor."""
        return math.prod(self.shape(name))

    def border_bytes(self, name: str) -> int:
        """Bytes of one of the network's inputs or outputs, in its own type."""
        given = self.outputs.get(name, name)
        itemsize: int = self._onnx.helper.tensor_dtype_to_np_dtype(self._types[given]).itemsize
        return self.size(given) * itemsize

    def _is_constant(self, node: Any) -> bool:
        """Whether nothing but constants goes in; what comes out is constant then, too."""
        constant = node.op_type == "Shape" or all(not name or name in self.constants for name in node.input)
        if constant:
            self.constants.update(node.output)
            for entry in node.attribute:
                if node.op_type == "Constant" and entry.name == "value":
                    self._shapes[node.output[0]] = tuple(entry.t.dims)
        return constant


def _inferred(onnx: Any, model: Any) -> Any:
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    weights = {weight.name for weight in sized.graph.initializer}
    opened = [
        value
        for value in sized.graph.input
        if value.name not in weights and value.type.tensor_type.shape.dim[:1]
        if not value.type.tensor_type.shape.dim[0].HasField("dim_value")
    ]
    for value in opened:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in sized.graph.output if opened else ():  # declared with the open batch; found again below
        value.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as err:
        raise ExportError(
            "the shapes in this graph contradict each other",
            why=(str(err).strip().splitlines() or [""])[0][:200],
            hint="was it edited by hand? Export it again",
        ) from err


def _shape(value: Any) -> tuple[int, ...] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(side.HasField("dim_value") for side in kind.shape.dim):
        return None
    return tuple(side.dim_value for side in kind.shape.dim)
