"""footage: its short form makes a drive, times the ways and tells what was chosen of each part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "footage.py"


def test_its_short_form_prints_what_its_docstring_says(tmp_path: Path) -> None:
    for module in ("av", "cv2", "torch"):
        pytest.importorskip(module)
    sheet = tmp_path / "sheet.jpg"
    command = [sys.executable, str(SCRIPT), "--quick", "--json", "--sheet", str(sheet)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["rows"]] == ["decode", "choose"]
    assert found["rows"][0]["walls"] == [1.0] and all(row["wall_s"] > 0 < row["cpu_s"] for row in found["rows"])
    assert found["look_ms"] > 0 and found["kept"] == 10 and found["same"]
    parts = {row.pop("part"): row for row in found["parts"]}
    assert sum(sum(row.values()) for row in parts.values()) == found["looked_at"]
    assert parts["out of focus"]["kept"] == parts["a dark tunnel"]["kept"] == 0
    assert sheet.read_bytes()[:2] == b"\xff\xd8"
