"""Novelty and confidence of a network that was exported with ``--monitor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from runtime.models import tiny_spec, write_model
from runtime.shift.collecting.frames import SPEC, result_of
from runtime.shift.drives import WIDTHS, Drive

from rtda_deploy.familiar import MONITOR, SIGNALS, with_familiar
from rtda_deploy.onnx_file import CARD_KEY
from rtda_runtime import CollectOptions, Collector
from rtda_runtime.shift.collecting.familiarity import Familiarity, confidence_signal, familiarity_of
from rtda_runtime.shift.collecting.look import look_at

MONITORED = SPEC.replace(provenance={"export": {MONITOR: dict(zip(SIGNALS, WIDTHS))}})


def monitored(seed: int, at_s: float, signals: np.ndarray, **changes: Any) -> Any:
    return result_of(seed, at_s, monitor=signals.astype(np.float32), **{"spec": MONITORED, **changes})


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    """A network whose card says what a drive looks like."""
    path = write_model(tmp_path / "a.onnx", tiny_spec())
    network = onnx.load(str(path))
    entry = network.metadata_props.add()
    entry.key, entry.value = CARD_KEY, with_familiar("", Drive(1).familiar(60))
    onnx.save(network, str(path))
    return path


def test_what_the_card_knows_is_less_novel_than_what_it_does_not(model: Path) -> None:
    familiarity = familiarity_of(model)
    assert familiarity is not None
    known = [familiarity.of(block.astype(np.float32)) for block in Drive(2).blocks(40)]
    foreign = [familiarity.of(block.astype(np.float32)) for block in Drive(2).blocks(40, shift=12.0)]
    usual = [value for value in known if value is not None]
    assert len(usual) == 40 and 0.3 < np.median(usual) < 0.7
    assert min(value or 0.0 for value in foreign) > 0.87 > max(usual)


def test_signals_that_are_not_the_cards_say_nothing() -> None:
    familiarity = Familiarity(Drive(1).familiar(30))
    assert familiarity.of(np.zeros(3, np.float32)) is None
    assert familiarity.of(np.full(sum(WIDTHS), np.nan, np.float32)) is None


def test_a_model_without_a_card_is_judged_by_the_run(tmp_path: Path) -> None:
    assert familiarity_of(write_model(tmp_path / "a.onnx")) is None
    assert familiarity_of(tmp_path / "nothing.onnx") is None


def test_the_confidence_of_a_monitored_network_needs_no_confidence_of_each_pixel() -> None:
    signals = np.zeros(sum(WIDTHS), np.float32)
    signals[-1] = 0.25
    result = monitored(1, 0.0, signals)
    assert confidence_signal(result) == 0.25 and look_at(result).values["confidence"] == 0.25
    both = monitored(1, 0.0, signals, confidence=np.full((64, 96), 255, np.uint8))
    assert look_at(both).values["confidence"] == 1.0, "that of each pixel goes before"
    assert confidence_signal(result_of(1, 0.0)) is None
    assert confidence_signal(monitored(1, 0.0, signals, spec=SPEC)) is None
    assert confidence_signal(monitored(1, 0.0, signals * np.nan)) is None


def test_a_collector_keeps_what_the_card_does_not_know(tmp_path: Path, model: Path) -> None:
    known, foreign = Drive(2).blocks(12), Drive(2).blocks(12, shift=12.0)
    options = CollectOptions(control=0.0, free_bytes=0, when="novelty > 0.87 and confidence < 1")
    with Collector(tmp_path / "hard", MONITORED, options, model_file=model) as collector:
        for number in range(12):
            signals = foreign[number] if number in (3, 9) else known[number]
            collector.write(monitored(number, number * 4.0, signals))
    lines = [json.loads(line) for line in (tmp_path / "hard" / "frames.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["why"] == "asked"]
    assert [line["sequence"] for line in lines] == [3, 9]
    assert all(line["scores"]["novelty"] > 0.8 for line in lines)
