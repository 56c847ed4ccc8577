"""The seam to CUDA: its logic on a driver made of NumPy, and the real bindings on a ``libcuda.so.1`` made of C."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Set

import numpy as np
import pytest
from runtime.fake_gpu import FakeGpu

from rtda_deploy.errors import ConfigError, DeviceError, EngineError, MissingPackageError
from rtda_runtime.engines.cuda.context import BINDINGS, open_cuda
from rtda_runtime.engines.cuda.cuda_python import CudaPython
from rtda_runtime.engines.cuda.driver import cuda_error

_HERE = Path(__file__).parent.parent
_NAMES = {"pycuda": "PyCUDA", "cuda": "cuda-python"}

# What the runtime does with a GPU, from opening to the last array, with every result asserted.
_PROGRAM = """
import ctypes, gc, sys, threading
import numpy as np
from rtda_deploy.errors import EngineError
from rtda_runtime.engines.cuda.context import BINDINGS, open_cuda
chosen = [binding for binding in BINDINGS if binding[0] == sys.argv[1]]
cuda = open_cuda(bindings=chosen)
library = ctypes.CDLL("libcuda.so.1")
assert cuda.binding.startswith(sys.argv[2]), cuda.binding
assert (cuda.device_name, cuda.compute_capability, cuda.integrated) == ("Fake GPU of C", (9, 0), False)
assert cuda.total_memory == 1 << 30 and cuda.memory_used() == (1 << 30) - (1 << 20)
source, target = cuda.pinned((4, 5), np.float32), cuda.pinned((4, 5), np.float32, mapped=True)
assert (source.array == 0).all() and source.array.flags.writeable and source.array.flags.c_contiguous
assert source.address == 0 and target.address == target.array.ctypes.data
source.array[:] = np.arange(20).reshape(4, 5)
with cuda.current():
    memory = cuda.allocate(source.array.nbytes)
    def there_and_back():
        cuda.to_device(memory, source.array)
        cuda.to_host(target.array, memory)
    there_and_back()
    cuda.synchronize()
    assert (target.array == source.array).all()
    target.array[:] = 0
    graph = cuda.capture(there_and_back)
    assert (target.array == 0).all()
    cuda.launch(graph)
    cuda.synchronize()
    assert (target.array == source.array).all()
    module = cuda.load(b"fake kernels")
    fill = cuda.function(module, "fill")
    def filled():
        words = [ctypes.c_void_p(memory), ctypes.c_int(5), ctypes.c_int(24)]
        cuda.start(fill, (2, 3), (4, 1), words)
        cuda.to_host(target.array, memory)
    filled()
    cuda.synchronize()
    assert target.array.view(np.uint8).reshape(-1)[:25].tolist() == [5] * 24 + [source.array.view(np.uint8)[1, 4]]
    target.array[:] = 0
    graph = cuda.capture(filled)
    assert (target.array == 0).all()
    cuda.launch(graph)
    cuda.synchronize()
    assert (target.array.view(np.uint8).reshape(-1)[:24] == 5).all()
    cuda.destroy_graph(graph)
    cuda.free(cuda.allocate(100))
    for wrong in (lambda: cuda.load(b"no kernels"), lambda: cuda.function(module, "empty")):
        try:
            wrong()
        except EngineError as err:
            assert "CUDA failed in cuModule" in err.message
        else:
            raise AssertionError("there is no such thing")
    assert cuda.times_ms(there_and_back, there_and_back) == [2.5, 2.5]
    try:
        cuda.allocate(1 << 34)
    except EngineError as err:
        assert "CUDA_ERROR_OUT_OF_MEMORY" in err.why and "nvidia-smi" in err.hint
    else:
        raise AssertionError("16 GiB were had")
assert library.fake_depth() == 0
def in_another_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
in_another_thread(cuda.close)
cuda.close()
assert library.fake_live() == 2, library.fake_live()  # the two pinned arrays
assert source.array[1, 1] == 6
def drop():
    global source, target
    del source, target
in_another_thread(drop)
gc.collect()
assert library.fake_live() == 0 and library.fake_depth() == 0
assert library.fake_retained() == (1 if sys.argv[1] == "pycuda" else 0)
left_open = open_cuda(bindings=chosen)  # the interpreter ends with it
kept = left_open.pinned((3,), np.uint8)
print("done")
"""


@pytest.fixture(scope="module")
def fake_libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``libcuda.so.1``."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("libcuda") / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", f"-Wl,-soname,{library.name}", "-o", str(library)]
    source = str(_HERE / "fake_libcuda.c")
    subprocess.run([*command, source, "-ldl"], check=True)
    missing = _symbols_of_pycuda() - _symbols(library, "--defined-only")
    if missing:  # PyCUDA is linked to all of the driver; what is not asked for answers 801 (not supported)
        rest = library.with_name("rest.c")
        rest.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(missing)))
        subprocess.run([*command, source, str(rest), "-ldl"], check=True)
    return library.parent


def _symbols_of_pycuda() -> Set[str]:
    found = importlib.util.find_spec("pycuda")
    folders = [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []
    return {
        name for folder in folders for file in folder.glob("_driver*.so") for name in _symbols(file, "--undefined-only")
    }


def _symbols(library: Path, which: str) -> Set[str]:
    done = subprocess.run(["nm", "-D", which, str(library)], capture_output=True, text=True)
    names = (line.split()[-1] for line in done.stdout.splitlines() if line.strip())
    return {name for name in names if re.match(r"cu[A-Z]\w+$", name)}


def _run(package: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{_NAMES[package]} is not installed")
    command = [sys.executable, "-W", "error", "-c", _PROGRAM, package, _NAMES[package]]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize("package", _NAMES)
def test_the_real_binding_does_all_that_is_asked_of_it(fake_libcuda: Path, package: str) -> None:
    done = _run(package, LD_LIBRARY_PATH=str(fake_libcuda))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("package", _NAMES)
def test_the_real_binding_without_a_gpu_says_so(fake_libcuda: Path, package: str) -> None:
    done = _run(package, LD_LIBRARY_PATH=str(fake_libcuda), FAKE_CUDA_INIT="100")
    assert "DeviceError: CUDA failed in cuInit" in done.stderr


@pytest.mark.parametrize("package", _NAMES)
def test_the_real_binding_without_a_driver_says_so(package: str) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a driver here")
    done = _run(package)
    assert "DeviceError: no NVIDIA driver was found" in done.stderr


class _Api11:
    """What recording ends with in cuda-python 11, whose ``cuGraphInstantiate`` wants a buffer for a log."""

    class CUresult:
        CUDA_SUCCESS = 0

    def cuStreamEndCapture(self, stream: Any) -> Any:
        return 0, "graph"

    def cuGraphInstantiate(self, graph: Any, log: bytes, size: int) -> Any:
        raise AssertionError("without flags")

    def cuGraphInstantiateWithFlags(self, graph: Any, flags: int) -> Any:
        return 0, "ready"

    def cuGraphDestroy(self, graph: Any) -> Any:
        return (0,)


def test_cuda_python_11_ends_a_recording_by_another_name() -> None:
    assert CudaPython(_Api11()).end_capture("stream") == "ready"


def test_without_either_binding_the_install_line_is_given() -> None:
    with pytest.raises(MissingPackageError, match="neither PyCUDA nor cuda-python") as caught:
        open_cuda(bindings=[("no_such_binding", "", "")])
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize(
    ("found", "raised"),
    [
        ("libcuda.so.1: cannot open shared object file: No such file or directory", DeviceError),
        ("libcurand.so.10: cannot open shared object file", MissingPackageError),
    ],
)
def test_a_pycuda_that_does_not_load_gives_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: str, raised: Any
) -> None:
    package = tmp_path / "pycuda"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "driver.py").write_text(f"raise ImportError({found!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycuda"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(raised) as caught:
        open_cuda(bindings=BINDINGS[:1])
    assert found.split(":")[0] in caught.value.why
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycuda"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_call_without_the_context_pushed_is_an_error() -> None:
    cuda = open_cuda(driver=FakeGpu())
    with pytest.raises(EngineError) as caught:
        cuda.allocate(16)
    assert "CUDA_ERROR_INVALID_CONTEXT" in caught.value.why
    cuda.close()


def test_the_callers_context_comes_back_whatever_happens_within() -> None:
    gpu = FakeGpu()
    cuda = open_cuda(driver=gpu)
    gpu.push("primary")  # as torch would have it
    with pytest.raises(ZeroDivisionError), cuda.current():
        assert gpu.pushed == 2
        raise ZeroDivisionError
    assert gpu.pushed == 1
    cuda.close()
    assert gpu.pushed == 1


def test_closed_is_closed() -> None:
    cuda = open_cuda(driver=FakeGpu())
    cuda.close()
    cuda.close()
    uses: Dict[str, Any] = {
        "memory_used": cuda.memory_used,
        "pinned": lambda: cuda.pinned((1,), np.uint8),
        "current": lambda: cuda.current().__enter__(),
    }
    for use in uses.values():
        with pytest.raises(EngineError, match="is closed"):
            use()


def test_pinned_memory_is_given_back_once_with_its_last_view() -> None:
    gpu = FakeGpu()
    cuda = open_cuda(driver=gpu)
    array = cuda.pinned((2, 3), np.float32).array
    view = array[1:].T
    del array
    cuda.close()
    gc.collect()
    assert gpu.diary.count("free_pinned") == 0 and gpu.retained == 1
    view[:] = 1.0
    del view
    gc.collect()
    assert gpu.diary.count("free_pinned") == 1 and gpu.retained == 0


@pytest.mark.parametrize("count", [0, 1])
def test_a_gpu_that_is_not_there_is_refused(count: int) -> None:
    with pytest.raises(ConfigError if count else DeviceError):
        open_cuda(3, driver=FakeGpu(count=count))


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [("CUDA_ERROR_NO_DEVICE", DeviceError, 3), ("CUDA_ERROR_ILLEGAL_ADDRESS", EngineError, 1)],
)
def test_an_error_is_about_the_machine_or_about_the_work(name: str, kind: Any, code: int) -> None:
    error = cuda_error("cuSomething", name, "some words")
    assert type(error) is kind and error.exit_code == code
    assert error.why == f"{name}: some words" and error.hint
