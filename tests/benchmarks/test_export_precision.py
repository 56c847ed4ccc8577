"""export_precision: INT8 end to end, with tiny networks in the place of the two precisions."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
from runtime.models import NAMES, PALETTE, tiny_spec, write_model

pytest.importorskip("torch", reason="the script makes its files with torch")
pytest.importorskip("onnx", reason="the tiny networks are written with onnx")
cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")

from rtda_export import evaluate  # noqa: E402
from rtda_runtime import Segmenter  # noqa: E402
from rtda_training.readers import LabelledSet, open_labelled  # noqa: E402

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("export_precision")
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("export_precision", None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("plain") / "plain.onnx", tiny_spec())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("other") / "other.onnx", tiny_spec(), seed=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> LabelledSet:
    """Five frames of 120x80, not the network's size; the labels are the masks of the float32 network."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "classes.json").write_text(json.dumps({"names": list(NAMES), "palette": [list(c) for c in PALETTE]}))
    rng = np.random.default_rng(3)
    with Segmenter.open(plain, "cpu", threads=1) as segmenter:
        for number in range(5):
            frame = cv2.resize(rng.integers(0, 256, (10, 15, 3), dtype=np.uint8), (120, 80))
            cv2.imwrite(str(folder / "images" / f"{number}.png"), frame)
            cv2.imwrite(str(folder / "labels" / f"{number}.png"), segmenter.segment(frame).mask)
    return open_labelled(f"folder:{folder}", split="test")


def test_the_same_network_twice_loses_nothing(script: Any, plain: Path, data: LabelledSet) -> None:
    row = script.end_to_end(plain, plain, "cpu", data, threads=1)
    assert (row["miou_fp32"], row["lost"], row["agreement"], row["met"]) == (100.0, 0.0, 1.0, True)
    assert (row["runs_in"], row["pictures"], row["size"]) == ("ONNX Runtime", 5, "120x80")
    assert 0 < row["low"] <= row["ratio"] <= row["high"] and row["ms_fp32"] > 0 < row["ms_int8"]


def test_a_worse_network_loses_what_eval_says_and_misses_the_goal(
    script: Any, plain: Path, other: Path, data: LabelledSet
) -> None:
    row = script.end_to_end(plain, other, "cpu", data, threads=1)
    assert row["miou_fp32"] == 100.0, "the labels are its own masks, at the frames' size"
    assert row["miou_int8"] == pytest.approx(100 * evaluate(other, data, provider="cpu").scores.miou())
    assert row["lost"] == pytest.approx(100.0 - row["miou_int8"]) and row["lost"] > script.MIOU_LOSS
    assert not row["met"] and 0 < row["agreement"] < 1
    sentence = script.end_to_end_sentence(row)
    assert f"mIoU 100.00 to {row['miou_int8']:.2f}" in sentence and "at most 0.5; MISSED" in sentence


def test_a_few_pictures_are_spread_over_the_set(script: Any, plain: Path, data: LabelledSet) -> None:
    assert script.end_to_end(plain, plain, "cpu", data, pictures=2, threads=1)["pictures"] == 2
