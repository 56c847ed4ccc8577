"""A GPU and a TensorRT made of NumPy: what is given to a stream happens when somebody waits for it, and not before."""

from __future__ import annotations

import collections
import ctypes
import json
import threading
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Optional, Set, Tuple

import numpy as np
from runtime.kernels_on_host import is_host_image, start_on_host
from runtime.models import tiny_logits, tiny_spec

from rtda_deploy.engine_file import EngineBuild, EngineSidecar, write_sidecar
from rtda_deploy.files import sha256_file
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.cuda.driver import Arguments, Device, Driver, cuda_error

STREAM = 4711
_FENCE = 256  # bytes behind each memory that nobody may write
Work = Callable[[], None]


class FakeGpu(Driver):
    """A driver that keeps a diary, checks that a context is pushed for every call, and poisons what is freed.

    Attributes:
        diary: Names of the calls, in their order; pushes and pops too.
        refuse: Name of a call to fail, such as ``begin_capture``, with the code to fail with.
        bytes_in: Copied to the GPU so far.
        bytes_out: Copied to the host so far.
    """

    name = "fake 1.0"

    def __init__(self, *, integrated: bool = False, gpu: str = "Fake GPU", count: int = 1) -> None:
        self.integrated, self.gpu, self.count = integrated, gpu, count
        self.capability = (9, 0)
        self.diary: List[str] = []
        self.refuse: Dict[str, str] = {}
        self.retained = 0
        self.bytes_in = self.bytes_out = 0
        self.live: Set[int] = set()  # addresses of device and pinned memory
        self._memory: Dict[int, np.ndarray] = {}  # freed memory is kept, poisoned, so that a wild read is seen
        self._fences: Dict[int, np.ndarray] = {}  # what follows each
        self._modules: Dict[int, bytes] = {}
        self._stacks: Dict[int, List[str]] = collections.defaultdict(list)
        self._queue: Deque[Work] = collections.deque()
        self._recording: Optional[List[Work]] = None
        self._clock_ms = 0.0

    def devices(self) -> int:
        return self.count

    def properties(self, index: int) -> Device:
        return Device(self.gpu, self.capability, self.integrated, 1 << 30)

    def retain(self, index: int) -> Any:
        self.diary.append("retain")
        self.retained += 1
        return "primary"

    def release(self, index: int, context: Any) -> None:
        self.diary.append("release")
        self.retained -= 1

    def push(self, context: Any) -> None:
        assert context == "primary" and self.retained > 0
        self._stacks[threading.get_ident()].append(context)

    def pop(self) -> None:
        self._stacks[threading.get_ident()].pop()

    @property
    def pushed(self) -> int:
        """Contexts that were pushed and not popped, on all threads."""
        return sum(len(stack) for stack in self._stacks.values())

    def memory(self) -> Tuple[int, int]:
        self._enter("memory")
        used = sum(self._memory[address].nbytes for address in self.live)
        return (1 << 30) - used, 1 << 30

    def allocate(self, nbytes: int) -> Any:
        self._enter("allocate")
        return self._new(nbytes)

    def free(self, memory: Any) -> None:
        self._enter("free")
        self._poison(memory)

    def allocate_pinned(self, nbytes: int, mapped: bool) -> Tuple[Any, int, int]:
        self._enter("allocate_pinned")
        address = self._new(nbytes)
        return address, address, address if mapped else 0

    def free_pinned(self, memory: Any) -> None:
        self._enter("free_pinned")
        self._poison(memory)

    def stream(self) -> Any:
        self._enter("stream")
        return STREAM

    def stream_address(self, stream: Any) -> int:
        return STREAM

    def synchronize(self, stream: Any) -> None:
        self._enter("synchronize")
        assert self._recording is None, "waiting voids a capture"
        while self._queue:
            self._queue.popleft()()
        for address in self.live:
            assert (self._fences[address] == 0xFF).all(), "a kernel or a copy wrote beyond the end of its memory"

    def destroy_stream(self, stream: Any) -> None:
        self._enter("destroy_stream")

    def to_device(self, memory: Any, array: np.ndarray, stream: Any) -> None:
        self._enter("to_device")
        assert array.ctypes.data in self.live, "the source of an asynchronous copy is not pinned"

        def copy() -> None:
            assert {memory, array.ctypes.data} <= self.live, "a copy from or to memory that was freed"
            self.bytes_in += array.nbytes
            ctypes.memmove(memory, array.ctypes.data, array.nbytes)

        self.enqueue(copy)

    def to_host(self, array: np.ndarray, memory: Any, stream: Any) -> None:
        self._enter("to_host")

        def copy() -> None:
            assert {memory, array.ctypes.data} <= self.live, "a copy from or to memory that was freed"
            self.bytes_out += array.nbytes
            ctypes.memmove(array.ctypes.data, memory, array.nbytes)

        self.enqueue(copy)

    def load_module(self, image: bytes) -> Any:
        self._enter("load_module")
        if not is_host_image(image):
            raise cuda_error("load_module", "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available")
        handle = len(self.diary)
        self._modules[handle] = image
        return handle

    def unload_module(self, module: Any) -> None:
        self._enter("unload_module")
        del self._modules[module]

    def function(self, module: Any, name: str) -> Any:
        self._enter("function")
        return module, name

    def start(
        self, function: Any, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments, stream: Any
    ) -> None:
        self._enter("start")
        module, name = function
        image = self._modules[module]
        copied = [type(argument).from_buffer_copy(argument) for argument in arguments]  # as the driver does

        def work() -> None:
            assert module in self._modules, "a kernel of a module that was unloaded"
            start_on_host(image, name, grid, block, copied)

        self.enqueue(work)

    def event(self) -> Any:
        self._enter("event")
        return {}

    def record(self, event: Any, stream: Any) -> None:
        self._enter("record")

        def stamp() -> None:
            event["ms"] = self._clock_ms
            self._clock_ms += 1.0

        self.enqueue(stamp)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        self._enter("elapsed_ms")
        return float(end["ms"] - start["ms"])

    def destroy_event(self, event: Any) -> None:
        self._enter("destroy_event")

    def begin_capture(self, stream: Any) -> None:
        self._enter("begin_capture")
        self._recording = []

    def end_capture(self, stream: Any) -> Any:
        recorded, self._recording = self._recording, None
        self._enter("end_capture")
        return recorded

    def launch(self, graph: Any, stream: Any) -> None:
        self._enter("launch")
        self._queue.extend(graph)

    def destroy_graph(self, graph: Any) -> None:
        self._enter("destroy_graph")

    def enqueue(self, work: Work) -> None:
        """What a library does that was given the stream."""
        (self._queue if self._recording is None else self._recording).append(work)

    @property
    def modules(self) -> int:
        """Modules that are loaded."""
        return len(self._modules)

    def at(self, address: int, shape: Tuple[int, ...], dtype: Any) -> np.ndarray:
        """The array at an address."""
        assert address in self.live, f"no memory at {address}"
        return self._memory[address].view(dtype).reshape(shape)

    def check_current(self) -> None:
        if not self._stacks[threading.get_ident()]:
            raise cuda_error("a call", "CUDA_ERROR_INVALID_CONTEXT", "no context is current on this thread")

    def _enter(self, name: str) -> None:
        self.diary.append(name)
        self.check_current()
        if name in self.refuse:
            self._queue.clear()  # after a fault nothing more runs
            raise cuda_error(name, self.refuse[name], "as the test asked for")

    def _new(self, nbytes: int) -> int:
        memory = np.full(nbytes + _FENCE, 0xFF, np.uint8)  # not zeroed, as real memory is not
        address = int(memory.ctypes.data)
        self._memory[address], self._fences[address] = memory[:nbytes], memory[nbytes:]
        self.live.add(address)
        return address

    def _poison(self, address: int) -> None:
        assert address in self.live, "freed twice, or never allocated"
        self.live.remove(address)
        self._memory[address][:] = 0xFF  # NaN as float32


class _Names:
    """An enumeration of TensorRT: attributes whose values know their name."""

    def __init__(self, *names: str) -> None:
        for name in names:
            setattr(self, name, _Name(name))


class _Name:
    def __init__(self, name: str) -> None:
        self.name = name


class FakeTensorrt:
    """What the runtime uses of the module ``tensorrt``; engines are the JSON of :func:`plan`."""

    def __init__(self, gpu: FakeGpu, version: str = "8.5.2.2") -> None:
        self.__version__ = version
        self.gpu = gpu
        self.alive: List[str] = []  # TensorRT's objects, in the order of their making
        self.dead: List[str] = []
        self.DataType = _Names("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8")  # as of 8.5: no INT64
        self.TensorIOMode = _Names("INPUT", "OUTPUT")
        self.TensorFormat = _Names("LINEAR", "CHW32")
        self.loads = True
        self.spoilt = False  # logits are NaN
        trt = self

        class ILogger:
            Severity = _Names("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")

        class Runtime(_Object):
            def __init__(self, logger: Any) -> None:
                if not trt.loads:
                    logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
                    raise TypeError("pybind11::init(): factory function returned nullptr")
                super().__init__(trt, "runtime")
                self.logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> Any:
                trt.gpu.check_current()
                try:
                    return _Engine(trt, json.loads(content), self.logger)
                except ValueError:
                    self.logger.log(ILogger.Severity.WARNING, "a warning is no reason")
                    self.logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTagRead failed")
                    self.logger.log(ILogger.Severity.ERROR, "deserializeCudaEngine: Error Code 4")
                    return None

        self.ILogger, self.Runtime = ILogger, Runtime


class _Object:
    """A thing of TensorRT's whose end is written down, and which must not outlive the context it was made in."""

    def __init__(self, trt: FakeTensorrt, name: str) -> None:
        self._trt, self._name = trt, name
        trt.alive.append(name)

    def __del__(self) -> None:
        if hasattr(self, "_name"):
            self._trt.alive.remove(self._name)
            current = bool(self._trt.gpu._stacks[threading.get_ident()])
            self._trt.dead.append(self._name if current else f"{self._name} without a context")


class _Engine(_Object):
    def __init__(self, trt: FakeTensorrt, tensors: Dict[str, Any], logger: Any) -> None:
        super().__init__(trt, "engine")
        self.seed = tensors.pop("seed", 0)
        self.fails = tensors.pop("fails", "")
        self.tensors: List[Dict[str, Any]] = tensors["tensors"]
        self.logger = logger

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self.tensors[index]["name"])

    def get_tensor_shape(self, name: str) -> Tuple[int, ...]:
        return tuple(self._of(name)["shape"])

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(self._trt.TensorIOMode, self._of(name)["mode"])

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt.DataType, self._of(name)["dtype"])

    def get_tensor_format(self, name: str) -> Any:
        return getattr(self._trt.TensorFormat, self._of(name).get("format", "LINEAR"))

    def create_execution_context(self) -> Any:
        if self.fails == "context":
            self.logger.log(self.logger.Severity.ERROR, "Cuda Runtime (out of memory)")
            return None
        return _Context(self)

    def _of(self, name: str) -> Dict[str, Any]:
        return next(tensor for tensor in self.tensors if tensor["name"] == name)


class _Context(_Object):
    def __init__(self, engine: _Engine) -> None:
        super().__init__(engine._trt, "context")
        self.engine_seed, self.fails, self.logger = engine.seed, engine.fails, engine.logger
        self.tensors = engine.tensors
        self.addresses: Dict[str, int] = {}
        self.runs = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self._trt.gpu.live

    def execute_async_v3(self, stream: int) -> bool:
        self._trt.gpu.check_current()
        assert stream == STREAM
        self.runs += 1
        self._trt.gpu.diary.append("execute")
        if self.fails == "execute" or (self.fails == "capture" and self.runs == 2):
            self.logger.log(self.logger.Severity.ERROR, "Cask (a kernel could not be launched)")
            return False
        self._trt.gpu.enqueue(self._compute)
        return True

    def _compute(self) -> None:
        arrays = {
            tensor["name"]: self._trt.gpu.at(
                self.addresses[tensor["name"]],
                tuple(tensor["shape"]),
                {"FLOAT": np.float32, "UINT8": np.uint8}[tensor["dtype"]],
            )
            for tensor in self.tensors
        }
        image = arrays.pop("image")
        logits = tiny_logits(image.transpose(0, 3, 1, 2) if image.shape[3] == 3 else image, self.engine_seed)
        if self._trt.spoilt:
            logits[...] = np.nan
        for name, array in arrays.items():
            if name == "logits":
                array[0] = logits
            elif name == "mask":
                array[0] = logits.argmax(axis=0).repeat(8, axis=0).repeat(8, axis=1)
            else:
                sure = logits.max(axis=0).repeat(8, axis=0).repeat(8, axis=1)
                array[0] = sure if array.dtype == np.float32 else sure.clip(0, 255)


def plan(seed: int = 0, *, output: str = "logits", confidence: str = "", **changes: Any) -> bytes:
    """An engine of the tiny network; ``image_``/``answer_`` before a key changes that tensor, others the engine."""
    image = {"name": "image", "mode": "INPUT", "dtype": "FLOAT", "shape": [1, 3, 64, 96]}
    answer = {"name": output, "mode": "OUTPUT", "dtype": "FLOAT", "shape": [1, 5, 8, 12]}
    if output == "mask":
        answer.update(dtype="UINT8", shape=[1, 64, 96])
    tensors = [image, answer]
    if confidence:
        kind = {"float32": "FLOAT", "uint8": "UINT8"}[confidence]
        tensors.insert(0, {"name": "confidence", "mode": "OUTPUT", "dtype": kind, "shape": [1, 64, 96]})
    engine: Dict[str, Any] = {"seed": seed, "tensors": tensors}
    for key, value in changes.items():
        place, _, field = key.partition("_")
        if place in ("image", "answer"):
            (image if place == "image" else answer)[field] = value
        else:
            engine[key] = value
    return json.dumps(engine).encode()


def write_engine(path: Path, content: bytes, spec: Optional[ModelSpec] = None, **built: Any) -> Path:
    """An engine with its sidecar; ``built`` changes what the sidecar says."""
    path.write_bytes(content)
    facts = {
        "onnx": "tiny.onnx",
        "onnx_sha256": "0" * 64,
        "precision": "fp16",
        "tensorrt": "8.5.2.2",
        "gpu": "Fake GPU",
        "compute_capability": (9, 0),
        "size_hw": (64, 96),
    }
    build = EngineBuild(**{**facts, **built})  # type: ignore[arg-type]
    write_sidecar(path, EngineSidecar(spec or tiny_spec(), build, sha256_file(path), len(content)))
    return path
