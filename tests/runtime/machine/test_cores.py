"""How many threads a network gets, on processors and in containers made of files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List

import pytest

from rtda_runtime.machine.cores import cpu_model, cpu_quota, threads_text, usable_cores

CPUS = "sys/devices/system/cpu"
# Recorded: cat /sys/devices/system/cpu/cpu*/topology/core_cpus_list
EPYC_2 = ["0", "1"]  # a virtual machine, one thread a core
CORE_I7_4X2 = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"]
RYZEN_2X2 = ["0-1", "0-1", "2-3", "2-3"]
# Recorded: /proc/self/cgroup
VERSION_2 = "0::/\n"
SERVICE = "0::/system.slice/robot.service\n"
HYBRID = "9:name=systemd:/\n4:memory:/a44b\n3:cpuset:/\n2:cpuacct:/\n1:cpu:/\n0::/\n"
DOCKER_1 = "12:cpu,cpuacct:/docker/0f3c\n4:memory:/docker/0f3c\n1:name=systemd:/docker/0f3c\n"


def machine(root: Path, siblings: List[str], files: Dict[str, str], listed: str = "core_cpus_list") -> Path:
    topology = {f"{CPUS}/cpu{cpu}/topology/{listed}": f"{text}\n" for cpu, text in enumerate(siblings)}
    for name, text in {**topology, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("listed", ["core_cpus_list", "thread_siblings_list"])
@pytest.mark.parametrize(
    ("siblings", "cpus", "cores"),
    [
        (EPYC_2, [0, 1], 2),
        (EPYC_2, [1], 1),
        (CORE_I7_4X2, range(8), 4),
        (CORE_I7_4X2, [0, 4], 1),  # taskset -c 0,4: two threads of one core
        (CORE_I7_4X2, [0, 1, 5], 2),
        (RYZEN_2X2, [0, 1, 2, 3], 2),
        ([], [0, 1, 2, 3, 4, 5], 6),  # no topology told: each is a core
    ],
)
def test_a_core_counts_once_and_only_where_this_process_may_run(
    tmp_path: Path, siblings: List[str], cpus: List[int], cores: int, listed: str
) -> None:
    assert usable_cores(machine(tmp_path, siblings, {}, listed), cpus) == cores


GROUPS = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": VERSION_2, f"{GROUPS}/cpu.max": "250000 100000\n"}, 2.5),
        ({"proc/self/cgroup": VERSION_2, f"{GROUPS}/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": VERSION_2, f"{GROUPS}/cpu.max": "50000 100000\n"}, 0.5),
        # systemd's CPUQuota= of a service, seen from inside the service
        ({"proc/self/cgroup": SERVICE, f"{GROUPS}/system.slice/robot.service/cpu.max": "150000 100000\n"}, 1.5),
        # a group around it has less
        (
            {
                "proc/self/cgroup": SERVICE,
                f"{GROUPS}/system.slice/robot.service/cpu.max": "300000 100000\n",
                f"{GROUPS}/system.slice/cpu.max": "100000 100000\n",
            },
            1.0,
        ),
        # the group of another service is none of ours
        ({"proc/self/cgroup": SERVICE, f"{GROUPS}/system.slice/other.service/cpu.max": "100000 100000\n"}, None),
        (
            {
                "proc/self/cgroup": HYBRID,
                f"{GROUPS}/cpu/cpu.cfs_quota_us": "200000\n",
                f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": HYBRID,
                f"{GROUPS}/cpu/cpu.cfs_quota_us": "-1\n",
                f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        # Docker on version 1: the path is the host's, the files stand where the container's mount begins
        (
            {
                "proc/self/cgroup": DOCKER_1,
                f"{GROUPS}/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                f"{GROUPS}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        # a path out of the container's view
        (
            {
                "proc/self/cgroup": "0::/../../host\n",
                f"{GROUPS}/cpu.max": "100000 100000\n",
                f"{GROUPS}/../../host/cpu.max": "50000 100000\n",
            },
            1.0,
        ),
        ({f"{GROUPS}/cpu.max": "100000 100000\n"}, 1.0),
        ({f"{GROUPS}/cpu.max": "100000 0\n"}, None),
        ({f"{GROUPS}/cpu.max": "nonsense\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_is_the_tightest_of_the_groups_around_this_process(
    tmp_path: Path, files: Dict[str, str], quota: object
) -> None:
    assert cpu_quota(machine(tmp_path, EPYC_2, files)) == quota


@pytest.mark.parametrize(
    ("quota", "cores"), [("0", 1), ("50000", 1), ("150000", 2), ("300000", 3), ("900000", 4), ("max", 4)]
)
def test_a_quota_is_rounded_up_and_never_adds_cores(tmp_path: Path, quota: str, cores: int) -> None:
    files = {"proc/self/cgroup": VERSION_2, f"{GROUPS}/cpu.max": f"{quota} 100000\n"}
    assert usable_cores(machine(tmp_path, CORE_I7_4X2, files), range(8)) == cores


def test_this_machine_has_at_least_one_and_no_more_than_it_may_use() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    assert cpu_model()


def test_a_process_bound_to_one_core_gets_one_thread() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_processor_has_its_name(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 0 (v8l)\n"}
    assert cpu_model(machine(tmp_path, [], files)) == "ARMv8 Processor rev 0 (v8l)"
    assert cpu_model(tmp_path / "nowhere")


def test_one_thread_is_singular() -> None:
    assert (threads_text(1), threads_text(2)) == ("1 thread", "2 threads")
