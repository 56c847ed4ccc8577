"""ONNX Runtime: runs an ``.onnx`` file on the CPU, or on a GPU through its CUDA and TensorRT providers."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type, Union

import numpy as np

from rtda_deploy.errors import DeviceError, EngineError
from rtda_deploy.files import cache_folder, writable_folder
from rtda_deploy.onnx_file import onnx_spec
from rtda_deploy.optional import available, install_line, is_jetson, require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine, GraphTensor, check_graph
from rtda_runtime.machine.cores import threads_text, usable_cores

__all__ = ["OrtEngine", "built_for_gpu", "open_onnx", "provider_plan", "providers_here"]

_ORT_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# Without TensorRT: inside ONNX Runtime it builds its engine at every start, which takes minutes.
_AUTO = ("cuda", "cpu")
_DTYPES = {"tensor(float)": "float32", **{f"tensor({name})": name for name in ("uint8", "int32", "int64")}}
_ERRORS_ONLY = 3  # onnxruntime.SessionOptions.log_severity_level
_FATAL_ONLY = 4
# How long a thread spins for work before it sleeps. ONNX Runtime's default is far longer, which takes CPU time from the
# camera, the mask and its other threads. Honoured from 1.26 on; older versions ignore the entry.
_SPIN_US = "100"

_log = logging.getLogger(__name__)


def open_onnx(
    path: Path,
    *,
    provider: str,
    spec: Optional[ModelSpec] = None,
    threads: Optional[int] = None,
    ort: Any = None,
) -> OrtEngine:
    """Open an ``.onnx`` file; arguments and errors as in :func:`rtda_runtime.open_engine`.

    Args:
        ort: The module ``onnxruntime``; None: the installed one.
    """
    ort = ort or require("onnxruntime", extra="runtime", purpose="to run .onnx files")
    count = threads or usable_cores()
    for name in provider_plan(provider, ort.get_available_providers()):
        session = _session(ort, path, name, count)
        loaded = _short_name(session.get_providers()[0])
        if loaded == name:
            contract = spec or onnx_spec(path)
            return OrtEngine(session, contract, path=path, provider=name, threads=count)
        if provider != "auto":
            raise DeviceError(
                f"provider {provider} was asked for and did not load",
                why=f"ONNX Runtime {ort.__version__} fell back to {loaded}: "
                "its CUDA or TensorRT libraries are missing or of another version than it was built for",
                hint="rtda-deploy doctor   (or, to run on the CPU: --provider cpu)",
            )
        _log.warning("ONNX Runtime lists provider %s but it does not load here; trying the next", name)
    raise DeviceError(f"ONNX Runtime {ort.__version__} loads none of its providers", hint="reinstall onnxruntime")


def provider_plan(asked: str, available: Sequence[str]) -> List[str]:
    """The providers to try, best first, given ONNX Runtime's own names of those that are built in.

    Raises:
        DeviceError: If the provider asked for is not built in.
    """
    built_in = [name for name, ort_name in _ORT_NAMES.items() if ort_name in available]
    if asked == "auto":
        return [name for name in _AUTO if name in built_in]
    if asked in built_in:
        return [asked]
    there = f"there is: {', '.join(built_in)}"
    raise DeviceError(f"this ONNX Runtime has no {asked} provider; {there}", hint=_install_hint())


def built_for_gpu() -> bool:
    """Whether this ONNX Runtime was built with a provider for a GPU that ``auto`` tries; it may not load here."""
    return provider_plan("auto", require("onnxruntime", extra="runtime").get_available_providers()) != ["cpu"]


def providers_here() -> Tuple[str, str, str]:
    """For ``doctor``: state, what this ONNX Runtime was built with, and the fix."""
    if not available("onnxruntime"):
        return "missing", "not installed", install_line("onnxruntime", "runtime")
    names = require("onnxruntime", extra="runtime").get_available_providers()
    return "ok", ", ".join(name.replace("ExecutionProvider", "") for name in names), ""


def _install_hint() -> str:
    if is_jetson():
        return "on a Jetson: build a TensorRT engine, or --provider cpu"
    return "pip uninstall onnxruntime; pip install 'rtda-deploy[gpu-cu12]'   (or gpu-cu13), or --provider cpu"


class OrtEngine(Engine):
    """A session of ONNX Runtime with its input and output bound to fixed arrays."""

    def __init__(self, session: Any, spec: ModelSpec, *, path: Path, provider: str, threads: int) -> None:
        ort = require("onnxruntime", extra="runtime")
        how = f"ONNX Runtime {ort.__version__} on {provider}, {threads_text(threads)}"
        super().__init__(spec, provider=provider, description=f"{path.name}, {how}")
        sources, targets = session.get_inputs(), session.get_outputs()
        targets = [targets[index] for index in check_graph(self, path.name, _tensors(sources), _tensors(targets))]
        outputs = [np.zeros(target.shape, _DTYPES[target.type]) for target in targets]
        self._result: np.ndarray = self._outputs([target.name for target in targets], outputs)
        self._session: Any = session
        self._binding: Any = session.io_binding()
        self._failures = _ort_errors()
        buffer = self.input_buffer
        self._binding.bind_input(sources[0].name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)
        for target, out in zip(targets, outputs):  # views of ``outputs`` are kept above, and with them the memory
            self._binding.bind_output(target.name, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)

    def _infer(self) -> np.ndarray:
        try:
            self._session.run_with_iobinding(self._binding)
        except self._failures as err:
            raise EngineError(
                f"{self.description}: inference failed",
                why=_first_sentence(err),
                hint="is memory short (free -h)? else try another provider: rtda-deploy doctor lists them",
            ) from err
        return self._result

    def _release(self) -> None:
        self._binding = None
        self._session = None


def _session(ort: Any, path: Path, provider: str, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY if provider == "cpu" else _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    names: List[Union[str, Tuple[str, Dict[str, str]]]] = [_ORT_NAMES[provider]]
    if provider == "tensorrt":
        names = [(_ORT_NAMES[provider], _tensorrt_options()), _ORT_NAMES["cuda"]]
    if provider != "cpu":
        names.append(_ORT_NAMES["cpu"])  # operators that the GPU has no kernel for
    try:
        return ort.InferenceSession(str(path), sess_options=options, providers=names)
    except _ort_errors() as err:
        raise _load_error(path, err) from err


def _tensorrt_options() -> Dict[str, str]:
    """Keep the engines that ONNX Runtime builds, so that only the first start takes minutes; float32 as in the file."""
    folder = str(writable_folder(cache_folder() / "onnxruntime-tensorrt"))
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


def _load_error(path: Path, err: Exception) -> EngineError:
    reason = re.sub(r"^Load model from \S+ (failed:)?", "", _first_sentence(err))
    if "IR version" in reason or "opset" in reason.lower():
        hint = "export it again: rtda-deploy export writes opset 17 and ir_version 8, which old versions read too"
    elif "No Op registered" in str(err):
        hint = "it has an operator that this ONNX Runtime does not know: pip install --upgrade onnxruntime"
    elif "external data" in reason.lower() or ".data" in reason:
        hint = f"copy the weights file that belongs to {path.name} beside it"
    else:
        hint = "was it copied to its end? Compare its size with the original's, or export it again"
    return EngineError(f"{path.name} cannot be loaded as an ONNX model", why=reason, hint=hint)


def _first_sentence(err: Exception) -> str:
    """ONNX Runtime's message without its code and without the folders of whoever built it."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(err).strip())
    text = re.sub(r"\S*/onnxruntime/\S+:\d+ \S.*?\) ", "", text.splitlines()[0] if text else "no reason given")
    return text if len(text) <= 200 else text[:197] + "..."


def _ort_errors() -> Tuple[Type[Exception], ...]:
    """Everything ONNX Runtime raises; its classes have no base of their own."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="runtime")
    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)


def _tensors(nodes: Sequence[Any]) -> List[GraphTensor]:
    return [
        GraphTensor(
            node.name,
            tuple(side if isinstance(side, int) else -1 for side in node.shape),
            _DTYPES.get(node.type, node.type),
        )
        for node in nodes
    ]


def _short_name(ort_name: str) -> str:
    return next((short for short, name in _ORT_NAMES.items() if name == ort_name), ort_name)
