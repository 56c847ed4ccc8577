"""The kinds of engine, and opening a model file with the one that runs it.

One row each, which everything that knows an engine by name or suffix reads.

To add one: a module with an :class:`~rtda_runtime.engines.Engine` and its opener, and a call of :func:`register` below;
a program of its own calls it before the first command. ``--help`` reads the rows, so nothing here imports
a library, or a module of ours that it does not need.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Tuple, Union

from rtda_deploy.errors import ConfigError, DeviceError, EngineError
from rtda_deploy.optional import Package
from rtda_runtime.kinds import function_named

if TYPE_CHECKING:
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime.engines.base import Engine

__all__ = [
    "EngineKind",
    "cpu_providers",
    "engine_kinds",
    "kinds_of",
    "libraries",
    "one_of",
    "open_engine",
    "providers",
    "register",
]


class EngineKind(NamedTuple):
    """A library that runs model files.

    Functions are named ``"module:function"``, for :func:`rtda_runtime.kinds.function_named`.

    Attributes:
        name: As people write it, such as ``ONNX Runtime``.
        suffixes: Of the files it runs, in lower case. Files of the first are looked for where no model was named, and
            those of an earlier kind are preferred.
        providers: What ``--provider`` may say for it, beside ``auto``.
        opener: Opens a file; called as ``opener(path, provider=..., spec=..., threads=...)``, errors as of
            :func:`rtda_runtime.open_engine`.
        packages: What it needs, the library itself first; ``doctor`` looks for them, and benchmark records hold the
            version of the first. Empty: it needs no package.
        cpu_providers: Those of ``providers`` that compute on the CPU.
        auto: Opens a file in the place of ``opener`` where the provider is ``auto``.
        describe: Says what ``inspect`` shows of a file of its own: a JSON-ready dict with ``kind`` and ``spec`` (of
            :meth:`ModelSpec.to_dict`), read without running it. Empty: ``inspect`` knows the format, as it does ONNX.
        checks: Further lines of ``doctor``: name, and a function that returns state, detail and fix.
    """

    name: str
    suffixes: Tuple[str, ...]
    providers: Tuple[str, ...]
    opener: str
    packages: Tuple[Package, ...]
    cpu_providers: Tuple[str, ...] = ()
    auto: str = ""
    describe: str = ""
    checks: Tuple[Tuple[str, str], ...] = ()


_ROWS: Dict[str, EngineKind] = {}


def register(kind: EngineKind) -> None:
    """Add a kind of engine, before the first command or file that is to find it.

    Raises:
        ConfigError: If there is one of this name.
    """
    if kind.name in _ROWS:
        raise ConfigError(f"there is an engine kind {kind.name} already", hint="give the new one another name")
    _ROWS[kind.name] = kind


register(
    EngineKind(
        name="TensorRT",
        suffixes=(".engine", ".plan"),
        providers=("tensorrt",),
        opener="rtda_runtime.engines.tensorrt:open_tensorrt",
        packages=(
            Package("tensorrt", "tensorrt-cu12", "building and running engines", ("tensorrt-cu12", "tensorrt-cu13")),
            Package("pycuda", "pycuda", "running engines (or cuda-python)"),
            Package("cuda", "tensorrt-cu12", "running engines: cuda-python (or pycuda)", ("cuda-python",)),
        ),
        describe="rtda_runtime.engines.tensorrt:describe",
    )
)
register(
    EngineKind(
        name="ONNX Runtime",
        suffixes=(".onnx",),
        providers=("cpu", "cuda", "tensorrt"),
        opener="rtda_runtime.engines.onnxruntime:open_onnx",
        packages=(Package("onnxruntime", "runtime", "running an .onnx", ("onnxruntime-gpu",)),),
        cpu_providers=("cpu",),
        auto="rtda_runtime.engines.auto:open_faster",
        checks=(("ONNX Runtime on", "rtda_runtime.engines.onnxruntime:providers_here"),),
    )
)
register(
    EngineKind(
        name="OpenVINO",
        suffixes=(".onnx",),
        providers=("openvino", "openvino-bf16"),
        opener="rtda_runtime.engines.openvino:open_openvino",
        packages=(Package("openvino", "openvino", "a faster CPU engine"),),
        cpu_providers=("openvino", "openvino-bf16"),
    )
)


def engine_kinds() -> Tuple[EngineKind, ...]:
    """All of them, those whose files are preferred first."""
    return tuple(_ROWS.values())


def kinds_of(path: Union[str, Path]) -> List[EngineKind]:
    """Those that run a file, by its suffix."""
    return [kind for kind in engine_kinds() if Path(path).suffix.lower() in kind.suffixes]


def providers() -> Tuple[str, ...]:
    """What ``--provider`` may say."""
    return tuple(dict.fromkeys(["auto", *(name for kind in engine_kinds() for name in kind.providers)]))


def cpu_providers() -> Tuple[str, ...]:
    """Those that compute on the CPU."""
    return tuple(name for kind in engine_kinds() for name in kind.cpu_providers)


def libraries() -> Tuple[str, ...]:
    """The module of each kind's library, where it needs one."""
    return tuple(kind.packages[0].module for kind in engine_kinds() if kind.packages)


def one_of(words: Tuple[str, ...]) -> str:
    """For help texts: ``a, b or c``."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


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
            and OpenVINO, which its first start measures (``RTDA_CONTEST=0``: ONNX Runtime), in bfloat16 where that is
            quicker still and the file's export verified it. Any other runs on that one or fails. ``tensorrt`` for an
            ``.onnx`` is ONNX Runtime's own use of TensorRT, which builds for minutes at its first start.
            ``openvino-bf16`` computes float layers in bfloat16: about twice as fast where the processor has it, with 8
            bits for each value.
        spec: Replaces the spec in the file; needed where the file has none.
        threads: CPU threads for one inference; None: one per core that this process may use.

    Raises:
        FileAccessError: If the file is missing, empty or unreadable.
        SpecError: If neither the file nor the caller has a spec.
        EngineError: If the file is damaged, or does not fit its spec.
        DeviceError: If the provider asked for does not load here, or runs no such file.
        ConfigError: If the provider or the number of threads makes no sense.
    """
    from rtda_deploy.files import readable_file

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
    from rtda_deploy.model_files import is_checkpoint_name

    if is_checkpoint_name(path):
        return f"export it first: rtda-deploy export {path}"
    return f"known suffixes: {', '.join(suffix for kind in engine_kinds() for suffix in kind.suffixes)}"
