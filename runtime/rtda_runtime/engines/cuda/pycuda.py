"""The CUDA driver through PyCUDA.

Which has no CUDA graphs (2025.1), and gives no kernel its arguments as they are declared: those calls go to libcuda.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, Dict, Tuple

import numpy as np

from rtda_runtime.engines.cuda.driver import Arguments, Device, Driver, argument_pointers, cuda_error

__all__ = ["PyCuda"]

_NON_BLOCKING = 1  # cuda.h: CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # cuda.h: CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

# Kept for the process, and beyond the interpreter's end: where PyCUDA (2025.1) lets go of a primary context it calls
# cuCtxDetach on it, which fails with a warning, and leaves it on the driver's own stack.
_contexts: Dict[int, Any] = {}


class PyCuda(Driver):
    """PyCUDA 2020.1 or newer (primary contexts).

    Raises:
        ImportError: If PyCUDA is not there, or finds no ``libcuda.so.1``.
    """

    def __init__(self) -> None:
        self._api: Any = importlib.import_module("pycuda.driver")
        self._library = _Library()
        self.name = f"PyCUDA {importlib.import_module('pycuda').VERSION_TEXT}"

    def devices(self) -> int:
        self._call("cuInit", self._api.init)
        return int(self._call("cuDeviceGetCount", self._api.Device.count))

    def properties(self, index: int) -> Device:
        device = self._call("cuDeviceGet", self._api.Device, index)
        major, minor = self._call("cuDeviceGetAttribute", device.compute_capability)
        wanted = self._api.device_attribute.INTEGRATED
        integrated = bool(self._call("cuDeviceGetAttribute", device.get_attribute, wanted))
        name = self._call("cuDeviceGetName", device.name)
        return Device(
            name, (int(major), int(minor)), integrated, int(self._call("cuDeviceTotalMem", device.total_memory))
        )

    def retain(self, index: int) -> Any:
        if index not in _contexts:
            device = self._call("cuDeviceGet", self._api.Device, index)
            _contexts[index] = self._call("cuDevicePrimaryCtxRetain", device.retain_primary_context)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_contexts[index]))
        return _contexts[index]

    def release(self, index: int, context: Any) -> None:
        """Nothing: see ``_contexts``."""

    def push(self, context: Any) -> None:
        self._call("cuCtxPushCurrent", context.push)

    def pop(self) -> None:
        self._call("cuCtxPopCurrent", self._api.Context.pop)

    def memory(self) -> Tuple[int, int]:
        free, total = self._call("cuMemGetInfo", self._api.mem_get_info)
        return int(free), int(total)

    def allocate(self, nbytes: int) -> Any:
        return self._call("cuMemAlloc", self._api.mem_alloc, nbytes)

    def free(self, memory: Any) -> None:
        self._call("cuMemFree", memory.free)

    def allocate_pinned(self, nbytes: int, mapped: bool) -> Tuple[Any, int, int]:
        flags = self._api.host_alloc_flags.DEVICEMAP if mapped else 0
        array = self._call("cuMemHostAlloc", self._api.pagelocked_empty, (nbytes,), np.uint8, "C", flags)
        device = int(array.base.get_device_pointer()) if mapped else 0
        return array, array.ctypes.data, device

    def free_pinned(self, memory: Any) -> None:
        self._call("cuMemFreeHost", memory.base.free)

    def stream(self) -> Any:
        return self._call("cuStreamCreate", self._api.Stream, _NON_BLOCKING)

    def stream_address(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        self._call("cuStreamSynchronize", stream.synchronize)

    def destroy_stream(self, stream: Any) -> None:
        """Nothing: PyCUDA destroys it with its last reference, which :class:`Cuda` drops right after."""

    def to_device(self, memory: Any, array: np.ndarray, stream: Any) -> None:
        self._call("cuMemcpyHtoDAsync", self._api.memcpy_htod_async, memory, array, stream)

    def to_host(self, array: np.ndarray, memory: Any, stream: Any) -> None:
        self._call("cuMemcpyDtoHAsync", self._api.memcpy_dtoh_async, array, memory, stream)

    def load_module(self, image: bytes) -> Any:
        return self._library.load(image)

    def unload_module(self, module: Any) -> None:
        self._library.unload(module)

    def function(self, module: Any, name: str) -> Any:
        return self._library.function(module, name)

    def start(
        self, function: Any, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments, stream: Any
    ) -> None:
        self._library.start(function, grid, block, arguments, self.stream_address(stream))

    def event(self) -> Any:
        return self._call("cuEventCreate", self._api.Event)

    def record(self, event: Any, stream: Any) -> None:
        self._call("cuEventRecord", event.record, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._call("cuEventElapsedTime", start.time_till, end))

    def destroy_event(self, event: Any) -> None:
        """Nothing: as ``destroy_stream``."""

    def begin_capture(self, stream: Any) -> None:
        self._library.begin(self.stream_address(stream))

    def end_capture(self, stream: Any) -> Any:
        return self._library.end(self.stream_address(stream))

    def launch(self, graph: Any, stream: Any) -> None:
        self._library.launch(graph, self.stream_address(stream))

    def destroy_graph(self, graph: Any) -> None:
        self._library.destroy(graph)

    def _call(self, name: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._api.Error as err:  # "cuMemAlloc failed: out of memory": PyCUDA gives the text, not the code
            text = str(err).partition(" failed: ")[2] or str(err)
            raise cuda_error(name, _NAMES.get(text.partition(" - ")[0], type(err).__name__), text) from err


# The driver's texts (cuGetErrorString) of the codes that have a hint or an exit code of their own.
_NAMES = {
    "no CUDA-capable device is detected": "CUDA_ERROR_NO_DEVICE",
    "out of memory": "CUDA_ERROR_OUT_OF_MEMORY",
    "invalid device ordinal": "CUDA_ERROR_INVALID_DEVICE",
    "system has unsupported display driver / cuda driver combination": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
}


class _Library:
    """The driver's functions for graphs and kernels; handles are numbers. All are in CUDA 11.4, which JetPack 5 has."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as err:
            raise ImportError(str(err)) from err

    def begin(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))

    def end(self, stream: int) -> int:
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def load(self, image: bytes) -> int:
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(image))
        return int(module.value or 0)

    def unload(self, module: int) -> None:
        self._call("cuModuleUnload", ctypes.c_void_p(module))

    def function(self, module: int, name: str) -> int:
        found = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(found), ctypes.c_void_p(module), name.encode())
        return int(found.value or 0)

    def start(
        self, function: int, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments, stream: int
    ) -> None:
        sizes = (ctypes.c_uint(size) for size in (*grid, 1, *block, 1, 0))
        pointers = argument_pointers(arguments)
        self._call("cuLaunchKernel", ctypes.c_void_p(function), *sizes, ctypes.c_void_p(stream), pointers, None)

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(name))
            raise cuda_error(function, (name.value or str(code).encode()).decode())
