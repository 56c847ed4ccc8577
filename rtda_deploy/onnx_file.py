"""What an ``.onnx`` file says of itself, read without the onnx package, which a robot does not have.

An ONNX file is one protobuf message. This walks over its fields and steps over the weights without reading them, so
that a file of gigabytes takes milliseconds.

Source: onnx/onnx.proto3 (field numbers).
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple, Type, Union

from rtda_deploy.border import json_values, reason
from rtda_deploy.errors import EngineError, ExportError, RtdaError, SpecError
from rtda_deploy.files import file_error, readable_file
from rtda_deploy.model_files import impostor
from rtda_deploy.protobuf import BrokenMessage, Message
from rtda_deploy.spec import ModelSpec

__all__ = [
    "CARD_KEY",
    "PRECISION_KEY",
    "SPEC_KEY",
    "NodeFacts",
    "OnnxFacts",
    "TensorFacts",
    "onnx_spec",
    "precision_from_metadata",
    "read_onnx_facts",
    "read_onnx_metadata",
    "spec_from_metadata",
]

SPEC_KEY = "rtda.spec"  # name of the ModelSpec in the metadata
CARD_KEY = "rtda.card"  # name of the calibration card, JSON; a model is complete without it
PRECISION_KEY = "rtda.precision"  # name of what FP16 rescue and calibration found, JSON

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
            ExportError: If there is not one input (N, 3, H, W), or (N, H, W, 3), of fixed shape.
        """
        shapes = ", ".join(f"{value.name} {list(value.shape)}" for value in self.inputs)
        if len(self.inputs) != 1 or len(self.inputs[0].shape) != 4:
            raise ExportError(
                f"{self.path.name} takes {shapes or 'nothing'}: expected one picture (1, 3, H, W)",
                hint="export it from its checkpoint: rtda-deploy export ckpt.pth --to onnx",
            )
        shape = self.inputs[0].shape
        height, width = shape[1:3] if shape[3] == 3 and shape[1] != 3 else shape[2:]
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
    def card(self) -> str:
        """The calibration card's JSON text, for ``rtda_deploy.card.card_from_json``; empty where there is none."""
        return self.metadata.get(CARD_KEY, "")

    @property
    def keep_fp32(self) -> Tuple[str, ...]:
        """Nodes that FP16 rescue found to need FP32.

        Raises:
            ExportError: If that entry of the metadata is broken.
        """
        where, hint = f"{PRECISION_KEY} in {self.path.name}", "export the model again"
        facts = json_values(self.metadata.get(PRECISION_KEY, "{}"), where, ExportError, hint=hint)
        if not isinstance(facts, dict):
            raise ExportError(f"{where} is no JSON object", hint=hint)
        kept = facts.get("keep_fp32", [])
        if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
            raise ExportError(f"{where}: keep_fp32 is no list of names", hint=hint)
        return tuple(kept)


def read_onnx_facts(
    path: Union[str, Path], *, allow_external: bool = False, error: Type[RtdaError] = ExportError
) -> OnnxFacts:
    """Read what ``path`` says of itself; takes milliseconds whatever the size of the weights.

    Args:
        path: The file.
        allow_external: Read a file whose weights are in another one, too: to look at, not to build from.
        error: What a file that cannot be used is raised as.

    Raises:
        ExportError: If it is no whole ONNX file, or keeps its weights in another file.
        FileAccessError: If it cannot be read.
    """
    with _opened(path, error) as model:
        facts = _facts(model, Path(path))
    if facts.external and not allow_external:
        raise error(
            f"{facts.path.name} keeps its weights in another file",
            why="its hash would not cover them",
            hint="save it as one file: onnx.save(onnx.load(path), path)",
        )
    return facts


def read_onnx_metadata(path: Union[str, Path]) -> Dict[str, str]:
    """The ``metadata_props`` of an ONNX file, key to value; of a key that is there twice, the last.

    The graph is stepped over.

    Raises:
        EngineError: If it is no whole ONNX file.
        FileAccessError: If it cannot be read.
    """
    with _opened(path, EngineError) as model:
        _graph(model)
        return _metadata(model)


def onnx_spec(path: Union[str, Path]) -> ModelSpec:
    """The spec in the metadata of an ``.onnx``.

    Raises:
        SpecError: If there is none, or it is broken.
        EngineError: If it is no whole ONNX file.
        FileAccessError: If it cannot be read.
    """
    return spec_from_metadata(read_onnx_metadata(path), Path(path).name)


def spec_from_metadata(metadata: Mapping[str, str], name: str) -> ModelSpec:
    """The spec in a file's metadata; ``name`` is the file's, for errors.

    Raises:
        SpecError: If there is none, or it is broken.
    """
    text = metadata.get(SPEC_KEY)
    if not text:
        raise SpecError(
            f"{name} says nothing about its classes, mean and size (no {SPEC_KEY} in its metadata)",
            hint=f"rtda-deploy inspect {name} --spec-template > spec.json, fill it in, then write it into a copy: "
            f"rtda-deploy export {name} --spec spec.json --out with-spec",
        )
    return ModelSpec.from_json(text, where=f"{SPEC_KEY} in {name}")


def precision_from_metadata(metadata: Mapping[str, str]) -> Dict[str, Any]:
    """What an export wrote of the file's precision: ``precision``, ``keep_fp32`` or ``kept_float``, and reasons.

    ``{"precision": "fp32"}`` where it wrote nothing that can be read.
    """
    with contextlib.suppress(EngineError):
        found = json_values(metadata.get(PRECISION_KEY, ""), PRECISION_KEY, EngineError, hint="")
        if isinstance(found, dict) and isinstance(found.get("precision", ""), str):
            return {"precision": "fp32", **found}
    return {"precision": "fp32"}


@contextlib.contextmanager
def _opened(path: Union[str, Path], error: Type[RtdaError]) -> Iterator[Message]:
    """The message that an ``.onnx`` file is, open while the block runs; what is broken in it is raised as ``error``."""
    file = readable_file(path, what="model")
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield Message(content, 0, len(content))
    except OSError as err:
        raise file_error(err, file, "read") from err
    except Exception as err:  # whatever walking over garbage leads to
        found = impostor(file)
        raise error(
            f"{file.name} is no whole ONNX file",
            why=f"it is {found.text}: {reason(err)}" if found else reason(err),
            hint=found.hint
            if found
            else "was it copied to its end? Compare its size with the original's, or export it again",
        ) from err


def _facts(model: Message, path: Path) -> OnnxFacts:
    """Of a ModelProto."""
    graph = _graph(model)
    opsets = [entry.number(2) for entry in model.messages(8) if entry.text(1) in ("", "ai.onnx")]
    if not opsets or not opsets[-1]:
        raise BrokenMessage("it holds no opset")
    tensors = graph.messages(5)
    weights: Set[str] = {tensor.text(8) for tensor in tensors}
    nodes = graph.messages(1)
    tensors += [tensor for node in nodes for attribute in node.messages(5) for tensor in attribute.messages(5)]
    return OnnxFacts(
        path=path,
        ir_version=model.number(1),
        opset=opsets[-1],
        metadata=_metadata(model),
        inputs=tuple(value for value in map(_tensor, graph.messages(11)) if value.name not in weights),
        outputs=tuple(map(_tensor, graph.messages(12))),
        nodes=tuple(NodeFacts(node.text(3), node.text(4), (node.texts(2) or [""])[0]) for node in nodes),
        float16=_FLOAT16 in {tensor.number(2) for tensor in tensors},
        external=_EXTERNAL in {tensor.number(14) for tensor in tensors},
    )


def _graph(model: Message) -> Message:
    graphs = model.messages(7)
    if not graphs:
        raise BrokenMessage("it holds no graph")
    return graphs[-1]


def _metadata(model: Message) -> Dict[str, str]:
    return {entry.text(1): entry.text(2) for entry in model.messages(14)}


def _tensor(value: Message) -> TensorFacts:
    """A ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    name, dtype = value.text(1), 0
    shape: List[Optional[int]] = []
    for kind in (inner for holder in value.messages(2) for inner in holder.messages(1)):
        dtype = kind.number(1)
        sides = (side for holder in kind.messages(2) for side in holder.messages(1))
        shape = [side.number(1) or None for side in sides]  # dim_value, else dim_param
    return TensorFacts(name, _DTYPES.get(dtype, f"type {dtype}" if dtype else "unknown"), tuple(shape))
