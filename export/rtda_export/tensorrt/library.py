"""TensorRT as it is on this machine: loaded, asked where it runs, and its errors explained.

TensorRT's own failures say little: bindings without libraries are an ``ImportError`` about a file, a machine without a
driver is ``TypeError: pybind11::init(): factory function returned nullptr``. What they mean is said here.
"""

from __future__ import annotations

import contextlib
import logging
import re
from typing import Any, Iterator, List

from rtda_deploy.engine_file import Machine
from rtda_deploy.errors import DeviceError, MissingPackageError
from rtda_deploy.optional import install_line, is_jetson, require
from rtda_runtime.engines.cuda.context import open_cuda
from rtda_runtime.engines.tensorrt_session import tensorrt_logger

__all__ = ["load_tensorrt", "machine_of", "new_builder", "this_machine"]


def load_tensorrt() -> Any:
    """The ``tensorrt`` module.

    Raises:
        MissingPackageError: If it is not installed.
        DeviceError: If its bindings are, but not the libraries behind them.
    """
    try:
        trt = require("tensorrt", extra="tensorrt-cu12", purpose="to build engines")
    except MissingPackageError as err:
        cause = err.__cause__
        missing = re.search(r"(lib\w[\w.+-]*\.so[\w.]*)", str(cause))
        if isinstance(cause, ModuleNotFoundError) or missing is None:
            raise
        raise DeviceError(
            f"TensorRT's Python bindings are installed, but not the library {missing.group(1)} behind them",
            why=str(cause),
            hint=_library_hint(missing.group(1)),
        ) from cause
    if not hasattr(trt, "OnnxParser"):  # what `import tensorrt` gives where only a folder of that name was found
        raise DeviceError(
            "the package tensorrt that is found here is not TensorRT: it has no OnnxParser",
            why=f"it was loaded from {getattr(trt, '__file__', None) or list(getattr(trt, '__path__', []))}",
            hint=install_line("tensorrt", "tensorrt-cu12"),
        )
    return trt


def this_machine() -> Machine:
    """What an engine built here would be built with and for: loads TensorRT and asks the driver; builds nothing.

    Raises:
        MissingPackageError: If TensorRT, or the CUDA binding that names the GPU, is not installed.
        DeviceError: If TensorRT's libraries, the driver or the GPU are missing.
    """
    return machine_of(load_tensorrt())


def machine_of(trt: Any) -> Machine:
    """TensorRT's version and the GPU; ``trt`` is the loaded module.

    Raises:
        DeviceError: If there is no driver or no GPU.
        MissingPackageError: If no CUDA binding is installed.
    """
    cuda = open_cuda()
    try:
        return Machine(str(trt.__version__), cuda.device_name, cuda.compute_capability)
    finally:
        cuda.close()


def new_builder(trt: Any) -> Any:
    """A ``trt.Builder``.

    Raises:
        DeviceError: If there is no driver, or no GPU that this TensorRT can use.
    """
    log = tensorrt_logger(trt)
    log.clear()
    warnings: List[str] = []
    try:
        with _collecting(warnings):
            return trt.Builder(log)
    except TypeError as err:  # pybind11: the factory returned nullptr
        said = log.reason() or next((line for line in reversed(warnings) if "CUDA" in line), str(err))
        raise DeviceError(
            f"TensorRT {trt.__version__} found no GPU it can use",
            why=f"{said}{_cuda_error_meaning(said)}",
            hint="in a container: start it with --runtime nvidia"
            if is_jetson()
            else "nvidia-smi must list a GPU (in a container: --gpus all), and its driver must be new enough for the "
            "CUDA that this TensorRT was made for; engines are built on the machine that runs them",
        ) from err


@contextlib.contextmanager
def _collecting(lines: List[str]) -> Iterator[None]:
    """Collect what TensorRT's logger passes on to Python's log: a missing driver is no more than a warning there."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger(tensorrt_logger.__module__)
    collector, level = Collector(), logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(collector)


def _library_hint(library: str) -> str:
    if is_jetson():
        return "sudo apt-get install tensorrt python3-libnvinfer   (JetPack's own; pip has none for a Jetson)"
    if library.startswith(("libcublas", "libcudnn")):
        return f"install CUDA's {library.partition('.')[0]} and put its folder into LD_LIBRARY_PATH"
    return (
        f"{install_line('tensorrt', 'tensorrt-cu12')} installs bindings and libraries of one version; where the "
        "libraries are there already, put their folder into LD_LIBRARY_PATH"
    )


def _cuda_error_meaning(text: str) -> str:
    """CUDA's number in words, where it is one that people meet. Source: CUDA runtime API, ``cudaError``."""
    numbers = re.findall(r"CUDA initialization failure with error:? (\d+)", text)
    meaning = {
        "35": "the driver is missing, or older than this CUDA",
        "100": "no GPU is visible",
        "222": "the driver is too old for this CUDA",
        "803": "the driver was updated without a restart",
        "804": "the driver does not fit this GPU's compatibility package",
    }.get(numbers[0] if numbers else "", "")
    return f" ({meaning})" if meaning else ""
