"""Where an engine stands, and whether the one that stands there is the one that would be built."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Union

from rtda_deploy.engine_file import EngineBuild, EngineSidecar, check_whole, read_sidecar
from rtda_deploy.errors import RtdaError
from rtda_export.tensorrt.dialects import engine_stem

__all__ = ["cached_engine", "engine_path"]


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
