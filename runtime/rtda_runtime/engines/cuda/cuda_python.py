"""The CUDA driver through cuda-python: ``cuda.bindings.driver`` since 12.6, ``cuda.cuda`` before."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, Tuple

import numpy as np

from rtda_runtime.engines.cuda.driver import Arguments, Device, Driver, argument_pointers, cuda_error, no_driver

__all__ = ["CudaPython"]

_NAME_BYTES = 256  # room for a GPU's name


class CudaPython(Driver):
    """cuda-python 11 to 13. Importing it needs no driver; the first call without one says so.

    Args:
        api: The module of the driver's functions; None: that of the installed package.

    Raises:
        ImportError: If cuda-python is not there.
    """

    def __init__(self, api: Any = None) -> None:
        self._api: Any = _driver_module() if api is None else api
        self._success = self._api.CUresult.CUDA_SUCCESS
        self.name = f"cuda-python {_version()}"

    def devices(self) -> int:
        try:
            self._call("cuInit", 0)
        except RuntimeError as err:  # cuda-python's own, where libcuda.so.1 cannot be loaded
            raise no_driver(str(err).splitlines()[0]) from err
        return int(self._call("cuDeviceGetCount"))

    def properties(self, index: int) -> Device:
        device = self._call("cuDeviceGet", index)
        ask = self._api.CUdevice_attribute
        major, minor, integrated = (
            int(self._call("cuDeviceGetAttribute", getattr(ask, f"CU_DEVICE_ATTRIBUTE_{what}"), device))
            for what in ("COMPUTE_CAPABILITY_MAJOR", "COMPUTE_CAPABILITY_MINOR", "INTEGRATED")
        )
        name = self._call("cuDeviceGetName", _NAME_BYTES, device).split(b"\0")[0].decode(errors="replace")
        return Device(name, (major, minor), bool(integrated), int(self._call("cuDeviceTotalMem", device)))

    def retain(self, index: int) -> Any:
        return self._call("cuDevicePrimaryCtxRetain", self._call("cuDeviceGet", index))

    def release(self, index: int, context: Any) -> None:
        self._call("cuDevicePrimaryCtxRelease", self._call("cuDeviceGet", index))

    def push(self, context: Any) -> None:
        self._call("cuCtxPushCurrent", context)

    def pop(self) -> None:
        self._call("cuCtxPopCurrent")

    def memory(self) -> Tuple[int, int]:
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, nbytes: int) -> Any:
        return self._call("cuMemAlloc", nbytes)

    def free(self, memory: Any) -> None:
        self._call("cuMemFree", memory)

    def allocate_pinned(self, nbytes: int, mapped: bool) -> Tuple[Any, int, int]:
        flags = self._api.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0
        address = int(self._call("cuMemHostAlloc", nbytes, flags))
        device = int(self._call("cuMemHostGetDevicePointer", address, 0)) if mapped else 0
        return address, address, device

    def free_pinned(self, memory: Any) -> None:
        self._call("cuMemFreeHost", memory)

    def stream(self) -> Any:
        return self._call("cuStreamCreate", int(self._api.CUstream_flags.CU_STREAM_NON_BLOCKING))

    def stream_address(self, stream: Any) -> int:
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        self._call("cuStreamSynchronize", stream)

    def destroy_stream(self, stream: Any) -> None:
        self._call("cuStreamDestroy", stream)

    def to_device(self, memory: Any, array: np.ndarray, stream: Any) -> None:
        self._call("cuMemcpyHtoDAsync", memory, array.ctypes.data, array.nbytes, stream)

    def to_host(self, array: np.ndarray, memory: Any, stream: Any) -> None:
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, memory, array.nbytes, stream)

    def load_module(self, image: bytes) -> Any:
        return self._call("cuModuleLoadData", image)

    def unload_module(self, module: Any) -> None:
        self._call("cuModuleUnload", module)

    def function(self, module: Any, name: str) -> Any:
        return self._call("cuModuleGetFunction", module, name.encode())

    def start(
        self, function: Any, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments, stream: Any
    ) -> None:
        pointers = argument_pointers(arguments)
        self._call("cuLaunchKernel", function, *grid, 1, *block, 1, 0, stream, ctypes.addressof(pointers), 0)

    def event(self) -> Any:
        return self._call("cuEventCreate", int(self._api.CUevent_flags.CU_EVENT_DEFAULT))

    def record(self, event: Any, stream: Any) -> None:
        self._call("cuEventRecord", event, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._call("cuEventElapsedTime", start, end))

    def destroy_event(self, event: Any) -> None:
        self._call("cuEventDestroy", event)

    def begin_capture(self, stream: Any) -> None:
        # Of this thread only: what torch or another engine allocates elsewhere meanwhile is not forbidden.
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        graph = self._call("cuStreamEndCapture", stream)
        try:
            # 11's cuGraphInstantiate is another function; from 12 on it is what 11 calls so.
            with_flags = hasattr(self._api, "cuGraphInstantiateWithFlags")
            return self._call("cuGraphInstantiateWithFlags" if with_flags else "cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._call("cuGraphExecDestroy", graph)

    def _call(self, function: str, *arguments: Any) -> Any:
        """The results of a function of the driver: nothing, one value, or a tuple of them."""
        code, *results = getattr(self._api, function)(*arguments)
        if code != self._success:
            _, text = self._api.cuGetErrorString(code)
            raise cuda_error(function, getattr(code, "name", str(code)), _decoded(text))
        return results[0] if len(results) == 1 else tuple(results)


def _driver_module() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ModuleNotFoundError:
        return importlib.import_module("cuda.cuda")


def _version() -> str:
    for module in ("cuda.bindings", "cuda"):
        try:
            return str(importlib.import_module(module).__version__)
        except (ImportError, AttributeError):
            continue
    return "of unknown version"


def _decoded(text: Any) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else ""
