"""speed: what fails is told from what misses a goal, and figures of another time are not taken for new ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed.py"


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """A copy of the script beside benchmarks that do as they are told, and a page writer that notes what there is."""
    (tmp_path / "speed.py").write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    programs = {
        "upsample": 'print("{}")',
        "preprocess": 'import sys; print("{}"); sys.exit(1)',
        "growth": 'raise SystemExit("it broke")',
        "speed_page": "import pathlib, sys; print(sorted(p.stem for p in pathlib.Path(sys.argv[1]).glob('*.json')))",
    }
    for name, text in programs.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, only: str) -> Any:
    words: List[str] = [str(folder / "speed.py"), "--out", str(folder / "json"), "--only", only]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def test_a_missed_goal_is_on_the_page(folder: Path) -> None:
    done = run(folder, "upsample,preprocess")
    assert done.returncode == 1 and "not all goals were met: preprocess" in done.stderr
    assert done.stdout == "['preprocess', 'upsample']\n"


def test_what_failed_leaves_no_old_figures(folder: Path) -> None:
    (folder / "json").mkdir()
    (folder / "json" / "growth.json").write_text('{"old": 1}')
    done = run(folder, "upsample,growth")
    assert done.returncode == 2 and "failed, and not on the page: growth" in done.stderr and "FAILED" in done.stderr
    assert done.stdout == "['upsample']\n"


def test_a_name_that_is_none_is_an_error(folder: Path) -> None:
    done = run(folder, "upsampel")
    assert done.returncode == 2 and "--only upsampel: known are upsample, " in done.stderr
