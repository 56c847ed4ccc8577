"""cameras: that it sees who starves and what is in flight, and its short form on a tiny network."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from runtime.fakes import NumpyEngine
from runtime.models import write_model

from rtda_runtime import Segmenter, SegmenterPool

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "cameras.py"
FIGURES = {"cameras", "total_fps", "least_fps", "most_fps", "age_p95_ms", "fair"}


@pytest.fixture(scope="module")
def script(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("cameras")


@pytest.fixture()
def pictures() -> Any:
    return [np.full((48, 64, 3), value, np.uint8) for value in (1, 2)]


def test_its_short_form_prints_what_its_docstring_says(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    words = ["--model", str(model), "--quick", "--seconds", "0.1", "--rounds", "1", "--frames", "6", "--json"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["met"] else 1), done.stderr
    for rows in (found["cameras"], found["free"]):
        assert [row["cameras"] for row in rows] == [1, 4, 7]
        for row in rows:
            assert set(row) == FIGURES
            assert row["total_fps"] > 0 and row["least_fps"] <= row["most_fps"] and row["age_p95_ms"] > 0
    shares = [row["fair"] for row in (*found["cameras"], *found["free"]) if row["fair"] is not None]
    assert found["fair"] == min(shares, default=None)
    assert found["met"] == (found["fair"] is None or found["fair"] >= found["goal"])
    assert [row["in_flight"] for row in found["in_flight"]] == [1, 2] * (len(found["in_flight"]) // 2)
    for row in found["in_flight"]:
        assert row["low"] <= row["ratio"] <= row["high"] and row["fps"] > 0
        assert row["in_flight"] == 2 or row["ratio"] == 1.0
    assert "environment" in found and "conditions" in found


@pytest.mark.parametrize(
    ("rounds", "fair"), [([(9, 10)], 1.0), ([(4, 10)] * 2, 0.5), ([(0, 1)] * 5, None), ([(2, 3)], None)]
)
def test_few_frames_tell_nothing(script: Any, rounds: Any, fair: Any) -> None:
    assert script._fair([{"least": least, "most": most} for least, most in rounds]) == fair


def test_a_camera_that_starves_is_seen(script: Any, pictures: Any) -> None:
    class Unfair(Segmenter):
        """Serves the thread that came first; of the others only each tenth frame after the first few."""

        calls = 0
        favourite: Any = None

        def segment(self, frame: np.ndarray, *words: Any, **settings: Any) -> Any:
            own = threading.get_ident()
            self.favourite = self.favourite or own
            if own != self.favourite and settings["sequence"] > 5:
                threading.Event().wait(0.05)
            return super().segment(frame, *words, **settings)

    (fair,) = script.measure_cameras(Segmenter(NumpyEngine()), pictures, (1,), 1, 0.1, None)
    assert fair["fair"] == 1.0 and fair["total_fps"] == fair["least_fps"] == fair["most_fps"]
    (unfair,) = script.measure_cameras(Unfair(NumpyEngine()), pictures, (2,), 1, 0.4, None)
    assert unfair["fair"] < 0.8, unfair
    assert unfair["total_fps"] == pytest.approx(unfair["least_fps"] + unfair["most_fps"])


def test_what_is_in_flight_is_compared_within_each_round(
    script: Any, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Segmenter(NumpyEngine())
    two = SegmenterPool([Segmenter(NumpyEngine()) for _ in range(2)])
    assert script._rate(one, pictures, 5) > 0 and script._rate(two, pictures, 5) > 0
    rates = {1: [1.0, 10.0, 5.0, 20.0], 2: [99.0, 15.0, 10.0, 20.0]}  # the first is not counted
    monkeypatch.setattr(script, "_rate", lambda segmenter, *_: rates[segmenter.in_flight].pop(0))
    first, second = script.measure_in_flight((one, two), pictures, 3, 5)
    assert (first["in_flight"], first["ratio"], first["low"], first["high"]) == (1, 1.0, 1.0, 1.0)
    assert (second["in_flight"], second["fps"], second["ratio"]) == (2, 15.0, 1.5)
    assert (second["low"], second["high"]) == (1.0, 2.0) and second["engine"].endswith("2 in flight")


def test_cameras_give_their_pictures_in_turn_until_they_are_closed(script: Any, pictures: Any) -> None:
    camera = script.Camera(pictures, None)
    assert [camera.read().image[0, 0, 0] for _ in range(3)] == [1, 2, 1]
    recording = script.Recording(pictures, 2)
    assert [recording.read().sequence for _ in range(2)] == [0, 1] and recording.read() is None
    paced = script.Camera(pictures, 100.0)
    start = paced._due_s
    stamps = [paced.read().captured_ns / 1e9 for _ in range(3)]
    assert stamps[2] >= start + 0.03 - 1e-3
    paced.interrupt()
    paced.read()
