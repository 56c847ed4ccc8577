"""What a Jetson tells while something runs on it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from patience import PATIENCE_S
from runtime.boards import FakeJetson

from rtda_runtime.machine.board_watch import BoardWatch


def test_a_jetson_tells_its_power_mode_clocks_temperature_and_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jetson = FakeJetson(tmp_path / "xavier")
    monkeypatch.setenv("PATH", f"{jetson.bin}:{os.environ['PATH']}")
    with BoardWatch(jetson.root) as board:
        assert re.fullmatch(r"MODE_\w+, clocks not locked", board.line()) and board.clocks_locked is False
        deadline = time.monotonic() + PATIENCE_S
        while not board.now():
            assert time.monotonic() < deadline, "no reading"
            time.sleep(0.01)
        assert re.fullmatch(r"\d+ °C \d+\.\d W", board.now())
        told = json.loads(json.dumps(board.to_dict()))
    assert told["power_mode"]["name"].startswith("MODE_") and told["telemetry"]["power_w"] > 0


def test_any_other_machine_tells_nothing(tmp_path: Path) -> None:
    with BoardWatch(tmp_path) as board:
        assert (board.line(), board.now(), board.to_dict(), board.clocks_locked) == ("", "", None, None)
