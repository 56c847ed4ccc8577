"""Lines of tegrastats from JetPack 4, 5 and 6, and the child process that writes them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import List

import pytest
from patience import wait_for
from runtime.boards import RECORDED, FakeJetson

from rtda_deploy.errors import DeviceError
from rtda_runtime.machine.tegrastats import Reading, Tegrastats, parse_tegrastats, summarize_readings


def readings(name: str) -> List[Reading]:
    """What a recorded file says, a second from line to line."""
    lines = (RECORDED / f"tegrastats-{name}.txt").read_text().splitlines()
    found = [parse_tegrastats(line, float(second)) for second, line in enumerate(lines)]
    assert None not in found
    return [reading for reading in found if reading is not None]


def test_agx_xavier_of_jetpack_4_has_no_units() -> None:
    idle, busy = readings("agx-xavier-jetpack4")
    assert idle.rails_mw == {"GPU": 463, "CPU": 618, "SOC": 2936, "CV": 0, "VDDRQ": 309, "SYS5V": 3306}
    assert idle.power_w == pytest.approx(7.632)
    assert idle.cpu_percent == (2, 0, 1, 0, None, None, None, None) and idle.cpu_mhz[4] is None
    assert (idle.gpu_percent, idle.gpu_mhz, idle.emc_mhz) == (0, None, None)
    assert (busy.gpu_percent, busy.gpu_mhz, busy.emc_percent, busy.emc_mhz) == (99, 1377, 41, 2133)
    assert busy.power_w == pytest.approx(26.058)


def test_agx_xavier_of_jetpack_5() -> None:
    idle, busy = readings("agx-xavier-jetpack5")
    assert idle.total_rails == ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")
    assert idle.power_w == pytest.approx(5.258)
    assert idle.temperatures_c["GPU"] == 35.0 and "PMIC" not in idle.temperatures_c
    assert idle.hottest_c == 38.75
    assert busy.ram_used_mb == 3406 and busy.ram_total_mb == 30982
    assert busy.gpu_mhz == 905 and busy.cpu_mhz[0] == 1907


def test_xavier_nx_shows_the_modules_input() -> None:
    _, busy = readings("xavier-nx-jetpack5")
    assert busy.total_rails == ("VDD_IN",)
    assert busy.power_w == pytest.approx(13.42), "VDD_CPU_GPU_CV and VDD_SOC are parts of VDD_IN"
    assert busy.gpu_mhz == 1109
    assert busy.cpu_percent[4:] == (None, None)


def test_agx_orin_of_jetpack_6() -> None:
    idle, busy = readings("agx-orin-jetpack6")
    assert busy.total_rails == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert busy.power_w == pytest.approx(31.317), "the memory's rail is fed from VIN_SYS_5V0"
    assert idle.rails_mw["VDD_CPU_CV"] == -398
    assert "gpu" not in idle.temperatures_c and busy.temperatures_c["gpu"] == 54.5
    assert (busy.gpu_percent, busy.gpu_mhz) == (97, 1300)
    assert idle.hottest_c == 52.562


def test_orin_nano_of_jetpack_6_without_clocks() -> None:
    (idle,) = readings("orin-nano-jetpack6")
    assert idle.power_w == pytest.approx(5.251)
    assert (idle.gpu_percent, idle.gpu_mhz, idle.emc_percent) == (0, None, None)


def test_rails_that_are_not_shown_give_no_power() -> None:
    (bare,) = readings("without-root")
    assert bare.rails_mw == {} and bare.power_w is None and bare.total_rails == ()
    assert bare.hottest_c == 37.5


def test_unknown_rails_are_not_added_up() -> None:
    line = "RAM 1/2MB (lfb 1x4MB) CPU [1%@729] GR3D_FREQ 0% VDD_NEW 100mW/100mW NC 0mW/0mW"
    reading = parse_tegrastats(line)
    assert reading is not None and reading.rails_mw == {"VDD_NEW": 100} and reading.power_w is None


@pytest.mark.parametrize("line", ["", "\n", "sudo: a password is required", "RAM"])
def test_other_lines_are_no_readings(line: str) -> None:
    assert parse_tegrastats(line) is None


def test_a_window_is_its_means_and_extremes() -> None:
    found = summarize_readings(readings("agx-xavier-jetpack5"))
    assert found.readings == 2
    assert found.power_w == pytest.approx((5.258 + 19.157) / 2)
    assert found.power_max_w == pytest.approx(19.157)
    assert found.rails_w["GPU"] == pytest.approx((0.467 + 9.012) / 2)
    assert (found.temperature_start_c, found.temperature_max_c) == (38.75, 41.5)
    assert found.gpu_mhz == round((114 + 905) / 2)
    assert found.ram_max_mb == 3406
    assert found.cpu_mhz == round((1191 + 1907) / 2), "of the fastest core"


def test_an_empty_window_knows_nothing() -> None:
    found = summarize_readings([])
    assert found.readings == 0 and found.power_rails == ()
    assert {found.power_w, found.gpu_mhz, found.temperature_max_c, found.ram_max_mb} == {None}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_child_is_read_while_it_runs_and_is_gone_afterwards(tmp_path: Path) -> None:
    jetson = FakeJetson(tmp_path)
    watch = Tegrastats(interval_ms=50, command=[str(jetson.bin / "tegrastats")])
    assert watch.ended is None
    wait_for(lambda: len(watch.between(0, watch.now_s())) >= 4, "four readings")
    middle = watch.between(0, watch.now_s())[2].at_s
    assert all(reading.at_s >= middle for reading in watch.between(middle, watch.now_s()))
    assert watch.between(0, middle)[-1].at_s == middle
    assert os.getsid(watch.pid) == watch.pid, "a Ctrl-C in the terminal must not reach it"
    watch.close()
    watch.close()
    assert is_gone(watch.pid), "waited for: no zombie"
    assert "tegrastats" not in {thread.name for thread in threading.enumerate()}
    assert jetson.log == ["started --interval 50", "stopped"]
    assert watch.ended == "it was stopped"


def test_a_child_that_ends_says_why(tmp_path: Path) -> None:
    program = tmp_path / "tegrastats"
    program.write_text("#!/bin/sh\necho 'cannot open the sensors'\nexit 1\n")
    program.chmod(0o755)
    with Tegrastats(command=[str(program)]) as watch:
        wait_for(lambda: watch.ended == "cannot open the sensors", "last words")
        assert watch.between(0, watch.now_s()) == []


def test_a_child_that_will_not_end_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "tegrastats"
    program.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do echo RAM 1/2MB; sleep 0.02; done\n")
    program.chmod(0o755)
    watch = Tegrastats(command=[str(program)], stop_timeout_s=0.2)
    wait_for(lambda: len(watch.between(0, watch.now_s())) > 1, "readings")
    watch.close()
    assert is_gone(watch.pid)


def test_where_there_is_none_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be started") as caught:
        Tegrastats(command=[str(tmp_path / "tegrastats")])
    assert "JetPack" in caught.value.hint
