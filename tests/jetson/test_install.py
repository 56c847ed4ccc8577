"""The commands that README and docs/jetson.md print for a robot, run as they are printed. ``make test-jetson``.

What stands in for the board: ``python3`` is Python 3.8, and a virtual environment that it makes has Ubuntu 20.04's pip.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

if not os.environ.get("RTDA_TEST_WHEEL"):
    pytest.skip("needs a Python 3.8 and the wheel: make test-jetson", allow_module_level=True)

ROOT = Path(__file__).parents[2]
_UBUNTU_PIP = "pip==20.0.2"  # of Ubuntu 20.04, with its setuptools
_UBUNTU_SETUPTOOLS = "setuptools==45.2.0"

# python3 of the board: the virtual environments that it makes have the board's pip.
_PYTHON3 = """#!/bin/sh
set -e
{python} "$@"
[ "$1 $2" = "-m venv" ] || exit 0
for folder; do :; done
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check {packages}
"""


def printed(document: str) -> List[str]:
    """The lines from the one that makes the environment to the one that asks doctor."""
    lines = [line.strip() for line in (ROOT / document).read_text().splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("python3 -m venv --system-site"))
    last = next(number for number, line in enumerate(lines) if number > first and "rtda-deploy doctor" in line)
    return lines[first : last + 1]


@pytest.fixture()
def board(tmp_path: Path) -> Dict[str, str]:
    """The environment variables of a user of the board, in whose home folder the wheel lies."""
    shim = tmp_path / "bin" / "python3"
    shim.parent.mkdir()
    # The one that the running environment was made of: an environment of an environment has no pip of its own.
    base = getattr(sys, "_base_executable", sys.executable)
    shim.write_text(_PYTHON3.format(python=base, packages=f"{_UBUNTU_PIP} {_UBUNTU_SETUPTOOLS}"))
    shim.chmod(0o755)
    (tmp_path / "home").mkdir()
    wheel = os.environ["RTDA_TEST_WHEEL"]
    shutil.copy(wheel, str(tmp_path / "home" / Path(wheel).name))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "HOME": str(tmp_path / "home"), "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("document", ["README.md", "docs/jetson.md"])
def test_the_robots_install_works_as_printed(document: str, board: Dict[str, str]) -> None:
    lines = printed(document)
    assert len(lines) >= 4 and any("pip<25.1" in line for line in lines)
    script = "\n".join(["set -e", *lines, "echo PIP", f"{lines[-1].split('#')[0]} --json"])
    done = subprocess.run(["bash", "-c", script], cwd=board["HOME"], env=board, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    findings = json.loads(done.stdout.rpartition("PIP\n")[2])["findings"]
    found = {finding["name"]: finding for finding in findings}
    for name in ("numpy", "onnxruntime", "cuda", "compiled postprocess"):
        assert found[name]["state"] == "ok", found[name]
    assert found["Python"]["detail"].startswith("3.8.")
    assert board["HOME"] in found["rtda-deploy"]["detail"]
