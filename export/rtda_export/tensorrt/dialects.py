"""The three dialects of TensorRT's builder, told apart by what its module has, never by its version.

=======  ======================  ============================================  ==================================
dialect  network                 FP16                                          INT8
=======  ======================  ============================================  ==================================
8.x      EXPLICIT_BATCH          a flag; kept layers by layer precision        Q/DQ nodes and the flags INT8, FP16
10.x     strongly typed where    the file's own types; for a float32 file      Q/DQ nodes; for a float32 file
         the file is FP16        as 8.x                                        as 8.x
11.x     always strongly typed   the file's own types, nothing else            Q/DQ nodes, nothing else
=======  ======================  ============================================  ==================================

:data:`USED` lists everything that this package touches of TensorRT and the versions that have it. Tests hold the list
against this package's source and against the real bindings of 8.5.2, 8.6.1, 10.0.1, 10.16.1 and 11.4.0.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Dict, List, Sequence, Tuple

from rtda_deploy.errors import ConfigError
from rtda_deploy.onnx_file import OnnxFacts

__all__ = ["PRECISIONS", "USED", "Dialect", "check_precision", "dialect_of", "keep_layers", "set_precision"]

PRECISIONS = ("fp32", "fp16", "int8")

ALL = "8.5 8.6 10 11"
# "Class.member" or a name of the module -> versions that have it; what not all have is asked for with hasattr.
USED: Dict[str, str] = {
    "Builder": ALL,
    "Builder.build_serialized_network": ALL,
    "Builder.create_builder_config": ALL,
    "Builder.create_network": ALL,
    "Builder.num_DLA_cores": ALL,
    "BuilderFlag.FP16": "8.5 8.6 10",
    "BuilderFlag.GPU_FALLBACK": ALL,
    "BuilderFlag.INT8": "8.5 8.6 10",
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": "8.5 8.6 10",
    "BuilderFlag.TF32": ALL,
    "DataType.FLOAT": ALL,
    "DataType.HALF": ALL,
    "DeviceType.DLA": ALL,
    "IBuilderConfig.DLA_core": ALL,
    "IBuilderConfig.builder_optimization_level": "8.6 10 11",
    "IBuilderConfig.can_run_on_DLA": ALL,
    "IBuilderConfig.clear_flag": ALL,
    "IBuilderConfig.create_timing_cache": ALL,
    "IBuilderConfig.default_device_type": ALL,
    "IBuilderConfig.get_timing_cache": ALL,
    "IBuilderConfig.progress_monitor": "10 11",
    "IBuilderConfig.set_flag": ALL,
    "IBuilderConfig.set_memory_pool_limit": ALL,
    "IBuilderConfig.set_preview_feature": ALL,
    "IBuilderConfig.set_tactic_sources": ALL,
    "IBuilderConfig.set_timing_cache": ALL,
    "IHostMemory.nbytes": ALL,
    "ILayer.get_output": ALL,
    "ILayer.name": ALL,
    "ILayer.num_outputs": ALL,
    "ILayer.precision": "8.5 8.6 10",
    "ILayer.set_output_type": "8.5 8.6 10",
    "ILayer.type": ALL,
    "INetworkDefinition.get_layer": ALL,
    "INetworkDefinition.num_layers": ALL,
    "IProgressMonitor": "10 11",
    "ITensor.dtype": ALL,
    "ITimingCache.serialize": ALL,
    "MemoryPoolType.WORKSPACE": ALL,
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "8.5 8.6 10",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "10 11",
    "OnnxParser": ALL,
    "OnnxParser.get_error": ALL,
    "OnnxParser.num_errors": ALL,
    "OnnxParser.parse_from_file": ALL,
    "ParserError.code": ALL,
    "ParserError.desc": ALL,
    "ParserError.node": ALL,
    "ParserError.node_name": "10 11",
    "ParserError.node_operator": "10 11",
    "PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": "8.5 8.6",
    "TacticSource": ALL,
    "TacticSource.CUBLAS": "8.5 8.6 10",
    "TacticSource.CUBLAS_LT": "8.5 8.6 10",
    "TacticSource.CUDNN": "8.5 8.6 10",
    "TacticSource.EDGE_MASK_CONVOLUTIONS": ALL,
    "TacticSource.JIT_CONVOLUTIONS": ALL,
}


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


def check_precision(dialect: Dialect, facts: OnnxFacts, precision: str, dla: bool, version: str) -> None:
    """Refuse a precision that this file cannot give on this TensorRT.

    Raises:
        ConfigError: With the command that makes the file that can.
    """
    name = facts.path.name
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}", hint=f"known: {', '.join(PRECISIONS)}")
    if precision == "int8" and not facts.quantized:
        raise ConfigError(
            f"{name} holds no QuantizeLinear nodes, so no INT8 engine can be built from it",
            why="INT8 scales are measured at export, on real frames, and travel in the file",
            hint="make <stem>.int8.onnx: rtda-deploy export ckpt.pth --to onnx --precision int8 --calibrate PATH",
        )
    if precision != "int8" and facts.quantized:
        raise ConfigError(
            f"{name} is quantised; an {precision} engine cannot be built from it",
            hint=f"--precision int8, or the file it was made from: {_stem(name)}.onnx",
        )
    if precision == "fp32" and facts.float16:
        raise ConfigError(
            f"{name} holds float16 weights; an fp32 engine cannot be built from it",
            hint=f"--precision fp16, or the file it was made from: {_stem(name)}.onnx",
        )
    if precision == "fp16" and not facts.float16 and not dialect.flags:
        raise ConfigError(
            f"{name} is float32, and TensorRT {version} computes in the types of the file: it has no FP16 switch",
            hint=f"make {_stem(name)}.fp16.onnx: rtda-deploy export ckpt.pth --to onnx --precision fp16",
        )
    if dla and precision != "fp16":
        raise ConfigError(
            f"a DLA does not take {precision} networks" + (" with Q/DQ nodes" if precision == "int8" else ""),
            hint="--precision fp16, or leave --dla out",
        )


def set_precision(trt: Any, dialect: Dialect, config: Any, facts: OnnxFacts, precision: str) -> None:
    """Set the builder's precision flags.

    FP32 means FP32: without this, an Ampere or later GPU would multiply in TF32, with 10 bits of mantissa.
    """
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    elif not dialect.strongly_typed(facts):
        config.set_flag(trt.BuilderFlag.FP16)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)


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


def _stem(name: str) -> str:
    parts: List[str] = name.split(".")[:-1]
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] in PRECISIONS else parts)
