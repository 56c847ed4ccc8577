"""What is kept between builds: the engine, used again if it is the one that would be built; and the timing cache.

The timing cache is what TensorRT measured of single kernels, one file per TensorRT version and GPU in the user's cache
folder. It makes the next build quicker and nothing else, so one that cannot be read or written is said and passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List, Optional, Union

from rtda_deploy.engine_file import EngineBuild, EngineSidecar, Machine, check_whole, read_sidecar
from rtda_deploy.errors import FileAccessError, RtdaError
from rtda_deploy.files import cache_folder, writable_folder, write_bytes
from rtda_export.tensorrt.dialects import engine_stem

__all__ = ["cached_engine", "engine_path", "load_timing_cache", "save_timing_cache", "timing_cache_path"]


def engine_path(onnx: Union[str, Path], precision: str, dla_core: Optional[int] = None) -> Path:
    """``best.onnx`` or ``best.fp16.onnx`` -> ``best.fp16.engine``, beside it; for a DLA ``best.fp16.dla0.engine``."""
    device = "" if dla_core is None else f".dla{dla_core}"
    return Path(onnx).with_name(f"{engine_stem(onnx)}.{precision}{device}.engine")


def cached_engine(path: Path, wanted: EngineBuild) -> Optional[EngineSidecar]:
    """The sidecar of the engine at ``path`` if it was built exactly as ``wanted`` says and is whole; else None.

    The key: the ONNX file's sha256, TensorRT's version, the GPU's name and compute capability, precision, size, DLA,
    layers kept in FP32, workspace, tactic sources, optimization level.
    """
    if not path.is_file():
        return None
    try:
        sidecar = read_sidecar(path)
        if not sidecar.built.same_engine(wanted):
            return None
        check_whole(path, sidecar)
    except RtdaError:  # missing, broken, of a newer format, or not this engine's: build it again
        return None
    return sidecar


def timing_cache_path(asked: Optional[Union[str, Path]], machine: Machine) -> Optional[Path]:
    """The file to use; None: none is wanted.

    Args:
        asked: A path; None: the user's own, by TensorRT version and GPU; empty: none.
        machine: Where the build runs.

    Raises:
        FileAccessError: If a path was given whose folder cannot be written to.
    """
    if asked is not None and not str(asked):
        return None
    if asked is not None:
        writable_folder(Path(asked).parent)
        return Path(asked)
    major, minor = machine.compute_capability
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{machine.tensorrt}-{machine.gpu}-sm{major}{minor}")
    return cache_folder() / "tensorrt" / f"{name}.timing"


def load_timing_cache(config: Any, path: Path, notes: List[str]) -> Any:
    """Give a builder's config what ``path`` holds, or an empty cache; a file it does not take is noted.

    Returns:
        The cache, to be held until the engine is built: TensorRT does not own it.
    """
    content = b""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as err:
        notes.append(f"timing cache {path} not read: {err.strerror or err}")
    cache = _attached(config, content)
    if cache is None and content:
        notes.append(f"timing cache {path} is not for this TensorRT and GPU, or damaged: begun anew")
        cache = _attached(config, b"")
    return cache


def save_timing_cache(config: Any, path: Path, notes: List[str]) -> None:
    """Keep what a build measured."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        write_bytes(path, bytes(cache.serialize()))
    except FileAccessError as err:
        notes.append(f"timing cache not kept: {err.message}")


def _attached(config: Any, content: bytes) -> Any:
    """A cache that ``config`` took, or None."""
    try:
        cache = config.create_timing_cache(content)
    except (RuntimeError, TypeError, ValueError):  # what pybind11 makes of a refusal differs by version
        return None
    return cache if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False) else None
