"""What an ``.onnx`` file says of itself, read without the onnx package, which a robot does not have.

An ONNX file is one protobuf message. This walks over its fields, steps over the weights without reading them, and keeps
metadata, opset, inputs, outputs and the names of the nodes.

Source: onnx/onnx.proto3 (field numbers).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple, Union

from rtda_deploy.border import json_values
from rtda_deploy.errors import ExportError
from rtda_deploy.onnx_metadata import PRECISION_KEY, SPEC_KEY
from rtda_deploy.protobuf import BrokenMessage, Message, Value, number_of, open_onnx_message
from rtda_deploy.spec import ModelSpec

__all__ = ["NodeFacts", "OnnxFacts", "TensorFacts", "read_onnx_facts"]

_FLOAT16, _EXTERNAL = 10, 1  # TensorProto.DataType.FLOAT16, TensorProto.DataLocation.EXTERNAL
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}


@dataclasses.dataclass(frozen=True)
class TensorFacts:
    """An input or output: its name, its type, and its shape, in which None is a side without a fixed length."""

    name: str
    dtype: str
    shape: Tuple[Optional[int], ...]


@dataclasses.dataclass(frozen=True)
class NodeFacts:
    """A node: its name (may be empty), its operator and its first output."""

    name: str
    operator: str
    output: str


@dataclasses.dataclass(frozen=True)
class OnnxFacts:
    """What is known of an ONNX file without its weights.

    Attributes:
        path: The file.
        ir_version: Of the format.
        opset: Of the standard operators.
        metadata: Key to value.
        inputs: Those that are no weights.
        outputs: Of the graph.
        nodes: In the order of the file.
        float16: Whether it holds float16 weights: the file itself is FP16.
        external: Whether it keeps weights in another file.
    """

    path: Path
    ir_version: int
    opset: int
    metadata: Mapping[str, str]
    inputs: Tuple[TensorFacts, ...]
    outputs: Tuple[TensorFacts, ...]
    nodes: Tuple[NodeFacts, ...]
    float16: bool
    external: bool = False

    @property
    def quantized(self) -> bool:
        """Whether it holds QuantizeLinear and DequantizeLinear nodes."""
        return any(node.operator in _QUANTIZERS for node in self.nodes)

    @property
    def node_names(self) -> Tuple[str, ...]:
        """One name per node, each once; a node without a name of its own is called operator_index.

        The same rule as ``rtda_export.precision.fp16.named``.
        """
        names: List[str] = []
        taken = set()
        for index, node in enumerate(self.nodes):
            unique = node.name and node.name not in taken
            names.append(node.name if unique else f"{node.name or node.operator}_{index}")
            taken.add(names[-1])
        return tuple(names)

    @property
    def size_hw(self) -> Tuple[int, int]:
        """Height and width of the input.

        Raises:
            ExportError: If there is not one input (N, 3, H, W) of fixed shape.
        """
        shapes = ", ".join(f"{value.name} {list(value.shape)}" for value in self.inputs)
        if len(self.inputs) != 1 or len(self.inputs[0].shape) != 4:
            raise ExportError(
                f"{self.path.name} takes {shapes or 'nothing'}: expected one picture (1, 3, H, W)",
                hint="export it from its checkpoint: rtda-deploy export ckpt.pth --to onnx",
            )
        height, width = self.inputs[0].shape[2:]
        if None in self.inputs[0].shape or height is None or width is None:
            raise ExportError(
                f"{self.path.name} has no fixed input shape: {shapes}",
                why="an engine is built for one size",
                hint="export it with one: rtda-deploy export ckpt.pth --to onnx --size 1024x512",
            )
        return height, width

    @property
    def spec(self) -> Optional[ModelSpec]:
        """The ModelSpec in the metadata; None where there is none.

        Raises:
            SpecError: If it is broken.
        """
        text = self.metadata.get(SPEC_KEY)
        return None if text is None else ModelSpec.from_json(text, where=f"{self.path.name}, {SPEC_KEY}")

    @property
    def keep_fp32(self) -> Tuple[str, ...]:
        """Nodes that FP16 rescue found to need FP32.

        Raises:
            ExportError: If that entry of the metadata is broken.
        """
        text = self.metadata.get(PRECISION_KEY)
        if text is None:
            return ()
        where = f"{PRECISION_KEY} in {self.path.name}"
        facts = json_values(text, where, ExportError, hint="export the model again")
        if not isinstance(facts, dict):
            raise ExportError(f"{where} is no JSON object", hint="export the model again")
        kept = facts.get("keep_fp32", [])
        if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
            raise ExportError(
                f"{PRECISION_KEY} in {self.path.name}: keep_fp32 is no list of names", hint="export again"
            )
        return tuple(kept)


def read_onnx_facts(path: Union[str, Path], *, allow_external: bool = False) -> OnnxFacts:
    """Read what ``path`` says of itself; takes milliseconds whatever the size of the weights.

    Args:
        path: The file.
        allow_external: Read a file whose weights are in another one, too: to look at, not to build from.

    Raises:
        ExportError: If it is no whole ONNX file, or keeps its weights in another file.
        FileAccessError: If it cannot be read.
    """
    with open_onnx_message(path, ExportError) as message:
        facts = _model(message, Path(path))
    if facts.external and not allow_external:
        raise ExportError(
            f"{facts.path.name} keeps its weights in another file",
            why="its hash would not cover them",
            hint="save it as one file: onnx.save(onnx.load(path), path)",
        )
    return facts


def _model(message: Message, path: Path) -> OnnxFacts:
    ir_version = opset = 0
    metadata: Dict[str, str] = {}
    graph: Optional[Message] = None
    for number, value in message.fields():  # ModelProto
        if number == 1:
            ir_version = number_of(value)
        elif number == 7:
            graph = message.inner(value)
        elif number == 8:
            domain, version = _opset(message.inner(value))
            opset = version if domain in ("", "ai.onnx") else opset
        elif number == 14:
            key, text = message.inner(value).entry()
            metadata[key] = text
    if graph is None or not opset:
        raise BrokenMessage(f"it holds no {'graph' if graph is None else 'opset'}")
    return _graph(graph, path, ir_version, opset, metadata)


def _graph(message: Message, path: Path, ir_version: int, opset: int, metadata: Mapping[str, str]) -> OnnxFacts:
    nodes: List[NodeFacts] = []
    weights: Set[str] = set()
    inputs: List[TensorFacts] = []
    outputs: List[TensorFacts] = []
    tensors: List[_Weight] = []
    for number, value in message.fields():  # GraphProto
        if number == 1:
            node, held = _node(message.inner(value))
            nodes.append(node)
            tensors += held
        elif number == 5:
            weight = _weight(message.inner(value))
            weights.add(weight.name)
            tensors.append(weight)
        elif number in (11, 12):
            (inputs if number == 11 else outputs).append(_tensor(message.inner(value)))
    real = tuple(value for value in inputs if value.name not in weights)
    float16 = any(weight.dtype == _FLOAT16 for weight in tensors)
    external = any(weight.external for weight in tensors)
    return OnnxFacts(path, ir_version, opset, metadata, real, tuple(outputs), tuple(nodes), float16, external)


class _Weight(NamedTuple):
    """A TensorProto: its name, its type, and whether its values are in another file."""

    name: str
    dtype: int
    external: bool


def _node(message: Message) -> Tuple[NodeFacts, List[_Weight]]:
    name = operator = ""
    outputs: List[str] = []
    held: List[_Weight] = []
    for number, value in message.fields():  # NodeProto
        if number == 2:
            outputs.append(message.text(value))
        elif number == 3:
            name = message.text(value)
        elif number == 4:
            operator = message.text(value)
        elif number == 5:
            attribute = message.inner(value)
            held += [_weight(attribute.inner(inner)) for place, inner in attribute.fields() if place == 5]  # its t
    return NodeFacts(name, operator, outputs[0] if outputs else ""), held


def _weight(message: Message) -> _Weight:
    name, dtype, external = "", 0, False
    for number, value in message.fields():
        if number == 2:
            dtype = number_of(value)
        elif number == 8:
            name = message.text(value)
        elif number == 14:
            external = number_of(value) == _EXTERNAL
    return _Weight(name, dtype, external)


def _tensor(message: Message) -> TensorFacts:
    """A ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    name, dtype = "", "unknown"
    shape: List[Optional[int]] = []
    for number, value in message.fields():
        if number == 1:
            name = message.text(value)
        elif number == 2:
            for kind in _inner(message, value, 1):
                for field, content in kind.fields():
                    if field == 1:
                        dtype = _DTYPES.get(number_of(content), f"type {content}")
                    elif field == 2:
                        shape = [_side(side) for side in _inner(kind, content, 1)]
    return TensorFacts(name, dtype, tuple(shape))


def _inner(message: Message, value: Value, wanted: int) -> Iterator[Message]:
    holder = message.inner(value)
    return (holder.inner(inner) for number, inner in holder.fields() if number == wanted)


def _side(message: Message) -> Optional[int]:
    """A Dimension: dim_value = 1, or dim_param = 2."""
    for number, value in message.fields():
        if number == 1 and number_of(value) > 0:
            return number_of(value)
    return None


def _opset(message: Message) -> Tuple[str, int]:
    domain, version = "", 0
    for number, value in message.fields():
        if number == 1:
            domain = message.text(value)
        elif number == 2:
            version = number_of(value)
    return domain, version
