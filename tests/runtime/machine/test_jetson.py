"""Which Jetson, which power mode, which clocks: read from recorded output of JetPack's own tools."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Optional

import pytest
from patience import wait_for
from runtime.boards import RECORDED, FakeJetson

from rtda_deploy.errors import ConfigError, DeviceError
from rtda_runtime.machine.board_watch import BoardWatch
from rtda_runtime.machine.jetson import (
    ClockRange,
    PowerMode,
    parse_power_mode,
    parse_power_modes,
    read_board,
    read_power_mode,
    set_power_mode,
)


@pytest.fixture()
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    """An AGX Xavier whose tools are first on PATH."""
    made = FakeJetson(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    return made


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("nvpmodel-agx-xavier-jetpack5", PowerMode("MODE_30W_ALL", 3)),
        ("nvpmodel-xavier-nx-jetpack4", PowerMode("MODE_15W_6CORE", 2)),
        ("nvpmodel-xavier-nx-jetpack5", PowerMode("MODE_20W_6CORE", 8)),
        ("nvpmodel-agx-orin-jetpack6", PowerMode("MAXN", 0)),
        ("nvpmodel-reboot", None),
    ],
)
def test_the_mode_is_read_whatever_stands_around_it(name: str, mode: Optional[PowerMode]) -> None:
    assert parse_power_mode((RECORDED / f"{name}.txt").read_text()) == mode


def test_a_mode_without_a_number_keeps_its_name() -> None:
    assert parse_power_mode("NV Power Mode: 15W\n") == PowerMode("15W", None)


def test_the_modes_of_a_board_are_those_of_its_configuration() -> None:
    modes = parse_power_modes((RECORDED / "nvpmodel-agx-xavier.conf").read_text())
    assert [mode.number for mode in modes] == [0, 1, 2, 3, 4, 7]
    assert PowerMode("MODE_30W_6CORE", 4) in modes, "NAME may stand before ID"


def test_a_xavier_is_read_whole(jetson: FakeJetson) -> None:
    board = read_board(jetson.root)
    assert board.is_jetson and board.missing == ()
    assert (board.model, board.l4t) == ("Jetson-AGX", "35.4.1")
    assert board.power_mode == PowerMode("MODE_30W_ALL", 3)
    assert board.gpu_clock == ClockRange(115, 905, 905) and not board.gpu_clock.locked
    assert board.cpu_clock == ClockRange(1190, 1190, 1190) and board.cpu_clock.locked
    assert board.cpus_online == "0-7"
    record = board.to_dict()
    assert record["power_mode"] == {"name": "MODE_30W_ALL", "number": 3}
    assert record["gpu_clock"] == {"least_mhz": 115, "now_mhz": 905, "most_mhz": 905}
    assert len(record["power_modes"]) == 6


def test_what_is_missing_is_said_and_never_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = FakeJetson(tmp_path, tools=False)
    (bare.root / "etc/nvpmodel.conf").unlink()
    monkeypatch.setenv("PATH", str(bare.bin))
    board = read_board(bare.root)
    assert board.is_jetson and board.power_mode is None and board.power_modes == ()
    assert len(board.missing) == 3
    assert any("nvpmodel" in sentence for sentence in board.missing)
    assert any("tegrastats" in sentence for sentence in board.missing)


def test_a_jetson_whose_release_file_is_hidden_is_still_one(jetson: FakeJetson) -> None:
    (jetson.root / "etc/nv_tegra_release").unlink()
    jetson.write("proc/device-tree/compatible", "nvidia,p2972-0000\0nvidia,tegra194\0")
    board = read_board(jetson.root)
    assert board.is_jetson and board.l4t is None
    assert "container" in board.missing[0]


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    board = read_board(tmp_path)
    assert not board.is_jetson
    assert board.missing == ("not a Jetson: power mode, clocks, temperature and power are not known",)


def test_a_mode_is_set_and_checked(jetson: FakeJetson) -> None:
    assert set_power_mode(0) == PowerMode("MAXN", 0)
    assert read_power_mode() == PowerMode("MAXN", 0)
    assert jetson.log == ["-m 0", "-q", "-q"]


def test_a_mode_that_wants_a_restart_is_refused_and_no_restart_is_agreed_to(jetson: FakeJetson) -> None:
    with pytest.raises(DeviceError, match="power mode 1 needs a restart") as caught:
        set_power_mode(1)
    assert "answered no" in jetson.log
    assert "sudo nvpmodel -m 1" in caught.value.hint
    assert read_power_mode() == PowerMode("MODE_30W_ALL", 3)


def test_a_mode_that_the_board_has_not_is_refused_with_the_tools_reason(jetson: FakeJetson) -> None:
    with pytest.raises(DeviceError, match="could not be set") as caught:
        set_power_mode(42)
    assert caught.value.why == "NVPM ERROR: invalid power mode id: 42"
    with pytest.raises(ConfigError, match="-1"):
        set_power_mode(-1)


def test_without_nvpmodel_no_mode_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_power_mode() is None
    with pytest.raises(DeviceError, match="nvpmodel is not there"):
        set_power_mode(0)


def test_a_jetson_tells_its_power_mode_clocks_temperature_and_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jetson = FakeJetson(tmp_path / "xavier")
    monkeypatch.setenv("PATH", f"{jetson.bin}:{os.environ['PATH']}")
    with BoardWatch(jetson.root) as board:
        assert re.fullmatch(r"MODE_\w+, clocks not locked", board.line()) and board.clocks_locked is False
        wait_for(board.now, "a reading")
        assert re.fullmatch(r"\d+ °C \d+\.\d W", board.now())
        told = json.loads(json.dumps(board.to_dict()))
    assert told["power_mode"]["name"].startswith("MODE_") and told["telemetry"]["power_w"] > 0


def test_any_other_machine_tells_nothing(tmp_path: Path) -> None:
    with BoardWatch(tmp_path) as board:
        assert (board.line(), board.now(), board.to_dict(), board.clocks_locked) == ("", "", None, None)
