"""``kernels.cu`` compiled by g++: a compiler whose "machine code" names a library of the host, and how to launch it."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest

from rtda_runtime.engines.cuda.compilers import Compiler
from rtda_runtime.engines.cuda.driver import Arguments, argument_pointers
from rtda_runtime.engines.cuda.kernels import SOURCE

_SHIM = Path(__file__).with_name("cuda_on_host.h")
_MARK = b"host:"  # before the path of a library, in the place of machine code
_LAUNCH = """
extern "C" int launch_on_host(const char *name, unsigned gx, unsigned gy, unsigned bx, unsigned by, void **arguments) {
    Index grid = {gx, gy, 1}, block = {bx, by, 1};
    if (!strcmp(name, "prepare_frame")) return host::launch(prepare_frame, grid, block, arguments);
    if (!strcmp(name, "mask_from_logits")) return host::launch(mask_from_logits, grid, block, arguments);
    if (!strcmp(name, "mask_from_mask")) return host::launch(mask_from_mask, grid, block, arguments);
    return 1;
}
"""


def host_compiler() -> Compiler:
    """What stands in for NVRTC; skips the test where there is no g++."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    return Compiler("g++ 1.0", lambda source, capability: _MARK + str(_library(source)).encode())


@functools.lru_cache(maxsize=None)
def _library(source: str) -> Path:
    folder = Path(_folder().name)
    library = folder / f"kernels{len(list(folder.iterdir()))}.so"
    program = f'#include "{_SHIM}"\n#line 1 "{SOURCE}"\n{source}\n{_LAUNCH}'
    command = ["g++", "-x", "c++", "-std=c++17", "-O2"]
    subprocess.run(
        [*command, "-ffp-contract=off", "-shared", "-fPIC", "-o", str(library), "-"],
        input=program.encode(),
        check=True,
    )
    return library


@functools.lru_cache(maxsize=1)
def _folder() -> Any:
    """Removed at the interpreter's end."""
    return tempfile.TemporaryDirectory(prefix="rtda-host-kernels-")


@functools.lru_cache(maxsize=None)
def _open(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


def is_host_image(image: bytes) -> bool:
    """Whether it is what :func:`host_compiler` makes, whole."""
    return image.startswith(_MARK) and Path(image[len(_MARK) :].decode(errors="replace")).is_file()


def start_on_host(image: bytes, name: str, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments) -> None:
    """Run a kernel, with the arguments as the driver is given them."""
    library = _open(image[len(_MARK) :].decode())
    code = library.launch_on_host(name.encode(), *grid, *block, argument_pointers(arguments))
    assert code == 0, f"no kernel {name}"


class HostKernels:
    """``Kernels`` without a GPU, for tests that launch them by hand."""

    def __init__(self) -> None:
        self.image = host_compiler().compile(SOURCE.read_text(encoding="utf-8"), (9, 0))
        self.launches: Dict[str, int] = {}

    def launch(self, name: str, grid: Tuple[int, int], block: Tuple[int, int], arguments: Arguments) -> None:
        self.launches[name] = self.launches.get(name, 0) + 1
        start_on_host(self.image, name, grid, block, arguments)
