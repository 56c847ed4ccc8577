"""Engines: one function opens any file the runtime can run; the suffix says which engine reads it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Callable, Dict, Optional, Union

from rtda_deploy.errors import ConfigError, EngineError
from rtda_deploy.files import readable_file
from rtda_deploy.model_files import is_checkpoint_name
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine

__all__ = ["PROVIDERS", "Engine", "open_engine"]

PROVIDERS = ("auto", "cpu", "cuda", "tensorrt", "openvino", "openvino-bf16")

# "module:function" per suffix, imported when a file of that kind is opened.
_OPENERS: Dict[str, str] = {
    ".onnx": "rtda_runtime.engines.onnxruntime:open_onnx",
    ".engine": "rtda_runtime.engines.tensorrt:open_tensorrt",
    ".plan": "rtda_runtime.engines.tensorrt:open_tensorrt",
}
# For an .onnx, what a provider opens with in the place of that.
_ONNX_OPENERS: Dict[str, str] = {
    "auto": "rtda_runtime.engines.contest:open_quickest",
    "openvino": "rtda_runtime.engines.openvino:open_openvino",
    "openvino-bf16": "rtda_runtime.engines.openvino:open_openvino",
}


def open_engine(
    path: Union[str, Path],
    provider: str = "auto",
    *,
    spec: Optional[ModelSpec] = None,
    threads: Optional[int] = None,
) -> Engine:
    """Open a model file for running.

    Args:
        path: ``.onnx`` file, or a TensorRT ``.engine`` or ``.plan`` with its ``.json`` beside it.
        provider: ``auto`` takes the best that loads here: for an ``.onnx`` without a GPU the quicker of ONNX Runtime
            and OpenVINO, which its first start measures (``RTDA_CONTEST=0``: ONNX Runtime). Any other runs on that
            one or fails. ``tensorrt`` for an ``.onnx`` is ONNX Runtime's own use of TensorRT, which builds for minutes
            at its first start. ``openvino-bf16`` computes float layers in bfloat16: about twice as fast where the
            processor has it, with 8 bits for each value.
        spec: Replaces the spec in the file; needed where the file has none.
        threads: CPU threads for one inference; None: one per core that this process may use.

    Raises:
        FileAccessError: If the file is missing, empty or unreadable.
        SpecError: If neither the file nor the caller has a spec.
        EngineError: If the file is damaged, or does not fit its spec.
        DeviceError: If the provider asked for does not load here.
        ConfigError: If the provider or the number of threads makes no sense.
    """
    if provider not in PROVIDERS:
        raise ConfigError(f"unknown provider {provider!r}", hint=f"known: {', '.join(PROVIDERS)}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}", hint="leave it out for one per core")
    suffix = Path(path).suffix.lower()
    opener = _ONNX_OPENERS.get(provider, _OPENERS[suffix]) if suffix == ".onnx" else _OPENERS.get(suffix)
    if opener is None and Path(path).exists():
        raise EngineError(f"{path} is no model that runs here", hint=_other_kind_hint(Path(path)))
    file = readable_file(path, what="model")
    module, _, function = str(opener).partition(":")
    open_file: Callable[..., Engine] = getattr(importlib.import_module(module), function)
    return open_file(file, provider=provider, spec=spec, threads=threads)


def _other_kind_hint(path: Path) -> str:
    if is_checkpoint_name(path):
        return f"export it first: rtda-deploy export {path}"
    return f"known suffixes: {', '.join(_OPENERS)}"
