"""The three dialects of TensorRT's builder, told apart by what its module has, never by its version.

=======  ======================  ============================================  ==================================
dialect  network                 FP16                                          INT8
=======  ======================  ============================================  ==================================
8.x      EXPLICIT_BATCH          a flag; kept layers by layer precision        Q/DQ nodes and the flags INT8, FP16
10.x     strongly typed where    the file's own types; for a float32 file      Q/DQ nodes; for a float32 file
         the file is FP16        as 8.x                                        as 8.x
11.x     always strongly typed   the file's own types, nothing else            Q/DQ nodes, nothing else
=======  ======================  ============================================  ==================================

:func:`parse` reads an ``.onnx`` in one of them, with every complaint of the parser in one error.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, Union

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.onnx_file import OnnxFacts
from rtda_export.precision import PRECISIONS, Precision, listed, precision_of_file
from rtda_runtime.engines.tensorrt_session import tensorrt_logger

__all__ = [
    "Dialect",
    "ParsedNetwork",
    "check_precision",
    "dialect_of",
    "engine_stem",
    "keep_layers",
    "parse",
    "set_precision",
]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How the TensorRT at hand wants to be told.

    Attributes:
        name: ``8.x``, ``10.x`` or ``11.x``.
        flags: Whether a builder flag chooses the precision; else the file's types alone do.
        typed: Whether a network can be strongly typed.
    """

    name: str
    flags: bool
    typed: bool

    def network_flags(self, trt: Any, *, strongly_typed: bool) -> int:
        """What ``create_network`` is given, so that the batch is explicit and types are binding where asked."""
        kinds = trt.NetworkDefinitionCreationFlag
        bits = 0
        if hasattr(kinds, "EXPLICIT_BATCH") and not strongly_typed:  # 10.x passes over it
            bits |= 1 << int(kinds.EXPLICIT_BATCH)
        if strongly_typed and hasattr(kinds, "STRONGLY_TYPED"):
            bits |= 1 << int(kinds.STRONGLY_TYPED)
        return bits

    def strongly_typed(self, facts: OnnxFacts) -> bool:
        """Whether the file's own types are binding for it."""
        return self.typed and (facts.float16 or not self.flags)


def dialect_of(trt: Any) -> Dialect:
    """The dialect of a loaded ``tensorrt`` module, by what it has."""
    flags = hasattr(trt.BuilderFlag, "FP16")
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    if not flags:
        return Dialect("11.x", flags=False, typed=True)
    return Dialect("10.x" if typed else "8.x", flags=True, typed=typed)


def check_precision(dialect: Dialect, facts: OnnxFacts, precision: Precision, *, dla: bool, version: str) -> None:
    """Refuse a precision that this file cannot give on this TensorRT.

    Raises:
        ConfigError: With the command that makes the file that can.
    """
    name, own, rules = facts.path.name, precision_of_file(facts), precision.engine
    stem = engine_stem(facts.path)
    by_flag = rules.from_float32 and dialect.flags
    if not own.reduced and precision.reduced and not by_flag:
        message, why, hint = rules.float32_refused
        filled = {"name": name, "stem": stem, "tensorrt": version}
        raise ConfigError(message.format(**filled), why=why, hint=hint.format(**filled))
    if own.reduced and own is not precision:
        raise ConfigError(
            f"{name} {own.content}; an {precision.name} engine cannot be built from it",
            hint=f"--precision {own.name}, or the file it was made from: {stem}.onnx",
        )
    if dla and rules.dla_refused:
        takes = listed(other.name for other in PRECISIONS if not other.engine.dla_refused)
        raise ConfigError(f"a DLA does not take {rules.dla_refused}", hint=f"--precision {takes}, or leave --dla out")


def engine_stem(onnx: Union[str, Path]) -> str:
    """``best`` for ``best.onnx`` and for ``best.fp16.onnx``."""
    stem = Path(onnx).stem
    for precision in PRECISIONS:
        if stem.endswith(f".{precision.name}"):
            stem = stem[: -len(precision.name) - 1]
    return stem


def set_precision(trt: Any, dialect: Dialect, config: Any, facts: OnnxFacts, precision: Precision) -> None:
    """Set the builder's precision flags."""
    for name in precision.engine.cleared:
        config.clear_flag(getattr(trt.BuilderFlag, name))
    for name in () if dialect.strongly_typed(facts) else precision.engine.flags:
        config.set_flag(getattr(trt.BuilderFlag, name))


def keep_layers(trt: Any, config: Any, network: Any, facts: OnnxFacts, keep: Sequence[str]) -> Tuple[str, ...]:
    """Bind the layers of the nodes ``keep`` to FP32, and their outputs too; the build fails where that cannot be.

    Args:
        trt: The module, of a dialect with flags.
        config: The builder's; gets OBEY_PRECISION_CONSTRAINTS.
        network: Parsed.
        facts: Of the file it was parsed from.
        keep: Names of nodes, as ``facts.node_names`` has them.

    Returns:
        Nodes that left no layer of floating point to bind, such as those folded into constants.
    """
    owners = _layer_owners(facts)
    unbound = dict.fromkeys(keep)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        owner = owners.get(layer.name) or owners.get(_without_number(layer.name))
        if owner is not None and owner in keep and _bind(trt, layer):
            unbound.pop(owner, None)
    if len(unbound) < len(keep):
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    return tuple(unbound)


def _bind(trt: Any, layer: Any) -> bool:
    """Compute a layer and give its results in FP32; False if it gives no floating-point results."""
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    outputs = [index for index in range(layer.num_outputs) if layer.get_output(index).dtype in floats]
    if not outputs:
        return False
    with warnings.catch_warnings():  # deprecated from 10.12 on, where a typed file is the better way
        warnings.simplefilter("ignore", DeprecationWarning)
        layer.precision = trt.DataType.FLOAT
        for index in outputs:
            layer.set_output_type(index, trt.DataType.FLOAT)
    return True


def _layer_owners(facts: OnnxFacts) -> Dict[str, str]:
    """Name of a layer -> name of its node. The parser calls a node without a name by its first output."""
    owners: Dict[str, str] = {}
    for node, unique in zip(facts.nodes, facts.node_names):
        for name in (node.name or f"node_of_{node.output}", unique):
            owners.setdefault(name, unique)
    return owners


def _without_number(layer: str) -> str:
    """``Sigmoid_2`` -> ``Sigmoid``: the parser numbers the further layers of a node, and of a name used before."""
    stem, _, number = layer.rpartition("_")
    return stem if number.isdigit() else layer


_NAMED = 5  # complaints told in full; the others are counted


class ParsedNetwork(NamedTuple):
    """A network and the parser that owns its weights: both must live until the engine is built."""

    network: Any
    parser: Any


def parse(trt: Any, builder: Any, dialect: Dialect, facts: OnnxFacts) -> ParsedNetwork:
    """Parse the file of ``facts``.

    Raises:
        ExportError: If TensorRT does not take it, naming nodes and operators.
    """
    log = tensorrt_logger(trt)
    log.clear()
    network = builder.create_network(dialect.network_flags(trt, strongly_typed=dialect.strongly_typed(facts)))
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(facts.path)) and network.num_layers:
        return ParsedNetwork(network, parser)
    complaints = [_complaint(parser.get_error(index), facts) for index in range(parser.num_errors)]
    complaints = list(dict.fromkeys(complaints)) or [log.reason() or "it gives no reason"]
    more = f"; and {len(complaints) - _NAMED} more" if len(complaints) > _NAMED else ""
    raise ExportError(
        f"TensorRT {trt.__version__} cannot parse {facts.path.name} (opset {facts.opset})",
        why="; ".join(complaints[:_NAMED]) + more,
        hint="export it again with operators that TensorRT 8.5 knows: rtda-deploy export ckpt.pth --to onnx --opset 17",
    )


def _complaint(error: Any, facts: OnnxFacts) -> str:
    """One error of the parser: ``node /head/Resize (Resize): This version of TensorRT ... (UNSUPPORTED_NODE)``."""
    index = error.node()
    name = operator = ""
    if 0 <= index < len(facts.nodes):
        name, operator = facts.node_names[index], facts.nodes[index].operator
    if hasattr(error, "node_operator"):  # from TensorRT 10 on the parser says it itself
        name, operator = error.node_name() or name, error.node_operator() or operator
    said = " ".join(str(error.desc()).split())
    code = str(error.code()).rpartition(".")[2]
    where: List[str] = [f"node {name} ({operator}): "] if operator else []
    return f"{''.join(where)}{said} ({code})"
