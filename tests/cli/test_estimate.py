"""``rtda-deploy estimate``: what to expect of a board that is not here, as table, JSON and picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.commandline import assert_refused, files_below, invoke
from runtime.models import write_model

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network; not to be written to."""
    return write_model(tmp_path_factory.mktemp("estimate") / "tiny.onnx")


def test_the_table_says_what_to_expect_and_how_far_off_it_may_be(model: Path) -> None:
    shown = invoke("estimate", model, "--device", "xavier-agx")
    assert shown.code == 0, shown.err
    assert "on Jetson AGX Xavier" in shown.out
    for precision in ("fp32", "fp16", "int8"):
        assert f"{precision}: expected " in shown.out
    assert "FPS (published figures were met within a factor 1.55)" in shown.out
    assert "MAXN" in shown.out and "no camera, preprocessing or copies" in shown.out
    assert "slowest of" in shown.out
    assert "next    rtda-deploy bench" in shown.err


def test_json_is_one_documented_object_and_agrees_with_the_table(model: Path) -> None:
    told = invoke("estimate", model, "--device", "Xavier_NX", "--precision", "int8", "--json").json
    assert set(told) == {"model", "device", "input_shape", "macs", "achieved", "precisions", "notes"}
    assert told["device"]["name"] == "xavier-nx"
    (entry,) = told["precisions"]
    assert entry["precision"] == "int8"
    assert entry["low_fps"] < entry["expected_fps"] < entry["high_fps"] <= entry["bound_fps"]
    assert sum(layer["expected_ms"] for layer in entry["layers"]) == pytest.approx(entry["expected_ms"])
    assert sum(layer["macs"] for layer in entry["layers"]) == told["macs"] > 0
    shown = invoke("estimate", model, "--device", "xavier-nx", "--precision", "int8")
    assert f"int8: expected {entry['expected_fps']:.0f} FPS" in shown.out
    assert "fp16" not in shown.out
    assert "! int8 is taken for every layer" in shown.err


def test_a_picture_is_drawn_where_it_is_asked_for(model: Path, here: Path) -> None:
    pytest.importorskip("matplotlib")
    assert invoke("estimate", model, "--device", "t4", "--json").code == 0
    assert files_below(here) == []
    shown = invoke("estimate", model, "--device", "t4", "--out", "pictures", "--json")
    assert shown.json["device"]["name"] == "t4"
    assert files_below(here) == ["pictures/tiny-t4-fp16.png"]
    assert "wrote   pictures/tiny-t4-fp16.png" in shown.err
    assert (here / "pictures/tiny-t4-fp16.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_computed_in_another_precision_is_said_on_stderr(model: Path) -> None:
    shown = invoke("estimate", model, "--device", "v100", "--precision", "int8", "--json")
    assert "no fast int8" in shown.err
    assert shown.json["precisions"][0]["arithmetic"] == "fp16"


def test_an_unknown_device_is_refused_with_the_nearest_first(model: Path) -> None:
    refused = invoke("estimate", model, "--device", "agx-xavier")
    assert_refused(refused, 2, "unknown device 'agx-xavier'", "known, the nearest first: xavier-agx, ")
    assert_refused(invoke("estimate", model, "--device", "t4", "--precision", "fp8"), 2, "fp8", "int8")


def test_what_cannot_be_estimated_is_refused(model: Path, tmp_path: Path) -> None:
    assert_refused(invoke("estimate", model, "--device", "t4", "--size", "64x64"), 2, "built in", "--size")
    assert_refused(invoke("estimate", tmp_path / "none.onnx", "--device", "t4"), 1, "none.onnx")
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:40])
    assert_refused(invoke("estimate", tmp_path / "cut.onnx", "--device", "t4"), 1, "no valid ONNX model")
    (tmp_path / "file").write_text("x")
    assert_refused(invoke("estimate", model, "--device", "t4", "--out", tmp_path / "file"), 1, "cannot write to")
