"""benchmarks/cpu_threads: what it compares, and its short form on the tiny network."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from runtime.models import write_model

from rtda_deploy.optional import available

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """Imported as it imports its neighbours: with its folder on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("cpu_threads")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("cpu_threads", "small_network"):
            sys.modules.pop(name, None)


def test_busy_programs_run_meanwhile_and_no_longer(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = subprocess.Popen

    def popen(command: Any) -> Any:
        started.append(real(command))
        return started[-1]

    monkeypatch.setattr(script.subprocess, "Popen", popen)
    running = []
    known = {("x", script.OWN): lambda: running.append([each.poll() for each in started])}
    (row,) = script.measure(known, 2, 2)
    assert running == [[None, None]] * 4 and row["busy"] == 2 and row["ratio"] == 1.0
    assert all(each.poll() is not None for each in started)


def test_the_ratio_is_to_the_own_way_of_the_same_library(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def lasting(seconds: float) -> Any:
        def run() -> None:
            now[0] += seconds

        return run

    monkeypatch.setattr(script.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(script.time, "sleep", lambda seconds: None)
    known = {("a", script.OWN): lasting(0.3), ("a", "ours"): lasting(0.1), ("b", script.OWN): lasting(1.0)}
    rows = {(row["library"], row["option"]): row for row in script.measure(known, 4, 0)}
    assert rows["a", "ours"]["ratio"] == pytest.approx(3.0) and rows["a", "ours"]["ms"] == pytest.approx(100)
    assert rows["b", script.OWN]["ratio"] == 1.0


def test_the_command_prints_one_json_object(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    command = [sys.executable, str(FOLDER / "cpu_threads.py"), "--model", str(model), "--rounds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    libraries = {"ONNX Runtime", "OpenVINO"} if available("openvino") else {"ONNX Runtime"}
    assert {row["library"] for row in found["rows"]} == libraries
    assert {(row["library"], row["busy"]) for row in found["rows"] if row["option"] == "ours"} == {
        (library, busy) for library in libraries for busy in (0, 1)
    }
    assert found["environment"]["onnxruntime"] and found["threads"] >= 1
