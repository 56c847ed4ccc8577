"""TensorRT: runs an ``.engine`` on the GPU it was built for, with TensorRT 8.5 to 11.

Only what all of these have is used: tensors by name and ``execute_async_v3``. Whatever would fail later in TensorRT's
own words, another version, another GPU, half a file, is looked for before the engine is loaded, in its sidecar.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.engine_file import (
    EngineSidecar,
    Machine,
    check_whole,
    mismatch,
    read_sidecar,
    rebuild_command,
    sidecar_path,
)
from rtda_deploy.errors import EngineError, RtdaError, SpecError
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine, GraphTensor, check_graph
from rtda_runtime.engines.cuda.context import Cuda, open_cuda
from rtda_runtime.engines.cuda.driver import no_driver
from rtda_runtime.engines.cuda.frames import INTERPOLATIONS, CudaFramePath, Network
from rtda_runtime.engines.cuda.kernels import FindCompiler, Kernels, load_kernels
from rtda_runtime.engines.tensorrt_log import tensorrt_logger

__all__ = ["TensorrtEngine", "describe", "open_tensorrt"]

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


def open_tensorrt(
    path: Path,
    *,
    provider: str = "auto",
    spec: Optional[ModelSpec] = None,
    threads: Optional[int] = None,
    trt: Any = None,
    cuda: Optional[Cuda] = None,
    graph: bool = True,
    compilers: Optional[Sequence[FindCompiler]] = None,
) -> TensorrtEngine:
    """Open an ``.engine`` or ``.plan`` file; ``threads`` is for CPUs and changes nothing here.

    Args:
        path: Its sidecar ``<path>.json`` stands beside it; without one, ``spec`` is needed and nothing but TensorRT
            itself checks whether the engine fits this machine.
        provider: ``auto`` or ``tensorrt``, which are the same here.
        spec: Replaces the sidecar's.
        threads: Ignored.
        trt: The module ``tensorrt``; None: the installed one.
        cuda: Closed with the engine; None: the first GPU.
        graph: Run the network as one CUDA graph where it can be recorded.
        compilers: Of the kernels for frames and masks; None: NVRTC, then nvcc.

    Raises:
        SpecError: If neither a sidecar nor ``spec`` is there.
        EngineError: If the file is cut off, or was built for another TensorRT or GPU, or does not fit its spec.
        DeviceError: If there is no GPU or driver.
        MissingPackageError: If tensorrt, or a binding to CUDA, is not installed.
    """
    sidecar = _sidecar_of(path, spec)
    wanted = spec or (None if sidecar is None else sidecar.spec)
    if wanted is None:
        raise SpecError(
            f"{path.name} has no {sidecar_path(path).name} beside it",
            why="a TensorRT engine says nothing of its classes, mean and size; the .json does",
            hint="copy the .json too, or give them: --spec spec.json   (rtda-deploy export writes both)",
        )
    if sidecar is not None:
        check_whole(path, sidecar)
    trt = trt or require("tensorrt", extra="tensorrt-cu12", purpose="to run engines")
    cuda = cuda or open_cuda()
    try:
        if sidecar is not None:
            _check_machine(path, sidecar, Machine(trt.__version__, cuda.device_name, cuda.compute_capability))
        return TensorrtEngine(path, wanted, sidecar=sidecar, trt=trt, cuda=cuda, graph=graph, compilers=compilers)
    except BaseException:
        cuda.close()
        raise


def describe(path: Path) -> Dict[str, Any]:
    """What ``inspect`` shows of an engine: ``kind``, ``spec``, and ``built``, how it was built, from its sidecar.

    Raises:
        EngineError: If there is no sidecar, or it is broken.
    """
    sidecar = read_sidecar(path)
    return {"kind": "engine", "spec": sidecar.spec.to_dict(), "built": dataclasses.asdict(sidecar.built)}


def _sidecar_of(path: Path, spec: Optional[ModelSpec]) -> Optional[EngineSidecar]:
    """What stands beside the engine; where ``spec`` is given, one that cannot be read is passed over."""
    if not sidecar_path(path).exists():
        return None
    try:
        return read_sidecar(path)
    except (EngineError, SpecError) as err:
        if spec is None:
            raise
        _log.warning("%s; the spec that was given is used", err.message)
        return None


class TensorrtEngine(Engine):
    """A TensorRT engine with its buffers, its stream and its CUDA graph.

    Input and output are page-locked. On a GPU of its own memory they are copied over the bus; an integrated GPU
    (a Jetson) reads and writes them where they are. The network, without the copies, is recorded as a CUDA graph after
    one inference that is not counted.

    :meth:`frame_path` does without that way of pictures and logits: frames and masks cross the bus, as uint8.

    Attributes:
        confidence: As in :class:`Engine`.
        graph: Whether it runs as a CUDA graph.
        gpu: Name of the GPU.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        sidecar: Optional[EngineSidecar],
        trt: Any,
        cuda: Cuda,
        graph: bool = True,
        compilers: Optional[Sequence[FindCompiler]] = None,
    ) -> None:
        precision = "" if sidecar is None else f" {sidecar.built.precision}"
        self.gpu = cuda.device_name
        name = f"{path.name}, TensorRT {trt.__version__}{precision} on {self.gpu}"
        super().__init__(spec, provider="tensorrt", description=name)
        hint = "rtda-deploy export model.onnx --to engine" if sidecar is None else rebuild_command(sidecar, path)
        session = _Session(trt, cuda, path, rebuild=hint)
        # At the interpreter's end too: TensorRT aborts when its objects outlive CUDA.
        self._finalizer = weakref.finalize(self, session.close)
        self._session = session
        self._compilers = compilers
        try:
            inputs, outputs = session.tensors(inputs=True), session.tensors(inputs=False)
            order = check_graph(self, path.name, *([t.described for t in tensors] for tensors in (inputs, outputs)))
            self._input = session.bind(inputs[0])
            answers = [session.bind(outputs[index]) for index in order]
            self._result: np.ndarray = answers[0].reshape(self.output_shape)
            self.confidence = answers[1][0] if len(answers) > 1 else None
            session.warm_up(graph)
        except BaseException:
            self._finalizer()
            raise
        self.graph = session.graph is not None
        self.description = f"{name}, {'' if self.graph else 'no '}CUDA graph"

    def device_times(self) -> Dict[str, float]:
        """Run the network once and say how long the GPU took, ms: ``h2d``, ``compute``, ``d2h``.

        By events on the stream: without Python, waiting and preprocessing. An integrated GPU copies nothing: 0.

        Raises:
            EngineError: After :meth:`close`, or if CUDA failed.
        """
        self.input_buffer  # noqa: B018 - raises when closed
        return self._session.times_ms()

    def device_memory_used(self) -> int:
        """Bytes of the GPU's memory in use, by whomever."""
        self.input_buffer  # noqa: B018
        return self._session.cuda.memory_used()

    def frame_path(
        self, classes: Optional[np.ndarray] = None, palette: Sequence[Tuple[int, int, int]] = ()
    ) -> Optional[CudaFramePath]:
        """As in :class:`Engine`. None, with one warning, where nothing here compiles its kernels; None for pictures
        resized by ``area`` or ``cubic``.

        Raises:
            EngineError: After :meth:`close`, or if the GPU has no memory for it.
        """
        self.input_buffer  # noqa: B018
        if self.spec.interpolation not in INTERPOLATIONS or self._result.dtype not in (np.float32, np.uint8):
            return None
        kernels = self._session.kernels(self._compilers)
        if kernels is None:
            return None
        table = np.arange(256, dtype=np.uint8) if classes is None else classes
        return self._session.frame_path(kernels, self.spec, classes=table, palette=palette)

    def _infer(self) -> np.ndarray:
        try:
            self._session.run()
        except RtdaError as err:
            raise type(err)(f"{self.description}: inference failed", why=err.why or err.message, hint=err.hint) from err
        return self._result

    def _release(self) -> None:
        self._finalizer()


class _Tensor(NamedTuple):
    """An input or output of an engine; ``dtype`` is None where NumPy has none."""

    described: GraphTensor
    is_input: bool
    dtype: Optional[np.dtype]


class _Session:
    """TensorRT's objects and the GPU's memory, in the order in which they must go. Knows nothing of specs."""

    def __init__(self, trt: Any, cuda: Cuda, path: Path, *, rebuild: str) -> None:
        self.cuda = cuda
        self.graph: Any = None
        self._trt = trt
        self._name = path.name
        self._logger = tensorrt_logger(trt)
        self._logger.clear()
        self._copies_in: List[Callable[[], None]] = []
        self._copies_out: List[Callable[[], None]] = []
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

    def tensors(self, *, inputs: bool) -> List[_Tensor]:
        """Inputs, or outputs, in the engine's order."""
        engine, trt = self._engine, self._trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        role = trt.TensorIOMode.INPUT if inputs else trt.TensorIOMode.OUTPUT
        return [self._tensor(name, inputs) for name in names if engine.get_tensor_mode(name) == role]

    def _tensor(self, name: str, is_input: bool) -> _Tensor:
        kind = self._engine.get_tensor_dtype(name)
        dtype = _numpy_type(self._trt, kind)
        said = getattr(kind, "name", "unknown").lower() if dtype is None else dtype.name
        if self._engine.get_tensor_format(name) != self._trt.TensorFormat.LINEAR:
            said += ", in a layout of its own"
        shape = tuple(int(side) for side in self._engine.get_tensor_shape(name))
        return _Tensor(GraphTensor(name, shape, said), is_input, dtype)

    def bind(self, tensor: _Tensor) -> np.ndarray:
        """Give a tensor its memory; the host's array of it."""
        cuda = self.cuda
        host, address = cuda.pinned(tensor.described.shape, tensor.dtype, mapped=cuda.integrated)
        with cuda.current():
            if not cuda.integrated:
                address = cuda.allocate(host.nbytes)
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
        network = Network(self._name, spec, self._addresses[True], self._addresses[False], self._enqueue)
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
        """What runs before what it runs on: graph, context, engine, runtime, then the GPU's memory and context."""
        if self._runtime is not None:
            with contextlib.suppress(RtdaError), self.cuda.current():
                self._take_apart()
            self._take_apart()  # where the context could not be made current any more: let go of them all the same
        self._copies_in, self._copies_out, self._paths = [], [], []
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


def _check_machine(path: Path, sidecar: EngineSidecar, here: Machine) -> None:
    problem = mismatch(sidecar, here, name=path.name)
    if problem:
        raise EngineError(problem, hint=f"engines are not portable; build here: {rebuild_command(sidecar, path)}")


def _numpy_type(trt: Any, kind: Any) -> Optional[np.dtype]:
    for name, dtype in _NUMPY_TYPES.items():
        if hasattr(trt.DataType, name) and kind == getattr(trt.DataType, name):
            return np.dtype(dtype)
    return None
