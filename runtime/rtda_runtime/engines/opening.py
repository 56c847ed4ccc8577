"""Opening a model file with the engine that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Union

from rtda_deploy.errors import ConfigError, DeviceError, EngineError
from rtda_deploy.files import readable_file
from rtda_deploy.model_files import is_checkpoint_name
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine
from rtda_runtime.engines.kinds import engine_kinds, kinds_of, providers
from rtda_runtime.kinds import function_named

__all__ = ["open_engine"]


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
        DeviceError: If the provider asked for does not load here, or runs no such file.
        ConfigError: If the provider or the number of threads makes no sense.
    """
    if provider not in providers():
        raise ConfigError(f"unknown provider {provider!r}", hint=f"known: {', '.join(providers())}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}", hint="leave it out for one per core")
    kinds = kinds_of(path)
    if not kinds and Path(path).exists():
        raise EngineError(f"{path} is no model that runs here", hint=_other_file_hint(Path(path)))
    file = readable_file(path, what="model")
    kind = next((kind for kind in kinds if provider in ("auto", *kind.providers)), None)
    if kind is None:
        takes = "; ".join(f"{kind.name} takes {', '.join(kind.providers)}" for kind in kinds)
        raise DeviceError(
            f"{file.name} does not run on provider {provider}",
            why=takes,
            hint="leave --provider out, or run its .onnx",
        )
    opener = kind.auto if provider == "auto" and kind.auto else kind.opener
    engine: Engine = function_named(opener)(file, provider=provider, spec=spec, threads=threads)
    return engine


def _other_file_hint(path: Path) -> str:
    if is_checkpoint_name(path):
        return f"export it first: rtda-deploy export {path}"
    return f"known suffixes: {', '.join(suffix for kind in engine_kinds() for suffix in kind.suffixes)}"
