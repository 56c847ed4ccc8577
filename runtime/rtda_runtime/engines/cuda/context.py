"""The seam to CUDA: one GPU's primary context, memory, stream and graphs, over PyCUDA or cuda-python.

A CUDA context of one's own fights with torch's and with every other library's in the process. The device's *primary*
context is the one they all share: it is retained here, and pushed and popped around each piece of work, so that any
thread may do it and finds its own context again afterwards (TensorRT#1107, pycuda#242: what goes wrong otherwise).

PyCUDA is taken where it is installed, because its own book of contexts must agree with a program that uses it too;
cuda-python (``cuda.bindings``) otherwise. Both are used through the driver's API, behind
:class:`~rtda_runtime.engines.cuda.driver.Driver`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import weakref
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError, RtdaError
from rtda_deploy.optional import available, install_line, is_jetson
from rtda_runtime.engines.cuda.driver import Arguments, Driver, cuda_error, no_driver

__all__ = ["BINDINGS", "Cuda", "Pinned", "open_cuda"]

_log = logging.getLogger(__name__)


class Pinned(NamedTuple):
    """Page-locked host memory: fast to copy from and to, and where ``address`` is not 0 the GPU reads it directly.

    Attributes:
        array: As long as this array or a view of it lives, so does the memory, whatever was closed before.
        address: The same memory as the GPU sees it; 0 where it was not mapped.
    """

    array: np.ndarray
    address: int


class Cuda:
    """A GPU with one stream. Everything but :meth:`pinned`, :meth:`memory_used` and :meth:`close` is called within
    ``with cuda.current():``; one thread at a time, whichever it is.

    Attributes:
        device_name: Such as ``Xavier``.
        compute_capability: Such as (7, 2).
        integrated: Whether the GPU shares the host's memory.
        total_memory: Bytes.
        binding: Package behind it with its version, such as ``cuda-python 12.9.1``.
    """

    def __init__(self, driver: Driver, index: int = 0) -> None:
        count = driver.devices()
        if not count:
            raise cuda_error("cuDeviceGetCount", "CUDA_ERROR_NO_DEVICE", "it counts none")
        if not 0 <= index < count:
            raise ConfigError(f"there is no GPU {index}", hint=f"there are {count}, the first is 0")
        self.device_name, self.compute_capability, self.integrated, self.total_memory = driver.properties(index)
        self.binding = driver.name
        self._driver = driver
        self._primary: Optional[_Primary] = _Primary(driver, index)
        self._memory: Dict[int, Any] = {}
        self._events: List[Any] = []
        self._graphs: List[Any] = []
        self._modules: List[Any] = []
        with self.current():
            self._stream: Any = driver.stream()
            self.stream = driver.stream_address(self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context the calling thread's, and put back what it had.

        Raises:
            EngineError: After :meth:`close`.
        """
        if self._primary is None:
            raise EngineError(f"CUDA on {self.device_name} is closed", hint="open it again; close() is final")
        with self._primary.current():
            yield

    def pinned(self, shape: Sequence[int], dtype: Any, *, mapped: bool = False) -> Pinned:
        """Page-locked host memory, zeroed; ``mapped`` lets the GPU read and write it without a copy."""
        if self._primary is None:
            raise EngineError(f"CUDA on {self.device_name} is closed", hint="open it again; close() is final")
        kind = np.dtype(dtype)
        owner = _PinnedMemory(self._primary, int(np.prod(shape)) * kind.itemsize, mapped)
        array = np.asarray(owner).view(kind).reshape(tuple(shape))  # numpy keeps the owner as the array's base
        array[...] = 0
        return Pinned(array, owner.device_address)

    def allocate(self, nbytes: int) -> int:
        """The address of new memory of the GPU; given back by :meth:`close`."""
        memory = self._driver.allocate(nbytes)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """Give back memory from :meth:`allocate` before the end; nothing may be using it."""
        _attempt(self._driver.free, self._memory.pop(address))

    def load(self, image: bytes) -> Any:
        """A compiler's output, machine code or PTX, as a module; given back by :meth:`close`."""
        module = self._driver.load_module(image)
        self._modules.append(module)
        return module

    def function(self, module: Any, name: str) -> Any:
        """A kernel of a module."""
        return self._driver.function(module, name)

    def start(self, function: Any, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments) -> None:
        """Run a kernel on the stream, asynchronously: ``grid`` blocks of ``block`` threads, across and down."""
        self._driver.start(function, grid, block, arguments, self._stream)

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Copy a pinned array to memory from :meth:`allocate`, asynchronously."""
        self._driver.to_device(self._memory[address], array, self._stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Copy memory from :meth:`allocate` to a pinned array, asynchronously."""
        self._driver.to_host(array, self._memory[address], self._stream)

    def synchronize(self) -> None:
        """Wait until the stream has done everything."""
        self._driver.synchronize(self._stream)

    def times_ms(self, *steps: Callable[[], None]) -> List[float]:
        """Give each step to the stream in turn, wait, and say how long the GPU took for each, ms."""
        while len(self._events) <= len(steps):
            self._events.append(self._driver.event())
        self._driver.record(self._events[0], self._stream)
        for step, event in zip(steps, self._events[1:]):
            step()
            self._driver.record(event, self._stream)
        self.synchronize()
        return [self._driver.elapsed_ms(a, b) for a, b in zip(self._events, self._events[1 : len(steps) + 1])]

    def capture(self, work: Callable[[], None]) -> Any:
        """What ``work`` gives to the stream, as a CUDA graph for :meth:`launch`; it does not run meanwhile.

        Raises:
            EngineError: If it cannot be recorded. The stream is as it was.
        """
        self._driver.begin_capture(self._stream)
        try:
            work()
        except BaseException:
            with contextlib.suppress(RtdaError):  # the recording is void; ending it frees the stream for use again
                self._driver.destroy_graph(self._driver.end_capture(self._stream))
            raise
        graph = self._driver.end_capture(self._stream)
        self._graphs.append(graph)
        return graph

    def launch(self, graph: Any) -> None:
        """Run a graph on the stream, asynchronously."""
        self._driver.launch(graph, self._stream)

    def destroy_graph(self, graph: Any) -> None:
        """Give back one that :meth:`capture` made."""
        self._graphs.remove(graph)
        _attempt(self._driver.destroy_graph, graph)

    def destroy_graphs(self) -> None:
        """Give back all that :meth:`capture` made; before what they run is taken apart."""
        while self._graphs:
            _attempt(self._driver.destroy_graph, self._graphs.pop())

    def memory_used(self) -> int:
        """Bytes of the GPU's memory in use, by all processes."""
        with self.current():
            free, total = self._driver.memory()
        return total - free

    def close(self) -> None:
        """Give back everything but pinned arrays that somebody still holds. Calling it again does nothing.

        A step that fails, as all do after a fault of the GPU, is logged and does not keep the others from being tried.
        """
        if self._primary is None:
            return
        with contextlib.suppress(RtdaError), self.current():
            self._give_back()
        self._primary = None  # released when the last pinned array is gone too

    def _give_back(self) -> None:
        """Within :meth:`current` to its end: PyCUDA frees some of it when the last reference goes."""
        _attempt(self._driver.synchronize, self._stream)
        self.destroy_graphs()
        while self._events:
            _attempt(self._driver.destroy_event, self._events.pop())
        while self._modules:
            _attempt(self._driver.unload_module, self._modules.pop())
        while self._memory:
            _attempt(self._driver.free, self._memory.popitem()[1])
        _attempt(self._driver.destroy_stream, self._stream)
        self._stream = None


BINDINGS = (  # package, module and class of each, the preferred first
    ("pycuda", "rtda_runtime.engines.cuda.pycuda", "PyCuda"),
    ("cuda", "rtda_runtime.engines.cuda.cuda_python", "CudaPython"),
)


def open_cuda(
    device: int = 0, *, driver: Optional[Driver] = None, bindings: Sequence[Tuple[str, str, str]] = BINDINGS
) -> Cuda:
    """Open a GPU by its number.

    Args:
        device: As CUDA counts, within ``CUDA_VISIBLE_DEVICES``.
        driver: The binding to use; None: the first of ``bindings`` that is installed.
        bindings: Rows as of ``BINDINGS``.

    Raises:
        DeviceError: If there is no driver or no GPU.
        MissingPackageError: If neither binding is installed.
        ConfigError: If there is no GPU of this number.
    """
    return Cuda(driver or _installed_driver(bindings), device)


class _Primary:
    """A device's primary context, retained as long as this object lives: shared by a ``Cuda`` and its pinned arrays."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver = driver
        self.context = driver.retain(index)
        release = weakref.finalize(self, _attempt, driver.release, index, self.context)
        release.atexit = False  # the end of the process gives it back; an array may be read until then

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self.driver.push(self.context)
        try:
            yield
        finally:
            self.driver.pop()


class _PinnedMemory:
    """Page-locked memory that numpy can look at; freed with the last array that does."""

    def __init__(self, primary: _Primary, nbytes: int, mapped: bool) -> None:
        with primary.current():
            handle, address, self.device_address = primary.driver.allocate_pinned(nbytes, mapped)
        self.__array_interface__ = {"version": 3, "data": (address, False), "shape": (nbytes,), "typestr": "|u1"}
        weakref.finalize(self, _free_pinned, primary, handle).atexit = False


def _free_pinned(primary: _Primary, handle: Any) -> None:
    with contextlib.suppress(RtdaError), primary.current():
        _attempt(primary.driver.free_pinned, handle)


def _attempt(step: Callable[..., None], *arguments: Any) -> None:
    try:
        step(*arguments)
    except RtdaError as err:
        _log.warning("giving back CUDA's memory: %s (%s)", err.message, err.why)


def _installed_driver(bindings: Sequence[Tuple[str, str, str]]) -> Driver:
    reasons = []
    for package, module, kind in bindings:
        if not available(package):
            continue
        try:
            made: Driver = getattr(importlib.import_module(module), kind)()
            return made
        except ImportError as err:
            if "libcuda" in str(err):
                raise no_driver(str(err)) from err
            reasons.append(f"{package} is installed but does not load: {err}")
    extra = "pycuda" if is_jetson() else "tensorrt-cu12"
    raise MissingPackageError(
        "neither PyCUDA nor cuda-python is installed (one is needed to run engines)",
        why="; ".join(reasons),
        hint=install_line("pycuda", extra),
    )
