"""What a benchmark writes down about the machine, on machines made of files."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Dict, Optional

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.boards import FakeJetson

from rtda_runtime.machine.conditions import Conditions, ConditionsMonitor
from rtda_runtime.machine.environment import CpuClock, Environment, Gpu, Memory, environment
from rtda_runtime.machine.jetson import PowerMode
from rtda_runtime.records import from_json

H100 = "NVIDIA H100 80GB HBM3, 550.54.15, 1980, 1980, 34, 70.12, 0x0000000000000000"


def write(root: Path, files: Dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture()
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with one empty folder, for tools made by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def nvidia_smi(folder: Path, *lines: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_this_machine_is_known_and_json() -> None:
    machine = environment()
    assert machine.cpu and machine.machine and machine.os and machine.kernel and machine.versions["python"]
    assert 1 <= machine.cores <= (machine.cores_total or 0)
    assert (machine.memory_mb.total or 0) > (machine.memory_mb.available or 0) > 0
    values = json.loads(json.dumps(machine.to_dict()))
    assert values["numpy"] == np.__version__ and values["rtda_deploy"], "versions stand beside the other keys"
    assert Environment.from_dict(values) == machine


def test_a_package_that_is_not_loaded_is_not_imported_for_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    versions = environment(libraries=["tensorrt", "openvino"]).versions
    assert versions["tensorrt"] is None
    assert list(versions) == ["python", "numpy", "openvino", "tensorrt", "opencv", "rtda_deploy"], "as earlier records"


def test_a_laptop_in_power_saving_is_recorded(tmp_path: Path, bare_path: Path) -> None:
    cpufreq = "sys/devices/system/cpu/cpu0/cpufreq"
    root = write(
        tmp_path / "root",
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7\nprocessor\t: 1\n",
            "proc/meminfo": "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n",
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
            f"{cpufreq}/scaling_governor": "powersave\n",
            f"{cpufreq}/scaling_min_freq": "400000\n",
            f"{cpufreq}/scaling_cur_freq": "1200000\n",
            f"{cpufreq}/scaling_max_freq": "4700000\n",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone0/temp": "61000\n",
            "sys/class/thermal/thermal_zone1/type": "off\n",
            "sys/class/thermal/thermal_zone1/temp": "-274000\n",
        },
    )
    found = environment(root)
    assert (found.cpu, found.os) == ("Intel(R) Core(TM) i7", "Ubuntu 22.04.4 LTS")
    assert found.governor == "powersave"
    assert found.cpu_mhz == CpuClock(least=400, now=1200, most=4700)
    assert found.memory_mb == Memory(total=15625, available=7812, limit=None)
    assert found.temperatures_c == {"x86_pkg_temp": 61.0}
    assert found.container is None and found.cpu_quota is None
    assert found.gpus == () and found.jetson is None


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"proc/1/cgroup": "0::/kubepods.slice/pod1\n"}, "kubernetes"),
        ({"proc/1/cgroup": "12:cpu:/docker/abc\n"}, "docker"),
        ({"run/systemd/container": "systemd-nspawn\n"}, "container"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
    ],
)
def test_a_container_is_seen(tmp_path: Path, files: Dict[str, str], kind: Optional[str]) -> None:
    assert environment(write(tmp_path, files)).container == kind


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_the_cpu_limit_of_a_container_is_read_from_both_versions_of_control_groups(
    tmp_path: Path, files: Dict[str, str], quota: Optional[float]
) -> None:
    assert environment(write(tmp_path, files)).cpu_quota == quota


def test_the_memory_limit_of_a_container_is_read(tmp_path: Path) -> None:
    assert environment(write(tmp_path, {"sys/fs/cgroup/memory.max": f"{512 << 20}\n"})).memory_mb.limit == 512
    assert environment(write(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"})).memory_mb.limit is None


def test_gpus_are_named_with_their_driver(bare_path: Path) -> None:
    nvidia_smi(bare_path, H100, "NVIDIA T4, 535.1, [N/A], 1590, 71, 65.0, 0x0000000000000020")
    first, second = environment().gpus
    assert first == Gpu(
        name="NVIDIA H100 80GB HBM3",
        driver="550.54.15",
        clock_mhz=1980.0,
        clock_max_mhz=1980.0,
        temperature_c=34.0,
        power_w=70.12,
        throttled=None,
    )
    assert second.clock_mhz is None and second.throttled == "heat"


@pytest.mark.parametrize(("bits", "throttled"), [("0x04", "power"), ("0x40", "heat"), ("0x44", "heat"), ("0x01", None)])
def test_why_a_gpu_runs_below_its_clock(bare_path: Path, bits: str, throttled: Optional[str]) -> None:
    nvidia_smi(bare_path, H100.replace("0x0000000000000000", bits))
    assert environment().gpus[0].throttled == throttled


def test_an_nvidia_smi_that_fails_is_no_gpu(bare_path: Path) -> None:
    nvidia_smi(bare_path, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert environment().gpus == ()


@pytest.fixture()
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    made = FakeJetson(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    return made


def test_a_jetson_is_recorded_with_its_power_mode_and_what_tegrastats_saw(jetson: FakeJetson) -> None:
    board = environment(jetson.root).jetson
    assert board is not None and board.power_mode == PowerMode("MODE_30W_ALL", 3)
    assert board.gpu_clock is not None and board.gpu_clock.most_mhz == 905
    deadline, wait_s = time.monotonic() + PATIENCE_S, 0.05
    while True:  # tegrastats is another process, which may take its time to begin
        with ConditionsMonitor(jetson.root) as monitor:
            threading.Event().wait(wait_s)
        seen = monitor.conditions.jetson
        assert seen is not None and jetson.log[-1] == "stopped"
        if seen.readings > 0 or time.monotonic() > deadline:
            break
        wait_s *= 2
    assert seen.readings > 0 and (seen.power_w or 0) > 1
    assert monitor.conditions.temperature_end_c == seen.temperature_max_c
    assert from_json(Conditions, monitor.conditions.to_dict()) == monitor.conditions


def test_what_this_process_and_others_took_is_told_apart(tmp_path: Path, bare_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    write(tmp_path, {"proc/stat": "cpu  100 0 100 1000 0 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"})
    with ConditionsMonitor(tmp_path) as monitor:
        started = time.process_time()
        while time.process_time() - started < 0.2:
            pass
        write(tmp_path, {"proc/stat": f"cpu  {100 + 2 * ticks} 0 100 1000 0 0 0 {ticks} 0 0\n"})
    found = monitor.conditions
    assert found.other_cores is not None and found.stolen_cores is not None
    rounding = 0.02 + 0.02 * found.seconds  # each figure has two places after the point
    assert found.own_cores * found.seconds >= 0.2 - rounding
    assert (found.own_cores + found.other_cores) * found.seconds == pytest.approx(2.0, abs=rounding)
    assert found.stolen_cores * found.seconds == pytest.approx(1.0, abs=rounding)


def test_heat_and_lowered_clocks_are_counted(tmp_path: Path, bare_path: Path) -> None:
    count = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    zone = "sys/class/thermal/thermal_zone0"
    write(tmp_path, {count.format(0): "7\n", count.format(1): "1\n", f"{zone}/type": "cpu\n", f"{zone}/temp": "50000"})
    with ConditionsMonitor(tmp_path) as monitor:
        write(tmp_path, {count.format(1): "4\n", f"{zone}/temp": "95000"})
    assert monitor.conditions.throttled == 3
    assert (monitor.conditions.temperature_start_c, monitor.conditions.temperature_end_c) == (50.0, 95.0)


def test_a_machine_that_tells_nothing_is_recorded_as_that(tmp_path: Path, bare_path: Path) -> None:
    with ConditionsMonitor(tmp_path) as monitor:
        pass
    values = json.loads(json.dumps(monitor.conditions.to_dict()))
    for name in ("other_cores", "stolen_cores", "throttled", "temperature_start_c", "jetson"):
        assert values[name] is None
    assert from_json(Conditions, values) == monitor.conditions
