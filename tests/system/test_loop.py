"""``make loop`` in a tiny form: from a drive into rain to a page, by the commands that a user types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

pytestmark = pytest.mark.system

LOOP = Path(__file__).parents[2] / "tools" / "loop.py"
TINY = ["--set", "steps=2", "--set", "size=64x64", "--set", "batch_size=2", "--set", "val_pictures=10"]
TINY += ["--seconds", "90", "--pictures", "2", "--size", "96x64", "--shift", "1m", "--when", "novelty > 0"]
TINY += ["--limits", "minute=60,gap=0.5s,free=0,flip=off"]


def test_the_loop_goes_around_and_its_page_tells_what_happened(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    done = subprocess.run([sys.executable, LOOP, "--out", folder, *TINY], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"wrote  {folder}/report.html" in done.stdout
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    verbs = [row["typed"].split()[1] for row in found["commands"]]
    assert verbs[:7] == ["train", "export", "models", "run", "adapt", "rank", "export"] and verbs[-2:] == [
        "inspect",
        "models",
    ]
    drive, tried = found["drive"], found["promote"]
    assert (tried is None) is not found["adapt"]["better"]
    assert drive["collected"]["frames"] == len(list((folder / "hard" / "images").iterdir())) >= 8
    assert drive["shift"]["blocks"] > 5 and drive["evidence"] and found["rain_s"] == 45.0
    assert set(found["miou"]) == {"noon", "rain"} and all(0 <= row["after"] <= 100 for row in found["miou"].values())
    assert tried is None or (tried["labelled"] == 2 and tried["promoted"] is not bool(tried["missed"]))
    assert {row["role"] for row in found["models"]} >= {"current"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 2 and "From noon into rain" in page
    assert found["inspect"]["sha256"][:12] in page and ("given" in page) and ("promote" in page)
