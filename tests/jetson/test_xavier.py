"""What a Jetson Xavier has: Python 3.8, numpy 1.24, the real TensorRT 8.5.2.2. Run by ``make test-jetson``."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

if not os.environ.get("RTDA_TEST_JETSON"):
    pytest.skip("needs Python 3.8 with TensorRT 8.5.2.2: make test-jetson", allow_module_level=True)

from export.tensorrt_names import USED

from export import tensorrt_standins as standins
from rtda_deploy.errors import DeviceError, MissingPackageError, RtdaError
from rtda_export.tensorrt import engine_from_onnx, this_machine
from rtda_export.tensorrt.dialects import dialect_of
from rtda_export.tensorrt.library import load_tensorrt, new_builder
from rtda_export.tensorrt.progress import Watch, monitor_for
from rtda_export.tensorrt.settings import BuildSettings, check_settings

ROOT = Path(__file__).parents[2]
GENERATION = "8.5"


def _there(name: str) -> bool:
    found = load_tensorrt()
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_this_is_what_a_xavier_has() -> None:
    import numpy

    assert sys.version_info[:2] == (3, 8)
    assert load_tensorrt().__version__ == "8.5.2.2" and numpy.__version__.startswith("1.24")


@pytest.mark.parametrize("name", sorted(USED))
def test_the_table_of_used_names_is_right(name: str) -> None:
    assert _there(name) == standins.has(name, GENERATION)


def test_the_stand_in_has_nothing_that_the_real_module_lacks() -> None:
    trt, _ = standins.standin(GENERATION)
    skipped = {"name", "value"}
    names: List[str] = [
        f"{kind}.{member}"
        for kind, made in vars(trt).items()
        if not kind.startswith("_") and not issubclass(made, bytes)
        for member in dir(made)
        if not member.startswith("_") and not (issubclass(made, standins._Enum) and member in skipped)
    ]
    assert [name for name in names if not _there(name)] == []
    real = load_tensorrt()
    for kind in standins._NUMBERED:
        for member in getattr(trt, kind):
            assert int(member) == int(getattr(getattr(real, kind), member.name)), member


def test_it_speaks_the_first_dialect() -> None:
    trt = load_tensorrt()
    dialect = dialect_of(trt)
    assert (dialect.name, dialect.flags, dialect.typed) == ("8.x", True, False)
    assert dialect.network_flags(trt, strongly_typed=False) == 1
    assert monitor_for(trt, Watch()) is None
    check_settings(trt, BuildSettings(tactic_sources=("cudnn",)))
    with pytest.raises(RtdaError, match=r"8\.5\.2\.2 has no optimization level"):
        check_settings(trt, BuildSettings(optimization_level=3))


def test_without_a_driver_tensorrts_own_number_is_put_into_words() -> None:
    with pytest.raises(DeviceError, match=r"TensorRT 8\.5\.2\.2 found no GPU") as caught:
        new_builder(load_tensorrt())
    assert "CUDA initialization failure with error: 35" in caught.value.why
    assert "the driver is missing" in caught.value.why


def test_an_export_without_a_gpu_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = standins.write_onnx(tmp_path)
    with pytest.raises(DeviceError) as caught:  # no binding to CUDA is installed here to ask for its name
        engine_from_onnx(path)
    assert caught.value.hint and [entry.name for entry in tmp_path.iterdir()] == ["best.onnx"]
    with pytest.raises(DeviceError):
        this_machine()


def test_libraries_that_are_missing_are_named(tmp_path: Path) -> None:
    """The same TensorRT without the folder of cuBLAS and cuDNN."""
    program = (
        "from rtda_deploy.errors import RtdaError\n"
        "from rtda_export.tensorrt.library import load_tensorrt\n"
        "try:\n    load_tensorrt()\n"
        "except RtdaError as err:\n    print(type(err).__name__, err.message, err.hint, sep='|')\n"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    kind, message, hint = done.stdout.strip().split("|")
    assert kind == "DeviceError" and "but not the library libcublas.so.11" in message
    assert "LD_LIBRARY_PATH" in hint


def test_the_robots_side_imports_on_python_3_8() -> None:
    """All of it, with numpy alone: what a module of another package needs is loaded when it is used."""
    folders = {"rtda_runtime": ROOT / "runtime", "rtda_export": ROOT / "export"}
    names = []
    for package, folder in folders.items():
        start = folder / package / ("tensorrt" if package == "rtda_export" else "")
        for path in sorted(start.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert "rtda_export.tensorrt.builder" in names and "rtda_runtime.pipeline.pipeline" in names
    for name in [*names, "rtda_export.parity.compare", "rtda_deploy.engine_file"]:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            getattr(module, public)
    assert not {"torch", "onnx"} & set(sys.modules)


def test_the_runtimes_engine_says_what_is_missing(tmp_path: Path) -> None:
    """An engine beside a sidecar of this TensorRT, on a machine without a GPU."""
    from rtda_runtime.engines import open_engine

    path = tmp_path / "a.engine"
    path.write_bytes(b"not an engine")
    with pytest.raises(RtdaError) as caught:
        open_engine(path)
    assert caught.value.hint
    with pytest.raises((DeviceError, MissingPackageError)):
        open_engine(path, spec=standins.spec())
