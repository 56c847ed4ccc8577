"""benchmarks/preprocess: that its ways make the same input, and its short form."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import cv2
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """Imported as it imports its neighbours: with its folder on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("preprocess")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("preprocess", "small_network"):
            sys.modules.pop(name, None)


def test_all_ways_make_the_same_input(script: Any) -> None:
    spec = script.imagenet_spec((64, 32))
    frame = script.smooth_pictures((128, 96), 1)[0]
    made = {name: way(frame) for name, way in script.ways(spec).items()}
    assert made[script.FLOOR].shape == (32, 64, 3)
    np.testing.assert_allclose(made["NumPy"], made["ours"], atol=1e-5)
    # one scale for the three colours: it is off by what their std differ from its mean, and no more
    assert np.corrcoef(made["blobFromImage"].ravel(), made["ours"].ravel())[0, 1] > 0.999


def test_there_is_a_row_per_thread_count_frame_and_way_and_opencv_is_left_as_it_was(script: Any) -> None:
    before = cv2.getNumThreads()
    rows = script.measure((64, 32), 5)
    assert cv2.getNumThreads() == before
    assert len(rows) == len({before, 1}) * 2 * 4 and {row["frame"] for row in rows} == {"1280x720", "1920x1080"}
    for row in rows:
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["way"] != script.FLOOR or row["ratio"] == 1.0


@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_it_fails_where_the_goal_is_missed(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ratio: float
) -> None:
    row = {"threads": 1, "frame": "1280x720", "way": "ours", "ms": 1.0, "ratio": ratio, "low": ratio, "high": ratio}
    other = {**row, "way": "NumPy", "ratio": 30.0}
    monkeypatch.setattr(script, "measure", lambda size_wh, rounds: [row, other])
    monkeypatch.setattr(sys, "argv", ["preprocess.py"])
    assert script.main() == int(ratio > script.GOAL)
    assert ("MISSED" in capsys.readouterr().out) == (ratio > script.GOAL)


def test_the_command_prints_one_json_object() -> None:
    command = [sys.executable, str(FOLDER / "preprocess.py"), "--size", "64x32", "--rounds", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == int(not found["met"]), done.stderr
    assert found["size"] == "64x32" and found["environment"]["opencv"] and found["conditions"]["seconds"] >= 0
