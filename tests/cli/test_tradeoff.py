"""``rtda-deploy tradeoff``: which model, size and precision to take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.commandline import assert_refused, invoke
from conftest import write_data_set, write_pictures

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")


def test_models_are_compared_and_one_is_proposed(
    here: Path, tiny_checkpoint: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_data_set(here / "labelled", 2)
    write_pictures(here / "seen", 2)
    small = ("--precision", "fp32", "--frame", "160x96", "--rounds", "1", "--rate", "1", "--verify", "seen")
    outcome = invoke("tradeoff", tiny_checkpoint, tiny_onnx, "--data", "folder:labelled", *small, "--out", "new")
    assert outcome.code == 0, outcome.err
    assert "for 1 masks a second here: " in outcome.out and "mIoU %" in outcome.out
    assert "next    rtda-deploy bench " in outcome.err
    found = json.loads((here / "new/tradeoff.json").read_text())
    assert len(found["points"]) == 2 and (here / "new/tradeoff.png").stat().st_size > 10_000
    table = (here / "new/tradeoff.md").read_text().splitlines()
    assert table[0] == "| network | size | precision | mIoU | ms | a second |" and len(table) == 6
    assert table[-1].startswith(found["machine"]) and "on 2 pictures of `folder:labelled`. For 1 masks a" in table[-1]
    assert sum("| **" in row for row in table) == sum(point["frontier"] for point in found["points"])
    scores = [point["miou"] for point in found["points"]]
    assert scores[0] == pytest.approx(scores[1], abs=0.01), "the same network twice"
    device = invoke("tradeoff", tiny_onnx, "--device", "xavier-agx", "--precision", "fp32", "--json")
    assert device.code == 0, device.err
    assert device.json["times"] == "network alone, estimated" and "no --data" in device.err


def test_mistakes_are_told(here: Path, tiny_onnx: Path) -> None:
    assert_refused(invoke("tradeoff", "nothing.pth"), 1, "nothing.pth", "")
    assert_refused(invoke("tradeoff", tiny_onnx, "--size", "big"), 2, "big", "")
    assert_refused(invoke("tradeoff", tiny_onnx, "--precision", "int9"), 2, "int9", "fp32")
    assert_refused(invoke("tradeoff", tiny_onnx, "--data", "folder:nowhere"), 1, "nowhere", "")
