"""Compilers of CUDA C++ on this machine: NVRTC through cuda-python, or the command ``nvcc``, which JetPack has."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Tuple

__all__ = ["COMPILERS", "Compiler", "FindCompiler", "NoCompiler", "nvcc", "nvrtc"]

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
