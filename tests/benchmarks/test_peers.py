"""peers: every way is a real one, of a tiny picture; the report is what the page writer reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List
from unittest import mock

import numpy as np
import pytest

from rtda_deploy.optional import available

for _package in ("torch", "onnx", "onnxruntime", "openvino"):
    if not available(_package):
        pytest.skip(f"{_package} is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def peers(benchmark_module: Callable[[str], Any]) -> Any:
    module = benchmark_module("peers")
    module.SIZE_HW, module.FRAME_HW, module._PAUSE_S = (64, 128), (90, 160), 0.0
    module._PEAK = (16, 8, 16, 2)
    return module


@pytest.fixture(scope="module")
def network(peers: Any, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Any]:
    folder = tmp_path_factory.mktemp("peers")
    options = SimpleNamespace(quick=True, rounds=2, threads=1, peak=peers.peak_gflops(1))
    checkpoint = peers.random_checkpoint(folder / "random.pth", "resnet18", "rtda", (128, 64))
    # A hundred networks are made in search of the layers that random weights spoil in INT8; tests/export is about that.
    with mock.patch("rtda_export.precision.sensitivity.Sensitivity.needed", return_value={}):
        found: Dict[str, Any] = peers.measure("rtda", checkpoint, peers._frames(None, 2), folder, options)
    return found


def test_the_report_is_whole(network: Dict[str, Any]) -> None:
    assert json.loads(json.dumps(network)) == network
    ways = {row["way"]: row for row in network["ways"]}
    assert {row["group"] for row in network["ways"]} == {"ours", "peer", "peer, tuned", "bare"}
    assert {"torch eager, tuned", "ONNX Runtime, tuned", "OpenVINO, tuned", "ours fp32", "ours int8"} <= set(ways)
    (best,) = (row for row in network["ways"] if row["best_peer"])
    assert best["group"] == "peer, tuned" and best["ratio"] == 1 and best["precision"] == "fp32"
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in network["ways"])
    assert len(network["goals"]) == 6 and network["floor_ms"] > 0
    assert set(network["peak_gflops"]) >= {"fp32", "int8"}


def test_all_ways_see_the_same_network(network: Dict[str, Any]) -> None:
    """Random weights put borders everywhere, and peers make their mask at the network's size: most pixels, not all."""
    agreement = {row["way"]: row["agreement"] for row in network["ways"] if row["group"] != "bare"}
    assert agreement.pop("ours fp32") > 0.9999
    assert min(value for way, value in agreement.items() if "int8" not in way) > 0.8
    peers = {way: value for way, value in agreement.items() if not way.startswith("ours") and "bf16" not in way}
    assert max(peers.values()) - min(peers.values()) < 0.01, "one network, one mask"


def test_both_inputs_are_what_the_network_was_trained_with(peers: Any) -> None:
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime.mask.preprocess import preprocess

    ways = sys.modules["peer_ways"]
    (frame,) = peers._frames(None, 1)
    for extra in ({}, {"channel_order": "bgr", "pixel_scale": 1.0, "mean": (104.0, 116.0, 122.0), "std": (1, 1, 1)}):
        spec = ModelSpec(size_hw=(64, 128), class_names=("a", "b"), palette=((0, 0, 0), (1, 1, 1)), **extra)
        wanted = np.zeros((1, 3, 64, 128), np.float32)
        preprocess(frame, spec, wanted)
        step = spec.pixel_scale / min(spec.std)  # of one grey level
        for make in (ways._numpy_input(spec), ways._blob_input(spec)):
            given = make(frame)
            assert given.dtype == np.float32 and np.abs(given - wanted).max() < 1.01 * step


@pytest.mark.usefixtures("published_width")
def test_rewriting_is_measured_with_its_parity(benchmark_module: Callable[[str], Any], tmp_path: Path) -> None:
    options = SimpleNamespace(rounds=2, threads=1)
    found = benchmark_module("rewrites").measure("resnet18", "rtda", (64, 128), tmp_path, options)
    assert [row["graph"] for row in found["rows"]] == 2 * [
        "published",
        "head first",
        "deployed",
        "rewritten",
    ]
    gmacs = [row["gmacs"] for row in found["rows"][:4]]
    assert gmacs == sorted(gmacs, reverse=True) and gmacs[2] > 1.02 * gmacs[3]
    assert 0 < found["rows"][3]["differs"] < 1e-5


def test_goals_are_held_against_the_best_peer_of_each_round(peers: Any) -> None:
    rows: List[Dict[str, Any]] = [{"way": "peer", "best_peer": True}, {"way": "ours fp32", "best_peer": False}]
    run = peers.Run
    runs = {
        "peer": [run(1.0, 100.0, 1.0, None)] * 3,
        "torch eager, tuned": [run(1.0, 100.0, 1.0, None)] * 3,
        "ours fp32": [run(5.0, 90.0, 5.0, None)] * 3,
    }
    goals = {goal["goal"]: goal for goal in peers._goals("paper", rows, runs, 51.0)}
    assert [goal["met"] for goal in goals.values()] == [False, False, False]
    assert goals["ours fp32, times the best fp32 peer (peer)"]["value"] == pytest.approx(1.02)
    assert "ours fp32, times torch eager, tuned (at the floor: 2.00)" in goals
    assert goals["share of an fp32 frame outside the network"]["value"] == pytest.approx(0.1)
