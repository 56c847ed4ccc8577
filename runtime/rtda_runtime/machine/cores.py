"""How much of the processor this process may use, and so how many threads compute a network quickest.

The libraries' own default is a thread for each core of the machine. In a container with a quota that is too many: the
kernel stops all of them for the rest of each period once their time together is used up. Nor do two threads on one
core help a network: its arithmetic units are busy with one.

Beside it stands what the kernel's files tell of the machine's heat.

Source: Linux kernel documentation, "CPU Topology", "CFS Bandwidth Control" and "Control Group v2" (cpu.max).
"""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path, PurePosixPath
from typing import Dict, Iterable, Iterator, Optional

__all__ = [
    "CPUS",
    "cpu_model",
    "cpu_quota",
    "file_text",
    "temperatures_c",
    "threads_text",
    "throttle_count",
    "usable_cores",
]

CPUS = "sys/devices/system/cpu"  # below the root


def file_text(path: Path) -> str:
    """What a file holds, without white space around it; empty where it is not there or may not be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def temperatures_c(root: Path) -> Dict[str, float]:
    """Each sensor's temperature by its name."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, value = file_text(zone / "type"), file_text(zone / "temp")
        if name and value and value.lstrip("-").isdigit() and int(value) > 0:  # a unit that is off reads below zero
            found[name] = int(value) / 1000.0
    return found


def throttle_count(root: Path) -> Optional[int]:
    """How often a core's clock was lowered for heat since the start; Intel's counter, None where there is none."""
    texts = [file_text(path) for path in (root / CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    counts = [int(text) for text in texts if text.isdigit()]
    return sum(counts) if counts else None


_GROUPS = "sys/fs/cgroup"


def usable_cores(root: Path = Path("/"), cpus: Optional[Iterable[int]] = None) -> int:
    """Threads for one inference: physical cores this process may run on, at most what its quota pays for.

    Args:
        root: Where ``/proc`` and ``/sys`` begin.
        cpus: Numbers of the logical processors it may run on; None: as the kernel says (``taskset``, cpusets).

    Returns:
        At least 1. Where the kernel tells no topology each logical processor is a core; performance and efficiency
        cores count alike.
    """
    allowed = os.sched_getaffinity(0) if cpus is None else cpus
    cores = len({_core(root, cpu) for cpu in allowed})
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> Optional[float]:
    """Cores' worth of time that this process's control group may use, or the tightest group around it; None: no limit.

    Args:
        root: Where ``/proc`` and ``/sys`` begin.
    """
    quotas = (_quota(folder) for folder in _group_folders(root))
    return min((quota for quota in quotas if quota is not None), default=None)


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's name, such as ``AMD EPYC``."""
    for line in file_text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.processor() or platform.machine()


def threads_text(count: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} thread{'' if count == 1 else 's'}"


def _core(root: Path, cpu: int) -> str:
    """The logical processors on the core of ``cpu``, as the kernel writes them: ``0,4`` or ``0-1``."""
    topology = root / CPUS / f"cpu{cpu}" / "topology"
    return file_text(topology / "core_cpus_list") or file_text(topology / "thread_siblings_list") or str(cpu)


def _group_folders(root: Path) -> Iterator[Path]:
    """Where the limits of this process's group and of all groups around it may stand, in both versions."""
    for line in [*file_text(root / "proc/self/cgroup").splitlines(), "0::/", "1:cpu:/", "1:cpu,cpuacct:/"]:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        mounts = ["", "unified"] if number == "0" else [controllers, "cpu"] if "cpu" in controllers.split(",") else []
        own = PurePosixPath(group.lstrip("/"))
        if ".." in own.parts:  # outside of what this container sees
            own = PurePosixPath()
        for mount in mounts:
            for place in (own, *own.parents):
                yield root / _GROUPS / mount / str(place)


def _quota(folder: Path) -> Optional[float]:
    quota, _, period = file_text(folder / "cpu.max").partition(" ")
    if not period:
        quota, period = file_text(folder / "cpu.cfs_quota_us"), file_text(folder / "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:  # "max", "-1": no limit
        return None
    return int(quota) / int(period)
