"""TensorRT without TensorRT: a stand-in module for each generation of its builder, and ONNX files written by hand.

A stand-in has only attributes that the real module of its generation has (``test_tensorrt_api`` compares them with the
real bindings) and refuses any other, as the real objects do. It runs on Python 3.8 with numpy alone.
"""

from __future__ import annotations

import enum
import json
import sys
import types
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from export.tensorrt_names import USED

from rtda_deploy.engine_file import read_sidecar
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_deploy.spec import ModelSpec
from rtda_export.tensorrt import library

VERSIONS = {"8.5": "8.5.2.2", "8.6": "8.6.1", "10": "10.16.1.11", "11": "11.4.0.106"}
NO_DRIVER = "pybind11::init(): factory function returned nullptr"

# Enums whose numbers become bits. TensorRT 11 counts anew, because the members before these are gone.
_NUMBERED = {
    "TacticSource": ["CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"],
    "NetworkDefinitionCreationFlag": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
}
_ENUMS = (
    "BuilderFlag",
    "DataType",
    "DeviceType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "PreviewFeature",
    "TacticSource",
)
_LAYER_TYPES = {"Conv": "CONVOLUTION", "Relu": "ACTIVATION", "Resize": "RESIZE", "Shape": "SHAPE"}
_INTEGERS = {"Shape", "ArgMax"}  # operators whose result is no floating-point number


class World:
    """What a stand-in was told, and how it shall behave.

    Attributes:
        network_flags: Given to each ``create_network``.
        configs: Every builder config, in order.
        networks: Every network, in order.
        builds: Finished calls of ``build_serialized_network``.
        engine: What a build gives; None: it fails.
        says: What TensorRT writes to its logger when a build fails, or the driver is missing.
        driver: Whether ``Builder`` finds a GPU.
        errors: Complaints of the parser, ``(index of the node, text)``.
        during: Called in the middle of a build, with its config.
        steps: Steps that a build reports to its progress monitor.
        dla_cores: Of the GPU.
        off_dla: Operators that the DLA does not take.
        tactics: Whether ``set_tactic_sources`` accepts.
    """

    def __init__(self) -> None:
        self.network_flags: List[int] = []
        self.configs: List[Any] = []
        self.networks: List[Any] = []
        self.builds = 0
        self.engine: Optional[bytes] = b"an engine"
        self.says = ""
        self.driver = True
        self.errors: List[Tuple[int, str]] = []
        self.during: Callable[[Any], None] = lambda config: None
        self.steps = 4
        self.dla_cores = 0
        self.off_dla = {"Resize"}
        self.tactics = True

    @property
    def config(self) -> Any:
        """The only config there was."""
        (config,) = self.configs
        return config

    def flags(self) -> List[str]:
        """Names of the flags set in the only config, sorted."""
        return sorted(flag.name for flag in self.config._flags)

    def cleared(self) -> List[str]:
        """Names of the flags cleared in the only config."""
        return sorted(flag.name for flag in self.config._cleared)

    def tactic_sources(self) -> Optional[int]:
        """The bits of the only config; None: left alone."""
        bits: Optional[int] = self.config._sources
        return bits

    def previews(self) -> List[bool]:
        """What was said of preview features in the only config."""
        return list(self.config._preview.values())

    def memory_limits(self) -> List[int]:
        """Of the only config, bytes."""
        return list(self.config._limits.values())

    def bound(self) -> Dict[str, Tuple[str, List[str]]]:
        """Precision of the layers that have one of their own in the first network, and that of their outputs."""
        return {
            layer.name: (layer.precision.name, [kind.name for kind in layer._output_types.values()])
            for layer in self.networks[0]._layers
            if layer.precision
        }

    def caches(self, build: int) -> List[bytes]:
        """Contents of the timing caches that a build was given."""
        attached: List[bytes] = self.configs[build]._attached
        return attached


class EngineThatAnswers:
    """What opening an engine of the stand-ins gives: it answers as an ``.onnx`` does, or with the classes exchanged."""

    def __init__(self, engine: Path, source: Union[str, Path], *, wrong: bool = False) -> None:
        from rtda_runtime import open_engine

        self._onnx_engine, self._wrong = open_engine(source, "cpu"), wrong
        self.spec, self.input_buffer = read_sidecar(engine).spec, self._onnx_engine.input_buffer
        self.close = self._onnx_engine.close

    def infer(self) -> Any:
        answer = self._onnx_engine.infer()
        return answer[::-1].copy() if self._wrong else answer


class _Enum(enum.Enum):
    """As pybind11 makes them: ``int()`` gives the number, ``str()`` the qualified name."""

    def __int__(self) -> int:
        return int(self.value)


def has(name: str, generation: str) -> bool:
    """Whether the table says that this generation has it."""
    return generation in USED[name].split()


def standin(generation: str) -> Tuple[Any, World]:
    """A module ``tensorrt`` of ``generation`` (8.5, 8.6, 10 or 11), and what to ask and tell it."""
    world = World()
    trt = types.ModuleType("tensorrt")
    trt.__version__ = VERSIONS[generation]
    for kind in _ENUMS:
        setattr(trt, kind, _enum(kind, generation))
    classes = [_logger(), _config(trt, world, generation), _builder(trt, world), _parser(trt, world, generation)]
    classes += [_Network, _layer(trt, generation), _Tensor, _error(generation), _TimingCache, _HostMemory]
    if generation in ("10", "11"):
        classes.append(_monitor())
    for made in classes:
        setattr(trt, made.__name__, made)
    return trt, world


def install(
    generation: str,
    setitem: Callable[[Any, str, Any], None] = lambda where, name, value: where.__setitem__(name, value),
    setattr_: Callable[[Any, str, Any], None] = setattr,
    *,
    gpu: str = "Xavier",
    compute_capability: Tuple[int, int] = (7, 2),
) -> World:
    """Make ``import tensorrt`` give a stand-in and the driver name a GPU; with pytest's monkeypatch, or for good."""
    trt, world = standin(generation)
    setitem(sys.modules, "tensorrt", trt)
    device = types.SimpleNamespace(device_name=gpu, compute_capability=compute_capability, close=lambda: None)
    setattr_(library, "open_cuda", lambda: device)
    return world


def _enum(kind: str, generation: str) -> Any:
    table = [name.partition(".")[2] for name in USED if name.startswith(f"{kind}.") and has(name, generation)]
    names = [name for name in _NUMBERED.get(kind, table) if name in table]
    return _Enum(kind, {name: place for place, name in enumerate(names)})


def _logger() -> Any:
    class ILogger:
        Severity = _Enum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})
        INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING

        def log(self, severity: Any, msg: str) -> None:
            raise NotImplementedError

    return ILogger


def _monitor() -> Any:
    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    return IProgressMonitor


class _TimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content


_TimingCache.__name__ = "ITimingCache"


class _HostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


_HostMemory.__name__ = "IHostMemory"


class _Tensor:
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype


_Tensor.__name__ = "ITensor"


class _Network:
    def __init__(self) -> None:
        self._layers: List[Any] = []

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


_Network.__name__ = "INetworkDefinition"


def _layer(trt: Any, generation: str) -> Any:
    class ILayer:
        def __init__(self, name: str, operator: str) -> None:
            self.name = name
            self.type = f"LayerType.{_LAYER_TYPES.get(operator, operator.upper())}"
            self._operator = operator
            self._output_types: Dict[int, Any] = {}

        @property
        def num_outputs(self) -> int:
            return 1

        def get_output(self, index: int) -> Any:
            return trt.ITensor("INT32" if self._operator in _INTEGERS else trt.DataType.FLOAT)

        if has("ILayer.precision", generation):
            precision: Any = None

            def set_output_type(self, index: int, dtype: Any) -> None:
                self._output_types[index] = dtype

    return _closed(ILayer)


def _error(generation: str) -> Any:
    class ParserError:
        def __init__(self, index: int, text: str, name: str, operator: str) -> None:
            self._facts = index, text, name, operator

        def code(self) -> Any:
            return "ErrorCode.UNSUPPORTED_NODE"

        def desc(self) -> str:
            return self._facts[1]

        def node(self) -> int:
            return self._facts[0]

        if has("ParserError.node_name", generation):

            def node_name(self) -> str:
                return self._facts[2]

            def node_operator(self) -> str:
                return self._facts[3]

    return ParserError


def _parser(trt: Any, world: World, generation: str) -> Any:
    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            assert isinstance(logger, trt.ILogger)
            self._network = network
            self._errors: List[Any] = []

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> Any:
            return self._errors[index]

        def parse_from_file(self, model: str) -> bool:
            facts = read_onnx_facts(model)
            names = zip(facts.nodes, facts.node_names)
            self._network._layers = [
                trt.ILayer(node.name or f"node_of_{node.output}", node.operator) for node, _ in names
            ]
            for index, text in world.errors:
                self._errors.append(trt.ParserError(index, text, facts.node_names[index], facts.nodes[index].operator))
            return not world.errors

    return OnnxParser


def _config(trt: Any, world: World, generation: str) -> Any:
    class IBuilderConfig:
        def __init__(self) -> None:
            self._flags: set = set()
            self._cleared: set = set()
            self._limits: Dict[Any, int] = {}
            self._preview: Dict[Any, bool] = {}
            self._sources: Optional[int] = None
            self._cache: Any = None
            self._attached: List[bytes] = []
            self.default_device_type: Any = None
            self.DLA_core = -1

        def set_flag(self, flag: Any) -> None:
            assert isinstance(flag, trt.BuilderFlag)
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self._cleared.add(flag)

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            self._limits[pool] = pool_size

        def set_tactic_sources(self, tactic_sources: int) -> bool:
            self._sources = int(tactic_sources)
            return world.tactics

        def set_preview_feature(self, feature: Any, enable: bool) -> None:
            self._preview[feature] = enable

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            return trt.ITimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            if cache._content.startswith(b"of another GPU"):
                return False
            self._attached.append(cache._content)
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

        def can_run_on_DLA(self, layer: Any) -> bool:
            return layer._operator not in world.off_dla

        if has("IBuilderConfig.builder_optimization_level", generation):
            builder_optimization_level = 3
        if has("IBuilderConfig.progress_monitor", generation):
            progress_monitor: Any = None

    return _closed(IBuilderConfig)


def _builder(trt: Any, world: World) -> Any:
    class Builder:
        def __init__(self, logger: Any) -> None:
            self._log = logger
            if not world.driver:
                logger.log(trt.ILogger.WARNING, world.says)  # as the real 8.5.2 does
                raise TypeError(NO_DRIVER)

        @property
        def num_DLA_cores(self) -> int:
            return world.dla_cores

        def create_network(self, flags: int = 0) -> Any:
            world.network_flags.append(flags)
            world.networks.append(trt.INetworkDefinition())
            return world.networks[-1]

        def create_builder_config(self) -> Any:
            world.configs.append(trt.IBuilderConfig())
            return world.configs[-1]

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Building", None, world.steps)
            for step in range(world.steps):
                world.during(config)
                if monitor is not None and not monitor.step_complete("Building", step):
                    monitor.phase_finish("Building")
                    return None
            if monitor is not None:
                monitor.phase_finish("Building")
            if world.says:
                self._log.log(trt.ILogger.ERROR, world.says)
            if config._cache is not None:
                config._cache._content += b"measured"
            world.builds += 1
            return None if world.engine is None else trt.IHostMemory(world.engine)

    return Builder


def _closed(made: Any) -> Any:
    """Refuse attributes that the class does not name, as the objects of pybind11 do."""
    known = set(dir(made))

    def refuse(self: Any, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in known and name not in _INSTANCE:
            raise AttributeError(f"{made.__name__} has no attribute {name}")
        object.__setattr__(self, name, value)

    made.__setattr__ = refuse
    return made


_INSTANCE = {"name", "type", "default_device_type", "DLA_core"}  # that __init__ gives


# ---- ONNX files without the onnx package ----

FLOAT, FLOAT16 = 1, 10
Node = Tuple[str, str]  # name and operator

NETWORK: Tuple[Node, ...] = (
    ("/context/Conv", "Conv"),
    ("/context/Relu", "Relu"),
    ("/head/Conv", "Conv"),
    ("/head/Resize", "Resize"),
)
QUANTIZED: Tuple[Node, ...] = (("q", "QuantizeLinear"), ("dq", "DequantizeLinear"), *NETWORK)


def field(number: int, value: Union[int, bytes, str]) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def onnx_bytes(
    nodes: Sequence[Node] = NETWORK,
    *,
    shape: Sequence[Union[int, str]] = (1, 3, 64, 128),
    weight_type: int = FLOAT,
    metadata: Optional[Mapping[str, str]] = None,
    opset: int = 17,
) -> bytes:
    """A chain of nodes behind one input; structure only, not a network that runs."""
    graph = b"".join(
        field(1, field(1, f"t{place}") + field(2, f"t{place + 1}") + field(3, name) + field(4, operator))
        for place, (name, operator) in enumerate(nodes)
    )
    graph += field(2, "g") + field(
        5, field(1, 2) + field(2, weight_type) + field(8, "w") + field(9, b"\1\2\3\4\5\6\7\x08")
    )
    graph += field(11, _value("image", shape)) + field(11, _value("w", (2,)))
    graph += field(12, _value("logits", (1, 2, 8, 16)))
    model = field(1, 8) + field(2, "by hand") + field(7, graph) + field(8, field(2, opset))
    pairs = {"rtda.spec": spec().to_json()} if metadata is None else metadata
    return model + b"".join(field(14, field(1, key) + field(2, text)) for key, text in pairs.items())


def spec(size_hw: Tuple[int, int] = (64, 128)) -> ModelSpec:
    """Two classes."""
    return ModelSpec(size_hw=size_hw, class_names=("road", "sky"), palette=((128, 64, 128), (70, 130, 180)))


def kept(names: Iterable[str], precision: str = "fp32") -> Dict[str, str]:
    """Metadata that keeps nodes in FP32."""
    facts = {"precision": precision, "keep_fp32": list(names)}
    return {"rtda.spec": spec().to_json(), "rtda.precision": json.dumps(facts)}


def write_onnx(folder: Path, name: str = "best.onnx", **options: Any) -> Path:
    """A file of :func:`onnx_bytes`."""
    path = folder / name
    path.write_bytes(onnx_bytes(**options))
    return path


def _value(name: str, shape: Sequence[Union[int, str]]) -> bytes:
    sides = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, sides)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
