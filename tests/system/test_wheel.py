"""The wheel: what is in it, and that the robot's side works from it under a real Python 3.8."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Dict, List

import pytest
from cli.commandline import Outcome, environment
from system.conftest import python38

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
_ROBOT = (
    "import sys, rtda_deploy, rtda_runtime, rtda_export.parity.compare, rtda_export.tensorrt.builder,"
    " rtda_training.labels, rtda_training.metrics, rtda_training.readers;"
    " [getattr(rtda_runtime, name) for name in rtda_runtime.__all__];"
    " assert sys.version_info[:2] == (3, 8); print(rtda_deploy.__file__)"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this tree with what is installed here; nothing is downloaded."""
    for module in ("build", "hatchling"):
        pytest.importorskip(module, reason=f"building a wheel needs {module} (make setup)")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.iterdir()
    return found


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    packages = {"rtda_deploy", "rtda_export", "rtda_runtime", "rtda_training"}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert len(tops) == 5
    for package in packages:
        assert f"{package}/py.typed" in names and f"{package}/__init__.py" in names
    assert "rtda_export/roofline/devices.toml" in names
    assert len([name for name in names if name.startswith("rtda_runtime/fleet/probes/")]) == 5
    recipes = {path.name for path in (ROOT / "training/recipes").glob("*.toml")}
    assert {name.rpartition("/")[2] for name in names if name.startswith("rtda_training/recipes/")} == recipes
    assert {f"rtda_runtime/sinks/view/{name}" for name in ("page.html", "script.js", "style.css")} <= set(names)
    assert not [name for name in names if "segmentation_node" in name], "ROS packages are built by ROS"
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pth", ".onnx"))]
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = archive.read(name).decode().splitlines()
    assert "Requires-Python: >=3.8" in lines
    needs = [line.split()[1] for line in lines if line.startswith("Requires-Dist") and "extra" not in line]
    always = {need.partition(">")[0] for need in needs}
    assert always == {"numpy", "typer", "rich", "tomli"}, "no OpenCV, no TensorRT: a robot brings its own"
    extras = {line.split()[1] for line in lines if line.startswith("Provides-Extra")}
    wanted = {"runtime", "gpu-cu12", "gpu-cu13", "openvino", "tensorrt-cu12", "tensorrt-cu13", "pycuda", "training"}
    assert wanted | {"export", "view", "robotics", "footage", "dev", "all"} <= extras


class Robot:
    """A virtual environment of Python 3.8 with the wheel and its runtime extra, and nothing of this tree."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.environment: Dict[str, str] = {
            key: value for key, value in environment().items() if not key.startswith("PYTHON")
        }

    def run(self, *words: object, cwd: Path, program: str = "rtda-deploy") -> Outcome:
        command: List[str] = [str(self.bin / program), *map(str, words)]
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True)
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def robot(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Robot:
    python = python38()
    if python is None:
        pytest.skip("no Python 3.8 that runs: ~/.pyenv/versions/3.8*/bin/python or python3.8")
    folder = tmp_path_factory.mktemp("robot")
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True, capture_output=True)
    made = Robot(folder)
    pip = [str(made.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, f"{wheel}[runtime]"]
    done = subprocess.run(command, env=made.environment, capture_output=True, text=True)
    if done.returncode != 0 and any(words in done.stderr for words in ("No matching distribution", "ConnectionError")):
        pytest.skip(f"the packages for Python 3.8 are not to be had here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return made


def test_the_robots_side_imports_under_python_3_8_without_torch(robot: Robot, tmp_path: Path) -> None:
    outcome = robot.run("-W", "error", "-c", _ROBOT, cwd=tmp_path, program="python")
    assert outcome.code == 0, outcome.err
    assert "site-packages" in outcome.out, "from the wheel, not from this tree"
    assert robot.run("-c", "import torch", cwd=tmp_path, program="python").code == 1


def test_a_robot_runs_a_model(robot: Robot, tmp_path: Path, tiny_onnx: Path) -> None:
    camera = "test://bars?fps=0&frames=3&size=96x64"
    outcome = robot.run("run", tiny_onnx, "--camera", camera, "--save", "o.mp4", "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out.splitlines()[-1])["frames"] == 3
    assert (tmp_path / "o.mp4").stat().st_size > 500


def test_a_robot_evaluates_with_the_same_numbers(
    robot: Robot, tmp_path: Path, tiny_onnx: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.commandline import invoke

    words = ["eval", tiny_onnx, "--data", f"folder:{tiny_data}", "--out", "report", "--json"]
    there = robot.run(*words, cwd=tmp_path)
    assert there.code == 0, there.err
    assert (tmp_path / "report/report.html").is_file()
    monkeypatch.chdir(tmp_path)
    here = invoke(*words).json
    for key in ("miou", "pixel_accuracy"):
        # another ONNX Runtime rounds differently; a few of 36,672 pixels may turn
        assert there.json[key] == pytest.approx(here[key], abs=0.1)


def test_a_robot_is_told_which_python_trains(robot: Robot, tmp_path: Path, tiny_checkpoint: Path) -> None:
    for words in (["train", "source-only"], ["export", tiny_checkpoint], ["demo"], ["inspect", tiny_checkpoint]):
        outcome = robot.run(*words, cwd=tmp_path)
        assert outcome.code == 3, outcome.err
        assert "Python 3.10 or newer" in outcome.said["fix"]
        assert "Traceback" not in outcome.err


def test_a_robot_measures_inspects_and_verifies(
    robot: Robot, tmp_path: Path, tiny_onnx: Path, tiny_checkpoint: Path
) -> None:
    for words in (
        ["doctor", "--json"],
        ["cameras", "--json"],
        ["inspect", tiny_onnx, "--json"],
        ["bench", tiny_onnx, "--duration", "0.1", "--warmup", "0", "--json"],
        ["verify", tiny_onnx, tiny_onnx, "--frames", tiny_checkpoint.parent / "verify", "--out", ".", "--json"],
    ):
        outcome = robot.run(*words, cwd=tmp_path)
        assert outcome.code == 0, f"{words}: {outcome.err}"
        assert isinstance(outcome.json, dict)


def test_wrong_usage_has_the_same_codes_with_the_oldest_typer(robot: Robot, tmp_path: Path) -> None:
    missed = robot.run("exprot", cwd=tmp_path)
    assert missed.code == 2 and "export" in missed.err
    assert robot.run("run", "--camera", "test://bars", cwd=tmp_path).code == 2
    assert robot.run("run", "missing.onnx", "--camera", "test://bars", cwd=tmp_path).code == 1
