"""The whole path on tiny pictures, every step by the command a user types."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
from cli.commandline import files_below, invoke
from cli.conftest import Journey
from interrupting import at_step, interrupt

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")


def checkpoint(path: Path) -> Dict[str, Any]:
    import torch

    content: Dict[str, Any] = torch.load(path, weights_only=True)
    return content


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Bit by bit, through tables and lists."""
    import torch

    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (left, right) in enumerate(zip(a, b)):
            assert_same(left, right, f"{where}/{index}")
    else:
        assert a == b, where


def test_train_ends_with_the_files_of_the_design(journey: Journey) -> None:
    made = set(files_below(journey.run))
    assert {"last.pth", "best.pth", "config.toml", "results.csv", "report.html", "MODEL_CARD.md"} <= made
    assert not [name for name in made if ".part" in name], "no half-written file stays"
    told = journey.outcomes["train"].json
    assert told["folder"] == "run"
    assert 0 <= told["last_miou"] <= told["best_miou"] <= 100
    rows = list(csv.DictReader((journey.run / "results.csv").read_text().splitlines()))
    assert rows and {"stage", "step", "seg", "adv", "disc"} <= set(rows[0])
    assert rows[-1]["step"] == "4"
    assert "<html" in (journey.run / "report.html").read_text()[:200]


def test_train_without_json_says_where_the_checkpoint_is_and_what_comes_next(journey: Journey, here: Path) -> None:
    outcome = invoke(*journey.words("source-only", "--set", "steps=1", "--out", "once"))
    assert outcome.code == 0
    assert outcome.out == "once/last.pth\n"
    assert "next    rtda-deploy export once/last.pth" in outcome.err


def test_the_saved_config_is_a_recipe_that_trains_the_same(journey: Journey, here: Path) -> None:
    outcome = invoke("train", journey.run / "config.toml", "--out", "again")
    assert outcome.code == 0, outcome.err
    assert_same(checkpoint(here / "again/last.pth")["weights"], checkpoint(journey.run / "last.pth")["weights"])


def test_a_run_that_was_stopped_goes_on_bit_by_bit(journey: Journey, here: Path) -> None:
    words = journey.words("rtda-light-thin", "--out", "run", "--resume", "auto")
    with at_step(2, interrupt):
        stopped = invoke(*words)
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    assert checkpoint(here / "run/last.pth")["training"]["step"] == 2

    resumed = invoke(*words)
    assert resumed.code == 0, resumed.err
    assert "resumed at step 2" in resumed.err
    whole = checkpoint(journey.run / "last.pth")
    parted = checkpoint(here / "run/last.pth")
    assert_same(parted["weights"], whole["weights"], "weights")
    for key in ("run", "step", "done", "torch_rng"):
        assert_same(parted["training"][key], whole["training"][key], key)
    steps = [row["step"] for row in csv.DictReader((here / "run/results.csv").read_text().splitlines())]
    assert len(steps) == len(set(steps)), "no step is logged twice"


def test_resuming_a_finished_run_changes_nothing(journey: Journey, here: Path) -> None:
    words = journey.words("source-only", "--set", "steps=1", "--out", "once", "--resume", "auto")
    assert invoke(*words).code == 0
    before = checkpoint(here / "once/last.pth")["weights"]
    again = invoke(*words)
    assert again.code == 0, again.err
    assert_same(checkpoint(here / "once/last.pth")["weights"], before)


def test_export_writes_a_verified_file_that_carries_its_spec(journey: Journey) -> None:
    told = journey.outcomes["export"].json
    assert told["onnx"] == "run/last.onnx"
    assert told["parity"]["passed"] is True
    shown = invoke("inspect", journey.run / "last.onnx", "--json").json
    assert shown["kind"] == "onnx"
    assert shown["spec"]["size_hw"] == [64, 64]
    assert shown["spec"]["provenance"]["recipe"] == "rtda-light-thin"
    assert shown["input_shape"] == [1, 3, 64, 64] and shown["output_shape"] == [1, 19, 8, 8]


def test_the_parent_of_an_onnx_is_named_by_its_hash(journey: Journey) -> None:
    spec = invoke("inspect", journey.run / "last.onnx", "--json").json["spec"]
    parent = invoke("inspect", journey.run / "last.pth", "--json").json
    assert parent["sha256"] in json.dumps(spec["provenance"])


def test_verify_finds_checkpoint_and_onnx_equal(journey: Journey) -> None:
    told = journey.outcomes["verify"].json
    assert told["passed"] is True
    assert told["agreement"] >= 0.9999
    assert "verify.html" in files_below(journey.folder / "v")


def test_eval_gives_the_same_numbers_for_both_files(journey: Journey) -> None:
    torch_says, onnx_says = (journey.outcomes[name].json for name in ("eval-pth", "eval-onnx"))
    assert torch_says["pictures"] == onnx_says["pictures"] == 6
    for key in ("miou", "pixel_accuracy", "protocol_miou"):
        # 36,672 pixels are scored; rounding in float32 may turn a few that lie between two classes
        assert torch_says[key] == pytest.approx(onnx_says[key], abs=0.05), key
    assert set(torch_says["iou"]) == set(onnx_says["iou"]) and len(torch_says["iou"]) == 19
    for name in ("eval-pth", "eval-onnx"):
        assert files_below(journey.folder / name) == ["report.html", "results.json"]
        saved = json.loads((journey.folder / name / "results.json").read_text())
        assert saved["miou"] == journey.outcomes[name].json["miou"]


def test_run_writes_the_overlay_and_a_mask_per_frame(journey: Journey) -> None:
    import cv2

    told = journey.outcomes["run"].json
    assert told["event"] == "summary" and told["frames"] == 5 and told["dropped"] == 0
    assert told["wrote"] == ["o.mp4", "masks"]
    assert set(told["stages"]) >= {"capture", "preprocess", "infer", "postprocess", "age"}
    assert files_below(journey.folder / "masks") == [f"{index:06d}.png" for index in range(5)]
    mask = cv2.imread(str(journey.folder / "masks/000000.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (64, 96) and mask.dtype == np.uint8 and mask.max() < 19
    video = cv2.VideoCapture(str(journey.folder / "o.mp4"))
    count = 0
    while video.grab():
        count += 1
    assert count == 5
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 96 and video.get(cv2.CAP_PROP_FRAME_HEIGHT) == 64


def test_a_checkpoint_can_start_another_training(journey: Journey, here: Path) -> None:
    words = journey.words("source-only", "--set", "steps=1", "--out", "next", "--init", str(journey.run / "last.pth"))
    assert invoke(*words).code == 0
    spec = invoke("inspect", "next/last.pth", "--json").json["spec"]
    parent = invoke("inspect", journey.run / "last.pth", "--json").json
    assert spec["provenance"]["parent_sha256"] == parent["sha256"]
    first, second = spec["provenance"]["ancestry"]
    assert (first["made"], first["recipe"], first["footage"]) == ("trained", "rtda-light-thin", journey.data)
    assert first.get("card", {}).get("pictures") == (parent["card"] or {}).get("pictures")
    assert (second["made"], second["recipe"], second["parent_sha256"]) == ("trained", "source-only", parent["sha256"])


def test_inspect_draws_where_an_exported_model_comes_from(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    digests = [
        invoke("inspect", journey.run / name, "--json").json["sha256"][:12] for name in ("last.pth", "last.onnx")
    ]
    lines = invoke("inspect", journey.run / "last.onnx").out.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("lineage"))
    assert f"{digests[0]}  trained by rtda-light-thin of {journey.data} on {journey.data}" in lines[place]
    assert f"└─ {digests[1]}  exported" in lines[place + 1]


def test_each_step_names_the_next_command(journey: Journey) -> None:
    assert "next    rtda-deploy export run/last.pth" in journey.outcomes["train"].err
    assert "next    rtda-deploy bench run/last.onnx" in journey.outcomes["export"].err
