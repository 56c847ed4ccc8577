"""TensorRT's objects of one engine and the GPU's memory for it; knows nothing of specs."""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import weakref
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import EngineError, RtdaError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import GraphTensor
from rtda_runtime.engines.cuda.compilers import FindCompiler
from rtda_runtime.engines.cuda.context import Cuda
from rtda_runtime.engines.cuda.driver import no_driver
from rtda_runtime.engines.cuda.frames import CudaFramePath, Network
from rtda_runtime.engines.cuda.kernels import Kernels, load_kernels

__all__ = ["Session", "Tensor", "tensorrt_logger"]

_KEPT = 20  # messages; one fault gives two or three, its cause first
_LONGEST = 300  # characters of a reason

_loggers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def tensorrt_logger(trt: Any) -> Any:
    """The process's one ``ILogger``: TensorRT keeps the first it is given for everything, so all must share it.

    Its ``clear()`` forgets what was said, its ``reason()`` is the first error since, or an empty text.
    """
    if trt not in _loggers:
        _loggers[trt] = _logger_class(trt)()
    return _loggers[trt]


def _logger_class(trt: Any) -> Any:
    severity = trt.ILogger.Severity
    levels = {severity.INTERNAL_ERROR: logging.ERROR, severity.ERROR: logging.ERROR, severity.WARNING: logging.INFO}

    class Logger(trt.ILogger):
        """Errors are kept, warnings go to Python's log as information, the rest is dropped."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: Deque[str] = collections.deque(maxlen=_KEPT)

        def log(self, kind: Any, text: str) -> None:
            level = levels.get(kind)
            if level == logging.ERROR:
                self._errors.append(text)
                level = logging.DEBUG  # whoever asked raises it
            if level is not None:
                _log.log(level, "TensorRT: %s", text)

        def clear(self) -> None:
            self._errors.clear()

        def reason(self) -> str:
            first = next(iter(self._errors), "").strip()
            return first if len(first) <= _LONGEST else first[: _LONGEST - 3] + "..."

    return Logger


_log = logging.getLogger(__name__)

# Ours, by name: trt.nptype uses np.bool, which numpy 1.24 removed and TensorRT 8.5 still asks for. UINT8 is of 8.5,
# INT64 of 10.0.
_NUMPY_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT64": np.int64,
}


class Tensor(NamedTuple):
    """An input or output of an engine; ``dtype`` is None where NumPy has none."""

    described: GraphTensor
    is_input: bool
    dtype: Optional[np.dtype]


class Session:
    """TensorRT's objects and the GPU's memory, given back in the order that TensorRT survives.

    Attributes:
        cuda: Closed with the session.
        graph: The network as a CUDA graph, once :meth:`warm_up` recorded it; else None.
    """

    def __init__(self, trt: Any, cuda: Cuda, path: Path, *, rebuild: str) -> None:
        self.cuda = cuda
        self.graph: Any = None
        self._trt = trt
        self._name = path.name
        self._logger = tensorrt_logger(trt)
        self._logger.clear()
        self._copies_in: List[Callable[[], None]] = []
        self._copies_out: List[Callable[[], None]] = []
        self._copies_beside: List[Callable[[], None]] = []  # of outputs other than the first
        self._addresses: Dict[bool, int] = {}  # of the input, and of the first output
        self._record = False
        self._compiled: Optional[Tuple[Optional[Kernels]]] = None  # what came of it, once it was tried
        self._paths: List[CudaFramePath] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        try:
            with cuda.current():
                self._load(path, rebuild)
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, rebuild: str) -> None:
        try:
            self._runtime = self._trt.Runtime(self._logger)
        except TypeError as err:  # pybind11's way of saying that TensorRT gave no object
            raise no_driver(self._logger.reason() or str(err)) from err
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineError(
                f"TensorRT {self._trt.__version__} cannot load {path.name}",
                why=self._logger.reason() or "it gave no reason; the file may be cut off or not an engine",
                hint=f"engines are not portable; build it here: {rebuild}",
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"TensorRT cannot prepare {path.name} to run",
                why=self._logger.reason() or "it gave no reason",
                hint="the GPU's memory may be full: nvidia-smi shows who holds it   (on a Jetson: tegrastats)",
            )

    def tensors(self, *, inputs: bool) -> List[Tensor]:
        """Inputs, or outputs, in the engine's order."""
        engine, trt = self._engine, self._trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        role = trt.TensorIOMode.INPUT if inputs else trt.TensorIOMode.OUTPUT
        return [self._tensor(name, inputs) for name in names if engine.get_tensor_mode(name) == role]

    def _tensor(self, name: str, is_input: bool) -> Tensor:
        kind = self._engine.get_tensor_dtype(name)
        dtype = _numpy_type(self._trt, kind)
        said = getattr(kind, "name", "unknown").lower() if dtype is None else dtype.name
        if self._engine.get_tensor_format(name) != self._trt.TensorFormat.LINEAR:
            said += ", in a layout of its own"
        shape = tuple(int(side) for side in self._engine.get_tensor_shape(name))
        return Tensor(GraphTensor(name, shape, said), is_input, dtype)

    def bind(self, tensor: Tensor) -> np.ndarray:
        """Give a tensor its memory; the host's array of it."""
        cuda = self.cuda
        host, address = cuda.pinned(tensor.described.shape, tensor.dtype, mapped=cuda.integrated)
        with cuda.current():
            if not cuda.integrated:
                address = cuda.allocate(host.nbytes)
                beside = not tensor.is_input and False in self._addresses
                if beside:
                    self._copies_beside.append(functools.partial(cuda.to_host, host, address))
                if tensor.is_input:
                    self._copies_in.append(functools.partial(cuda.to_device, address, host))
                else:
                    self._copies_out.append(functools.partial(cuda.to_host, host, address))
            self._addresses.setdefault(tensor.is_input, address)
            if not self._context.set_tensor_address(tensor.described.name, address):
                raise EngineError(
                    f"{self._name}: TensorRT takes no memory for {tensor.described.name}",
                    why=self._reason(),
                    hint="build the engine again here: rtda-deploy export model.onnx --to engine",
                )
        return host

    def warm_up(self, graph: bool) -> None:
        """Run once, because the first run allocates and cannot be recorded; then record the network if asked to."""
        self.run()
        self._record = graph
        if not graph:
            return
        try:
            with self.cuda.current():
                self.graph = self.cuda.capture(self._enqueue)
            self.run()
        except RtdaError as err:
            self.graph = None
            _log.warning("%s runs without a CUDA graph: %s (%s)", self._name, err.message, err.why)
            self.run()

    def run(self) -> None:
        """From the input's array to the output's."""
        with self.cuda.current():
            self._copy_in()
            self._compute()
            self._copy_out()
            self.cuda.synchronize()

    def kernels(self, compilers: Optional[Sequence[FindCompiler]]) -> Optional[Kernels]:
        """The project's own kernels, compiled at the first call; None where they cannot be, which is said once."""
        if self._compiled is None:
            try:
                self._compiled = (load_kernels(self.cuda, compilers=compilers),)
            except RtdaError as err:
                self._compiled = (None,)
                words = "frames are prepared and masks made on the CPU: %s (%s). Fix: %s"
                _log.warning(words, err.message, err.why, err.hint)
        return self._compiled[0]

    def frame_path(self, kernels: Kernels, spec: ModelSpec, **options: Any) -> CudaFramePath:
        """A way from frames to masks around this network; it ends with this session."""
        network = Network(
            self._name, spec, self._addresses[True], self._addresses[False], self._enqueue, self._copy_beside
        )
        path = CudaFramePath(self.cuda, kernels, network, graph=self._record, **options)
        self._paths.append(path)
        return path

    def times_ms(self) -> Dict[str, float]:
        """One run by parts, ms."""
        with self.cuda.current():
            times = self.cuda.times_ms(self._copy_in, self._compute, self._copy_out)
        if self.cuda.integrated:  # what stands between two events is not a copy
            times[0] = times[2] = 0.0
        return dict(zip(("h2d", "compute", "d2h"), times))

    def close(self) -> None:
        """Free everything, users before what they use: graph, context, engine, runtime, then the GPU's memory."""
        if self._runtime is not None:
            with contextlib.suppress(RtdaError), self.cuda.current():
                self._take_apart()
            self._take_apart()  # where the context can no longer be made current: drop the references all the same
        self._copies_in, self._copies_out, self._copies_beside, self._paths = [], [], [], []
        self._compiled = None
        self.cuda.close()

    def _take_apart(self) -> None:
        if self._runtime is None:
            return
        try:
            self.cuda.synchronize()
        except RtdaError as err:
            _log.warning("closing %s: %s (%s)", self._name, err.message, err.why)
        self.graph = None
        for path in self._paths:
            path.close()
        self.cuda.destroy_graphs()
        self._context = None
        self._engine = None
        self._runtime = None

    def _copy_in(self) -> None:
        for copy in self._copies_in:
            copy()

    def _compute(self) -> None:
        if self.graph is None:
            self._enqueue()
        else:
            self.cuda.launch(self.graph)

    def _copy_out(self) -> None:
        for copy in self._copies_out:
            copy()

    def _copy_beside(self) -> None:
        for copy in self._copies_beside:
            copy()

    def _enqueue(self) -> None:
        self._logger.clear()
        if not self._context.execute_async_v3(self.cuda.stream):
            raise EngineError(
                f"{self._name}: TensorRT cannot run it",
                why=self._reason(),
                hint="is the GPU's memory full? nvidia-smi shows who holds it   (on a Jetson: tegrastats)",
            )

    def _reason(self) -> str:
        return self._logger.reason() or "it gave no reason"


def _numpy_type(trt: Any, kind: Any) -> Optional[np.dtype]:
    for name, dtype in _NUMPY_TYPES.items():
        if hasattr(trt.DataType, name) and kind == getattr(trt.DataType, name):
            return np.dtype(dtype)
    return None
