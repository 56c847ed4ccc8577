"""What ``make test-system`` sets up before its tests, and that it goes on without what cannot be had."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import List, Tuple

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# In the place of the environment's Python: writes down what it is called with, and installs nothing.
_PYTHON = """#!/bin/sh
echo "$*" >> {log}
case "$*" in *pip*) test ! -e {offline} ;; esac
"""


@pytest.fixture()
def venv(tmp_path: Path) -> Path:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text(_PYTHON.format(log=tmp_path / "log", offline=tmp_path / "offline"))
    python.chmod(0o755)
    (tmp_path / "venv" / "bin" / "rtda-deploy").symlink_to(python)
    (tmp_path / "venv" / ".ready").touch()
    return tmp_path / "venv"


def made(venv: Path, target: str) -> Tuple[List[str], str]:
    """What the environment's Python was called with, and what make said."""
    log = venv.parent / "log"
    log.write_text("")
    done = subprocess.run(["make", f"VENV={venv}", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines(), done.stderr


def test_the_system_tests_install_ray_once_and_leave_torch_as_it_is(venv: Path) -> None:
    calls, _ = made(venv, "test-system")
    install, tests = calls
    assert install.endswith("-c constraints.txt -e .[fleet]") and "torch==" in (ROOT / "constraints.txt").read_text()
    assert "--upgrade" not in install and tests == "-m pytest -m system"
    assert made(venv, "test-system")[0] == ["-m pytest -m system"]


def test_without_ray_the_system_tests_run_and_the_next_time_it_is_tried_again(venv: Path) -> None:
    (venv.parent / "offline").touch()
    for _ in range(2):
        calls, said = made(venv, "test-system")
        assert calls[-1] == "-m pytest -m system" and "Ray was not installed: tests/system/test_fleet.py" in said
        assert len(calls) == 2


def test_other_targets_need_no_ray(venv: Path) -> None:
    for target in ("test", "demo", "test-oldest"):
        assert not [call for call in made(venv, target)[0] if "fleet" in call]
