"""OpenVINO: runs an ``.onnx`` file on the CPU, in the precision it was asked for and no other."""

from __future__ import annotations

import functools
import re
import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from rtda_deploy.errors import DeviceError, EngineError
from rtda_deploy.onnx_file import precision_from_metadata, read_onnx_metadata, spec_from_metadata
from rtda_deploy.optional import Package, require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine, GraphTensor, check_graph
from rtda_runtime.engines.trial import told
from rtda_runtime.machine.cores import threads_text, usable_cores

__all__ = ["OpenvinoEngine", "computes_in_bf16", "installed_version", "open_openvino", "openvino_core"]

# Left to itself OpenVINO computes float32 files in bfloat16 wherever the processor can: a silent change of precision.
# INT8 models (Q/DQ) run in INT8 with either; the precision is that of their float layers.
_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}

_ONE_AT_A_TIME = threading.Lock()  # lru_cache alone would let two threads make a core each

_DTYPES = {"f32": "float32", "u8": "uint8", "i32": "int32", "i64": "int64"}


def open_openvino(
    path: Path,
    *,
    provider: str = "openvino",
    spec: Optional[ModelSpec] = None,
    threads: Optional[int] = None,
    core: Any = None,
    profile: bool = False,
) -> OpenvinoEngine:
    """Open an ``.onnx`` file; arguments and errors as in :func:`rtda_runtime.open_engine`.

    Args:
        provider: ``openvino``, or ``openvino-bf16`` for that precision.
        core: An ``openvino.Core``; None: :func:`openvino_core`.
        profile: Whether each layer is timed, for :meth:`OpenvinoEngine.profile`; it costs a little.

    Raises:
        DeviceError: If the processor does not compute in bfloat16.
        MissingPackageError: If OpenVINO is not installed.
    """
    precision = "bf16" if provider == "openvino-bf16" else "fp32"
    core = core or openvino_core()
    if precision == "bf16" and not computes_in_bf16(core):
        raise DeviceError(
            "this processor does not compute in bfloat16",
            why=f"OpenVINO says it can: {', '.join(core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))}",
            hint="run it in float32: --provider openvino",
        )
    metadata = read_onnx_metadata(path)  # OpenVINO gives none; and a file that is cut off is told from a foreign one
    _refuse_fatal(metadata, path.name)
    contract = spec or spec_from_metadata(metadata, path.name)
    model, count = _read(core, path), threads or usable_cores()
    return OpenvinoEngine(core, model, contract, path=path, threads=count, precision=precision, profile=profile)


def _refuse_fatal(metadata: Mapping[str, str], name: str) -> None:
    """Refuse a file of which its export found that this very version does not survive it."""
    found = told(precision_from_metadata(metadata), "openvino")
    if found is not None and found.fatal and found.version == installed_version():
        raise EngineError(
            f"OpenVINO {found.version} cannot take {name}",
            why=f"when it was exported, {found.error}",
            hint="run it with --provider cpu",
        )


def computes_in_bf16(core: Any = None) -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor.

    Args:
        core: An ``openvino.Core``; None: :func:`openvino_core`.

    Raises:
        MissingPackageError: If OpenVINO is not installed.
    """
    return "BF16" in (core or openvino_core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def installed_version() -> str:
    """Of OpenVINO; empty where pip did not install it."""
    return Package("openvino", "openvino", "").version() or ""


def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, never given back.

    With the last of them OpenVINO 2026.4 unloads its CPU plugin, which then frees the signal stack that it gave to the
    thread it was loaded in, and takes it from the thread that unloads it. Where that is another one, the first keeps a
    stack of freed memory, and its next signal (Ctrl-C, a child that ends) overwrites what is there now or kills the
    process. A network closed by the thread that ran it was enough.

    Raises:
        MissingPackageError: If OpenVINO is not installed.
    """
    with _ONE_AT_A_TIME:
        return _core()


@functools.lru_cache(maxsize=1)
def _core() -> Any:
    return require("openvino", extra="openvino", purpose="to run .onnx files with it").Core()


class OpenvinoEngine(Engine):
    """One compiled model and one infer request of OpenVINO, whose tensors are fixed arrays of ours."""

    def __init__(
        self,
        core: Any,
        model: Any,
        spec: ModelSpec,
        *,
        path: Path,
        threads: int,
        precision: str,
        profile: bool = False,
    ) -> None:
        ov = require("openvino", extra="openvino")
        version = ov.__version__.partition("-")[0]
        how = f"OpenVINO {version} on cpu in {_computed_in(model, precision)}, {threads_text(threads)}"
        provider = "openvino-bf16" if precision == "bf16" else "openvino"
        super().__init__(spec, provider=provider, description=f"{path.name}, {how}")
        targets = check_graph(self, path.name, _tensors(model.inputs), _tensors(model.outputs))
        try:
            compiled = core.compile_model(model, "CPU", {**_settings(precision, threads), "PERF_COUNT": profile})
            self._request: Any = compiled.create_infer_request()
        except RuntimeError as err:
            raise EngineError(
                f"OpenVINO {version} cannot run {path.name}", why=_reason(err), hint="run it with --provider cpu"
            ) from err
        self._request.set_input_tensor(0, ov.Tensor(self.input_buffer, shared_memory=True))
        outputs = []
        for index in targets:
            port = model.outputs[index]
            outputs.append(np.zeros(tuple(port.shape), _DTYPES[_type_name(port)]))
            self._request.set_output_tensor(index, ov.Tensor(outputs[-1], shared_memory=True))
        names = [model.outputs[index].get_any_name() for index in targets]
        self._result: np.ndarray = self._outputs(names, outputs)

    def _infer(self) -> np.ndarray:
        try:
            self._request.infer()
        except RuntimeError as err:
            raise EngineError(
                f"{self.description}: inference failed",
                why=_reason(err),
                hint="run it with --provider cpu, or with fewer threads where memory is short (free -h)",
            ) from err
        return self._result

    def profile(self) -> List[Any]:
        """OpenVINO's own entry of each layer in the last inference; empty without ``profile``."""
        return list(self._request.profiling_info)

    def _release(self) -> None:
        self._request = None


def _settings(precision: str, threads: int) -> Dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,  # all threads work on the one frame there is
        "INFERENCE_NUM_THREADS": threads,
        # A thread bound to a core waits there for whoever has it, beside free cores; and fewer threads than cores would
        # be bound to the first of them, those of every other engine too.
        "ENABLE_CPU_PINNING": False,
    }


def _computed_in(model: Any, precision: str) -> str:
    if all(node.get_type_name() != "FakeQuantize" for node in model.get_ops()):  # what Q/DQ nodes are read as
        return precision
    return "int8" if precision == "fp32" else f"int8 and {precision}"


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(str(path))
    except RuntimeError as err:
        raise EngineError(
            f"{path.name} cannot be loaded as an ONNX model",
            why=_reason(err),
            hint="run it with --provider cpu: ONNX Runtime says what is wrong with it",
        ) from err


def _tensors(ports: Sequence[Any]) -> List[GraphTensor]:
    return [
        GraphTensor(
            port.get_any_name(),
            tuple(-1 if side.is_dynamic else side.get_length() for side in port.partial_shape),
            _DTYPES.get(_type_name(port), _type_name(port)),
        )
        for port in ports
    ]


def _type_name(port: Any) -> str:
    return str(port.get_element_type().to_string())


def _reason(err: Exception) -> str:
    """The last line of OpenVINO's message that is no place in its source, at most 200 characters."""
    lines = [line.strip() for line in str(err).splitlines()]
    said = [line for line in lines if line and not re.match(r"(Exception from|Check .* failed at) \S+:\d+", line)]
    text = said[-1] if said else (lines[0] if lines else "no reason given")
    return text if len(text) <= 200 else text[:197] + "..."
