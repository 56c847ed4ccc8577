"""What a binding to the CUDA driver must do, and what its failures are to a user."""

from __future__ import annotations

import abc
import ctypes
from typing import Any, NamedTuple, Sequence, Tuple, Type, Union

import numpy as np

from rtda_deploy.errors import DeviceError, EngineError
from rtda_deploy.optional import is_jetson

__all__ = ["Arguments", "Device", "Driver", "argument_pointers", "cuda_error", "no_driver"]

# Codes that are about the machine, not about what was asked of it: exit code 3.
_ABOUT_THE_DEVICE = {
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    "CUDA_ERROR_DEVICE_NOT_LICENSED",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_INVALID_DEVICE",
    "CUDA_ERROR_MPS_CONNECTION_FAILED",
    "CUDA_ERROR_NO_DEVICE",
    "CUDA_ERROR_NOT_PERMITTED",
    "CUDA_ERROR_STUB_LIBRARY",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    "CUDA_ERROR_SYSTEM_NOT_READY",
    "cudaErrorInsufficientDriver",
    "cudaErrorNoDevice",
}
_HINTS = {
    "CUDA_ERROR_NO_DEVICE": "is a GPU there, and CUDA_VISIBLE_DEVICES not empty? nvidia-smi lists them",
    "CUDA_ERROR_OUT_OF_MEMORY": "free memory on the GPU: nvidia-smi shows who holds it   (on a Jetson: tegrastats)",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "the driver was updated: restart the machine",
}


Arguments = Sequence[Any]  # of a kernel: ctypes values of exactly the types that it declares


class Device(NamedTuple):
    """What is known of a GPU before anything runs on it.

    Attributes:
        name: As its driver gives it, such as ``Xavier`` or ``NVIDIA H100 80GB HBM3``.
        compute_capability: Major and minor, such as (7, 2).
        integrated: Whether it shares its memory with the CPU, as on a Jetson.
        total_memory: Bytes.
    """

    name: str
    compute_capability: Tuple[int, int]
    integrated: bool
    total_memory: int


class Driver(abc.ABC):
    """What a binding to the CUDA driver must do; handles are the binding's own objects.

    All but ``devices``, ``properties``, ``retain`` and ``release`` need a context pushed on the calling thread. Every
    failure is raised through :func:`cuda_error`.
    """

    name = ""

    @abc.abstractmethod
    def devices(self) -> int:
        """Start the driver; the number of GPUs."""

    @abc.abstractmethod
    def properties(self, index: int) -> Device:
        """What the GPU is."""

    @abc.abstractmethod
    def retain(self, index: int) -> Any:
        """The GPU's primary context."""

    @abc.abstractmethod
    def release(self, index: int, context: Any) -> None:
        """Undo one ``retain``."""

    @abc.abstractmethod
    def push(self, context: Any) -> None:
        """Make the context the calling thread's."""

    @abc.abstractmethod
    def pop(self) -> None:
        """Give the calling thread back the context it had."""

    @abc.abstractmethod
    def memory(self) -> Tuple[int, int]:
        """Free and total memory of the GPU, bytes, whoever uses it."""

    @abc.abstractmethod
    def allocate(self, nbytes: int) -> Any:
        """Memory of the GPU; ``int()`` of it is its address."""

    @abc.abstractmethod
    def free(self, memory: Any) -> None:
        """Undo ``allocate``."""

    @abc.abstractmethod
    def allocate_pinned(self, nbytes: int, mapped: bool) -> Tuple[Any, int, int]:
        """Page-locked memory of the host: handle, its address, and the GPU's address of it (0 where not ``mapped``)."""

    @abc.abstractmethod
    def free_pinned(self, memory: Any) -> None:
        """Undo ``allocate_pinned``."""

    @abc.abstractmethod
    def stream(self) -> Any:
        """A stream that does not wait for the default one."""

    @abc.abstractmethod
    def stream_address(self, stream: Any) -> int:
        """The ``CUstream`` as a number, for other libraries."""

    @abc.abstractmethod
    def synchronize(self, stream: Any) -> None:
        """Wait for the stream's work."""

    @abc.abstractmethod
    def destroy_stream(self, stream: Any) -> None:
        """Undo ``stream``."""

    @abc.abstractmethod
    def to_device(self, memory: Any, array: np.ndarray, stream: Any) -> None:
        """Copy all of a pinned array, asynchronously."""

    @abc.abstractmethod
    def to_host(self, array: np.ndarray, memory: Any, stream: Any) -> None:
        """Copy into all of a pinned array, asynchronously."""

    @abc.abstractmethod
    def load_module(self, image: bytes) -> Any:
        """Kernels from a compiler's output, machine code or PTX."""

    @abc.abstractmethod
    def unload_module(self, module: Any) -> None:
        """Undo ``load_module``."""

    @abc.abstractmethod
    def function(self, module: Any, name: str) -> Any:
        """A kernel by its name."""

    @abc.abstractmethod
    def start(
        self, function: Any, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments, stream: Any
    ) -> None:
        """Run a kernel with ``grid`` blocks of ``block`` threads, across and down; the arguments are copied."""

    @abc.abstractmethod
    def event(self) -> Any:
        """An event that keeps its time."""

    @abc.abstractmethod
    def record(self, event: Any, stream: Any) -> None:
        """Have the stream stamp the event when it gets there."""

    @abc.abstractmethod
    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Between two events that the GPU has passed."""

    @abc.abstractmethod
    def destroy_event(self, event: Any) -> None:
        """Undo ``event``."""

    @abc.abstractmethod
    def begin_capture(self, stream: Any) -> None:
        """Record what this thread gives to the stream instead of running it."""

    @abc.abstractmethod
    def end_capture(self, stream: Any) -> Any:
        """What was recorded, ready to launch. Ends the recording also where it fails."""

    @abc.abstractmethod
    def launch(self, graph: Any, stream: Any) -> None:
        """Run a recording."""

    @abc.abstractmethod
    def destroy_graph(self, graph: Any) -> None:
        """Undo ``end_capture``."""


def argument_pointers(arguments: Arguments) -> Any:
    """The arguments of a kernel as ``cuLaunchKernel`` wants them: an array of pointers to them."""
    return (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))


def cuda_error(call: str, name: str, text: str = "") -> Union[DeviceError, EngineError]:
    """What a failed call of CUDA is to a user: ``DeviceError`` where the machine is to blame, else ``EngineError``."""
    kind: Type[Union[DeviceError, EngineError]] = DeviceError if name in _ABOUT_THE_DEVICE else EngineError
    why = f"{name}: {text}" if text else name
    return kind(f"CUDA failed in {call}", why=why, hint=_HINTS.get(name, "rtda-deploy doctor"))


def no_driver(reason: str) -> DeviceError:
    """The error for a machine without NVIDIA's driver; ``reason`` is what the library said."""
    if is_jetson():
        hint = "in a container: start it with --runtime nvidia"
    else:
        hint = "install NVIDIA's driver (nvidia-smi must work; in a container: --gpus all), or run the .onnx on the CPU"
    return DeviceError("no NVIDIA driver was found on this machine", why=reason, hint=hint)
