"""The project's own kernels, ``kernels.cu``: compiled on this machine for its GPU, cached on disk, launched by name.

Binaries are cached in ``rtda-deploy/kernels`` of the cache folder, under a name made of the source's hash, the GPU's
compute capability and the compiler's version.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

from rtda_deploy.errors import EngineError, FileAccessError, RtdaError
from rtda_deploy.files import cache_folder, write_bytes
from rtda_deploy.optional import is_jetson
from rtda_runtime.engines.cuda.compilers import COMPILERS, Compiler, FindCompiler, NoCompiler
from rtda_runtime.engines.cuda.context import Cuda
from rtda_runtime.engines.cuda.driver import Arguments

__all__ = ["SOURCE", "Kernels", "load_kernels"]

_log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cu")
_NAMES = ("prepare_frame", "mask_from_logits", "mask_from_mask")


class Kernels:
    """The kernels on one GPU. Called within ``with cuda.current():``."""

    def __init__(self, cuda: Cuda, image: bytes) -> None:
        self._cuda = cuda
        with cuda.current():
            module = cuda.load(image)
            self._functions: Dict[str, Any] = {name: cuda.function(module, name) for name in _NAMES}

    def launch(self, name: str, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments) -> None:
        """Give a kernel to the stream: ``grid`` blocks of ``block`` threads, across and down."""
        self._cuda.start(self._functions[name], grid, block, arguments)


def load_kernels(
    cuda: Cuda,
    *,
    compilers: Optional[Sequence[FindCompiler]] = None,
    cache: Optional[Path] = None,
    source: Path = SOURCE,
) -> Kernels:
    """The kernels for this GPU, compiled unless they were before.

    Args:
        compilers: Tried in turn; None: NVRTC, then nvcc.
        cache: Folder to keep what was compiled in; None: the user's.
        source: CUDA C++ of the kernels.

    Raises:
        EngineError: If nothing here can compile them, with what to install.
    """
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as err:
        raise EngineError(f"{source.name} is not in this installation", why=str(err), hint="install it anew") from err
    folder = cache or _cache_folder()
    reasons = []
    for find in COMPILERS if compilers is None else compilers:
        try:
            compiler = find()
            return _kept(cuda, compiler, text, folder) or _compiled(cuda, compiler, text, folder)
        except NoCompiler as err:
            reasons.append(str(err))
        except RtdaError as err:  # the driver's
            reasons.append(f"{compiler.name}: {err.message} ({err.why})")
    raise EngineError(f"nothing here compiles kernels for {cuda.device_name}", why="; ".join(reasons), hint=_hint())


def _kept(cuda: Cuda, compiler: Compiler, source: str, folder: Optional[Path]) -> Optional[Kernels]:
    if folder is None:
        return None
    path = _cache_path(cuda, compiler, source, folder)
    try:
        return Kernels(cuda, path.read_bytes())
    except OSError:
        return None
    except RtdaError as err:
        _log.info("%s is compiled again: %s (%s)", path, err.message, err.why)
        return None


def _compiled(cuda: Cuda, compiler: Compiler, source: str, folder: Optional[Path]) -> Kernels:
    image = compiler.compile(source, cuda.compute_capability)
    kernels = Kernels(cuda, image)
    if folder is None:
        return kernels
    try:
        write_bytes(_cache_path(cuda, compiler, source, folder), image)
    except FileAccessError as err:
        _log.info("kernels are compiled anew at every start: %s", err.message)
    return kernels


def _cache_path(cuda: Cuda, compiler: Compiler, source: str, folder: Path) -> Path:
    major, minor = cuda.compute_capability
    by = re.sub(r"[^a-z0-9.]+", "-", compiler.name.lower())
    return folder / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}-sm{major}{minor}-{by}.bin"


def _cache_folder() -> Optional[Path]:
    """None for a user without a home."""
    try:
        return cache_folder() / "kernels"
    except RuntimeError:
        return None


def _hint() -> str:
    if is_jetson():
        return "sudo apt-get install cuda-nvcc-11-4   (JetPack 5; on 6: cuda-nvcc-12-6)"
    return "pip install nvidia-cuda-nvrtc-cu12   (CUDA 13: nvidia-cuda-nvrtc), or put nvcc on the PATH"
