"""From an ``.onnx`` to a parsed network, with every complaint of the parser in one error."""

from __future__ import annotations

from typing import Any, List

from rtda_deploy.errors import ExportError
from rtda_deploy.onnx_file import OnnxFacts
from rtda_export.tensorrt.dialects import Dialect
from rtda_runtime.engines.tensorrt_session import tensorrt_logger

__all__ = ["ParsedNetwork", "parse"]

_NAMED = 5  # complaints told in full; the others are counted


class ParsedNetwork:
    """A network and the parser that owns its weights: both must live until the engine is built."""

    def __init__(self, network: Any, parser: Any) -> None:
        self.network = network
        self._parser = parser


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
