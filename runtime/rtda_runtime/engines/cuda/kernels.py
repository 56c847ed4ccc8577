"""The project's own kernels, ``kernels.cu``: compiled on this machine for its GPU, kept on the disk, launched by name.

NVRTC compiles them where cuda-python and its library are there, ``nvcc`` elsewhere (JetPack has it). What was compiled
lies in ``rtda-deploy/kernels`` of the cache folder, under a name that holds the source's hash, the GPU's compute
capability and the compiler's version, so that none of them can be taken for another.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import EngineError, FileAccessError, RtdaError
from rtda_deploy.files import cache_folder, write_bytes
from rtda_deploy.optional import is_jetson
from rtda_runtime.engines.cuda.context import Cuda
from rtda_runtime.engines.cuda.driver import Arguments

__all__ = ["COMPILERS", "SOURCE", "Compiler", "FindCompiler", "Kernels", "NoCompiler", "load_kernels", "nvcc", "nvrtc"]

_log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cu")
_NAMES = ("prepare_frame", "mask_from_logits", "mask_from_mask")
_STANDARD = "--std=c++14"  # NVRTC 11's own is older
_COMPILE_S = 300  # nvcc takes a second on a desktop, ten on a Jetson that is busy
_MOST_REASON = 300  # characters of a compiler's log that are worth a line


class NoCompiler(Exception):
    """A compiler is not here, or does not do it; the message says why."""


class Compiler(NamedTuple):
    """What makes machine code of CUDA C++.

    Attributes:
        name: With its version, such as ``NVRTC 12.9`` or ``nvcc 11.4.315``.
        compile: Source and compute capability to an image for the driver. Raises :class:`NoCompiler`.
    """

    name: str
    compile: Callable[[str, Tuple[int, int]], bytes]


FindCompiler = Callable[[], Compiler]


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
    cuda: Cuda, *, compilers: Optional[Sequence[FindCompiler]] = None, cache: Optional[Path] = None
) -> Kernels:
    """The kernels for this GPU, compiled unless they were before.

    Args:
        compilers: Tried in turn; None: NVRTC, then nvcc.
        cache: Folder to keep what was compiled in; None: the user's.

    Raises:
        EngineError: If nothing here can compile them, with what to install.
    """
    try:
        source = SOURCE.read_text(encoding="utf-8")
    except OSError as err:
        raise EngineError(f"{SOURCE.name} is not in this installation", why=str(err), hint="install it anew") from err
    folder = cache or _cache_folder()
    reasons = []
    for find in COMPILERS if compilers is None else compilers:
        try:
            compiler = find()
            return _kept(cuda, compiler, source, folder) or _compiled(cuda, compiler, source, folder)
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


# --- NVRTC ---------------------------------------------------------------------------------------------------------


def nvrtc(api: Any = None) -> Compiler:
    """NVRTC through cuda-python.

    Args:
        api: Its module; None: ``cuda.bindings.nvrtc``, or ``cuda.nvrtc`` of cuda-python before 12.6.

    Raises:
        NoCompiler: If cuda-python or the library behind it is not there.
    """
    module = api or _nvrtc_module()
    major, minor = _nvrtc_call(module, "nvrtcVersion")
    return Compiler(f"NVRTC {major}.{minor}", lambda source, capability: _nvrtc_compile(module, source, capability))


def _nvrtc_module() -> Any:
    for name in ("cuda.bindings.nvrtc", "cuda.nvrtc"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise NoCompiler("NVRTC: cuda-python is not installed")


def _nvrtc_compile(api: Any, source: str, capability: Tuple[int, int]) -> bytes:
    here = capability[0] * 10 + capability[1]
    known = [int(one) for one in _nvrtc_call(api, "nvrtcGetSupportedArchs")]
    newest = max(known)
    # A GPU newer than the compiler takes the newest intermediate code and the driver compiles that.
    kind = f"sm_{here}" if here in known else f"compute_{newest}"
    if here not in known and here < newest:
        raise NoCompiler(f"NVRTC no longer compiles for compute capability {capability[0]}.{capability[1]}")
    program = _nvrtc_call(api, "nvrtcCreateProgram", source.encode(), b"kernels.cu", 0, [], [])
    try:
        try:
            options = [f"--gpu-architecture={kind}".encode(), _STANDARD.encode()]
            _nvrtc_call(api, "nvrtcCompileProgram", program, len(options), options)
        except NoCompiler as err:
            log = b" " * int(_nvrtc_call(api, "nvrtcGetProgramLogSize", program))
            _nvrtc_call(api, "nvrtcGetProgramLog", program, log)
            raise NoCompiler(f"{err}: {_shortened(log.decode(errors='replace'))}") from err
        what = "CUBIN" if kind.startswith("sm_") else "PTX"
        image = b" " * int(_nvrtc_call(api, f"nvrtcGet{what}Size", program))
        _nvrtc_call(api, f"nvrtcGet{what}", program, image)
        return image
    finally:
        _nvrtc_call(api, "nvrtcDestroyProgram", program)


def _nvrtc_call(api: Any, function: str, *arguments: Any) -> Any:
    try:
        code, *results = getattr(api, function)(*arguments)
    except (AttributeError, RuntimeError) as err:  # the library cannot be loaded, or is too old to have the function
        raise NoCompiler(f"NVRTC: {str(err).splitlines()[0]}") from err
    if int(code):
        raise NoCompiler(f"NVRTC failed in {function}: {getattr(code, 'name', code)}")
    return results[0] if len(results) == 1 else tuple(results)


# --- nvcc ----------------------------------------------------------------------------------------------------------


def nvcc(path: Optional[str] = None) -> Compiler:
    """The command ``nvcc``.

    Args:
        path: None: of the PATH, of ``$CUDA_HOME`` or ``$CUDA_PATH``, of ``/usr/local/cuda``.

    Raises:
        NoCompiler: If it is not there or does not run.
    """
    command = path or _find_nvcc()
    if command is None:
        raise NoCompiler("nvcc: not found on the PATH or in /usr/local/cuda")
    said = _run(command, "--version")
    version = re.search(r"\bV(\d+(?:\.\d+)+)", said)
    if version is None:
        raise NoCompiler(f"nvcc: {command} does not say which version it is: {_shortened(said)}")
    return Compiler(f"nvcc {version[1]}", lambda source, capability: _nvcc_compile(command, source, capability))


def _find_nvcc() -> Optional[str]:
    folders = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    beside = os.pathsep.join(os.path.join(folder, "bin") for folder in (*folders, "/usr/local/cuda"))
    return shutil.which("nvcc") or shutil.which("nvcc", path=beside)


def _nvcc_compile(command: str, source: str, capability: Tuple[int, int]) -> bytes:
    try:
        with tempfile.TemporaryDirectory(prefix="rtda-kernels-") as folder:
            code, image = Path(folder, "kernels.cu"), Path(folder, "kernels.cubin")
            code.write_text(source, encoding="utf-8")
            arch = f"-arch=sm_{capability[0]}{capability[1]}"
            _run(command, "-cubin", arch, "-o", str(image), str(code), _STANDARD)
            return image.read_bytes()
    except OSError as err:  # a full disk
        raise NoCompiler(f"nvcc: {err}") from err


def _run(command: str, *arguments: str) -> str:
    """What a command prints.

    Raises:
        NoCompiler: If it fails or does not end.
    """
    try:
        done = subprocess.run(
            [command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_COMPILE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise NoCompiler(f"nvcc: {err}") from err
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        raise NoCompiler(f"nvcc: {_shortened(said) or f'exit code {done.returncode}'}")
    return said


def _shortened(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())[:_MOST_REASON]


COMPILERS: Tuple[FindCompiler, ...] = (nvrtc, nvcc)
