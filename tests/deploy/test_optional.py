"""Optional packages: found without importing, and where missing, the line that installs them here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from rtda_deploy import optional
from rtda_deploy.errors import MissingPackageError
from rtda_deploy.optional import WITH_OPENCV, available, install_line, is_jetson, require


def test_what_is_installed_is_imported() -> None:
    assert require("json", extra="runtime") is sys.modules["json"]


@pytest.mark.parametrize("module", ["not_a_package_of_anyone", "not_a_package_of_anyone.part"])
def test_what_is_missing_comes_with_its_install_line(module: str) -> None:
    with pytest.raises(MissingPackageError) as caught:
        require(module, extra="runtime", purpose="to read pictures")
    assert caught.value.message == "package not_a_package_of_anyone is not installed (needed to read pictures)"
    assert caught.value.hint == "pip install 'rtda-deploy[runtime]'"
    assert caught.value.exit_code == 3
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_is_installed_but_broken_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_for_test.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    (tmp_path / "needs_more_for_test.py").write_text("import not_a_package_of_anyone\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert available("broken_for_test")
    for name, words in (("broken_for_test", "libGL"), ("needs_more_for_test", "not_a_package_of_anyone")):
        with pytest.raises(MissingPackageError, match=f"{name} is installed but does not load: .*{words}"):
            require(name, extra="runtime")


def test_asking_whether_it_is_there_does_not_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_for_test.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert available("heavy_for_test")
    assert not available("not_a_package_of_anyone")
    assert not available("not_a_package_of_anyone.part")


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("cv2", "runtime", "sudo apt-get install libopencv-python "),
        ("tensorrt", "tensorrt-cu12", "sudo apt-get install python3-libnvinfer "),
        ("onnxruntime", "runtime", "pip install onnxruntime   (alone"),
        ("onnxruntime.quantization", "export", "pip install onnxruntime   (alone"),
        ("lightning_fabric", "training", "pip install lightning-fabric   (alone"),
        ("cuda", "tensorrt-cu12", "pip install 'cuda-python>=11.8,<11.8.4' "),
        ("pycuda", "pycuda", "pip install 'rtda-deploy[pycuda]'"),
    ],
)
def test_a_jetson_keeps_jetpacks_opencv_and_tensorrt(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, words: str
) -> None:
    monkeypatch.setattr(optional, "is_jetson", lambda: True)
    monkeypatch.setattr(optional.sys, "version_info", (3, 10, 12))
    assert install_line(module, extra).startswith(words)


def test_the_extras_that_bring_opencv_are_known() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[project")[0]
    extras = [entry for entry in re.split(r"\n(?=[\w-]+ = \[)", section) if "opencv-python" in entry]
    assert {entry.partition(" ")[0].strip() for entry in extras} == set(WITH_OPENCV)


@pytest.mark.parametrize("extra", ["training", "export"])
def test_an_old_python_is_told_which_one_trains(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    monkeypatch.setattr(optional, "is_jetson", lambda: False)
    monkeypatch.setattr(optional.sys, "version_info", (3, 8, 10))
    assert "Python 3.10 or newer" in install_line("torch", extra)
    assert install_line("cv2", "runtime") == "pip install 'rtda-deploy[runtime]'"


def test_every_extra_that_is_named_exists() -> None:
    import ast

    root = Path(__file__).parents[2]
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[project")[0]
    extras = {line.partition("=")[0].strip() for line in section.splitlines() if "= [" in line}
    for package in ("rtda_deploy", "training/rtda_training", "export/rtda_export", "runtime/rtda_runtime"):
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Constant):
                    assert node.value.value in extras, f"{path}:{node.value.lineno}"


def test_this_machine_is_a_jetson_only_if_it_says_so() -> None:
    assert is_jetson() == (
        Path("/etc/nv_tegra_release").exists()
        or b"nvidia,tegra"
        in (Path("/proc/device-tree/compatible").read_bytes() if Path("/proc/device-tree/compatible").exists() else b"")
    )
