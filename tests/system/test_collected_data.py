"""A folder of collected frames, as it stands, is what training, adapting and ranking read."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.commandline import invoke

pytest.importorskip("torch")
pytest.importorskip("onnx")

pytestmark = pytest.mark.system

FRAMES = 10


@pytest.fixture()
def collected(tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ten frames, collected of a network's own results."""
    import cv2

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    from rtda_runtime import CollectOptions, Collector, Segmenter

    rng, options = np.random.default_rng(5), CollectOptions(control=0.0, free_bytes=0)
    with contextlib.ExitStack() as stack:
        segmenter = stack.enter_context(Segmenter.open(tiny_onnx, threads=1, confidence=True))
        with Collector("hard", segmenter.spec, options, model_file=tiny_onnx) as collector:
            for number in range(FRAMES):
                coarse = rng.integers(0, 256, (8, 9, 3), np.uint8)
                result = segmenter.segment(cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_NEAREST))
                collector.write(dataclasses.replace(result, recorded_ns=number * 10_000_000_000, live=False))
    assert collector.details()["kept"] == FRAMES
    return "folder:hard"


def _json(*words: Any) -> Any:
    outcome = invoke(*words, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


def test_a_network_scores_full_marks_on_its_own_masks(collected: str, tiny_onnx: Path) -> None:
    assert _json("data", "check", collected)["pictures"] == FRAMES
    assert _json("data", "check", collected, "--target")["pictures"] == FRAMES
    assert _json("eval", tiny_onnx, "--data", collected)["miou"] > 0.95


def test_it_is_footage_and_a_check_set_of_rank_and_adapt(
    collected: str, tiny_checkpoint: Path, tiny_onnx: Path
) -> None:
    words = ["--footage", collected, "--check", collected]
    ranked = _json("rank", tiny_onnx, tiny_checkpoint, *words)
    assert ranked["frames"] == FRAMES and all(entry["check_miou"] is not None for entry in ranked["entries"])
    small = ["--set", "batch_size=2", "--set", "device=cpu", "--set", "precision=fp32", "--out", "run"]
    adapted = _json("adapt", tiny_checkpoint, *words, "--norms-only", *small)
    assert adapted["best"] == "run/best.pth"


def test_it_is_source_target_and_val_of_a_training(collected: str) -> None:
    settings = ("steps=1", "size=64x64", "batch_size=2", "device=cpu")
    sets = [word for kind in ("source", "target", "val") for word in (f"--{kind}", collected)]
    changed = [word for text in settings for word in ("--set", text)]
    assert invoke("train", "rtda-light-thin", *sets, *changed, "--out", "run").code == 0
    assert Path("run/last.pth").is_file()
