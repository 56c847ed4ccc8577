"""What a latency depends on beside the program: the machine, its state, and the versions of what runs.

What cannot be read is None; nothing is guessed, changed or imported for it. What the machine does while something is
measured: :mod:`rtda_runtime.machine.conditions`.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from rtda_deploy import __version__
from rtda_runtime.machine.cores import CPUS, cpu_model, cpu_quota, file_text, temperatures_c, usable_cores
from rtda_runtime.machine.jetson import Board, read_board
from rtda_runtime.records import fields_from_json, fields_to_json

__all__ = ["CpuClock", "Environment", "Gpu", "Memory", "environment", "read_gpus"]

_TIMEOUT_S = 15.0  # the first call wakes a sleeping driver
_QUERY = "name,driver_version,clocks.sm,clocks.max.sm,temperature.gpu,power.draw,clocks_throttle_reasons.active"
# Bits of clocks_throttle_reasons.active. Source: NVML's nvmlClocksThrottleReasons.
_TOO_HOT = 0x08 | 0x20 | 0x40
_TOO_MUCH_POWER = 0x04 | 0x80


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU now; ``throttled``: its clock was lowered for "heat" or "power", else None."""

    name: str
    driver: Optional[str]
    clock_mhz: Optional[float]
    clock_max_mhz: Optional[float]
    temperature_c: Optional[float]
    power_w: Optional[float]
    throttled: Optional[str]


def read_gpus() -> Tuple[Gpu, ...]:
    """Every GPU; none where ``nvidia-smi`` is not there or fails."""
    if not shutil.which("nvidia-smi"):
        return ()
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [[value.strip() for value in line.split(",")] for line in done.stdout.splitlines()]
    return tuple(_gpu(*row) for row in rows if len(row) == _QUERY.count(",") + 1)


def _gpu(name: str, driver: str, clock: str, most: str, heat: str, power: str, reasons: str) -> Gpu:
    bits = int(reasons, 16) if reasons.startswith("0x") else 0
    throttled = "heat" if bits & _TOO_HOT else "power" if bits & _TOO_MUCH_POWER else None
    return Gpu(name, driver, _number(clock), _number(most), _number(heat), _number(power), throttled)


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:  # "[N/A]", "[Not Supported]"
        return None


_UNLIMITED = 1 << 60  # bytes; what a version 1 control group without a limit shows is about 2**63


@dataclasses.dataclass(frozen=True)
class CpuClock:
    """The range that the first core's clock may move in, and where it is now, MHz."""

    least: int
    now: int
    most: int


@dataclasses.dataclass(frozen=True)
class Memory:
    """MB; ``limit``: of a container."""

    total: Optional[int]
    available: Optional[int]
    limit: Optional[int]


@dataclasses.dataclass(frozen=True)
class Environment:
    """The machine before anything was measured. In JSON the versions stand beside the other keys.

    Attributes:
        machine: Such as "x86_64".
        system: The platform in one line.
        os: The distribution.
        kernel: Its release.
        container: "docker", "podman", "kubernetes", "container", or None.
        cpu: Its model.
        cores: Cores that this process may use.
        cores_total: Cores of the machine.
        cores_usable: Physical cores of those that this process may use, at most what the quota pays for.
        cpu_quota: Cores' worth of time that a container may use (None: no limit).
        governor: Of the first core.
        gpus: NVIDIA GPUs.
        jetson: None: not a Jetson.
        versions: Of what a latency depends on; None: not loaded, so not used.
    """

    machine: str
    system: str
    os: Optional[str]
    kernel: str
    container: Optional[str]
    cpu: str
    cores: int
    cores_total: Optional[int]
    cores_usable: Optional[int]
    cpu_quota: Optional[float]
    governor: Optional[str]
    cpu_mhz: Optional[CpuClock]
    memory_mb: Memory
    load_1min: float
    temperatures_c: Mapping[str, float] = dataclasses.field(default_factory=dict)
    gpus: Tuple[Gpu, ...] = ()
    jetson: Optional[Board] = None
    versions: Mapping[str, Optional[str]] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready."""
        values = fields_to_json(self)
        versions = values.pop("versions")
        return {**values, **versions}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Environment:
        """What :meth:`to_dict` gave; each key that is no field is a version."""
        fields = {field.name for field in dataclasses.fields(cls)}
        versions = {name: value for name, value in values.items() if name not in fields}
        return fields_from_json(cls, {**values, "versions": versions})


def environment(root: Path = Path("/"), libraries: Sequence[str] = ()) -> Environment:
    """This machine.

    Args:
        root: Where ``/etc``, ``/proc`` and ``/sys`` begin.
        libraries: Modules that may be at work, such as ``onnxruntime``.
    """
    board, quota = read_board(root), cpu_quota(root)
    return Environment(
        machine=platform.machine(),
        system=platform.platform(),
        os=_os_name(root),
        kernel=platform.release(),
        container=_container(root),
        cpu=cpu_model(root),
        cores=len(os.sched_getaffinity(0)),
        cores_total=os.cpu_count(),
        cores_usable=usable_cores(root),
        cpu_quota=None if quota is None else round(quota, 2),
        governor=file_text(root / CPUS / "cpu0/cpufreq/scaling_governor") or None,
        cpu_mhz=_cpu_mhz(root),
        memory_mb=_memory(root),
        load_1min=round(os.getloadavg()[0], 2),
        temperatures_c=temperatures_c(root),
        gpus=read_gpus(),
        jetson=board if board.is_jetson else None,
        versions=_versions(libraries),
    )


def _versions(libraries: Sequence[str]) -> Dict[str, Optional[str]]:
    found: Dict[str, Optional[str]] = {"python": platform.python_version()}
    for module in ("numpy", *sorted(libraries), "cv2"):
        version = getattr(sys.modules.get(module), "__version__", None)
        found["opencv" if module == "cv2" else module] = None if version is None else str(version)
    return {**found, "rtda_deploy": __version__}


def _os_name(root: Path) -> Optional[str]:
    for line in file_text(root / "etc/os-release").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return None


def _container(root: Path) -> Optional[str]:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    groups = file_text(root / "proc/1/cgroup")
    for word, kind in (("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "container")):
        if word in groups:
            return kind
    return "container" if (root / "run/systemd/container").exists() else None


def _cpu_mhz(root: Path) -> Optional[CpuClock]:
    names = {"least": "scaling_min_freq", "now": "scaling_cur_freq", "most": "scaling_max_freq"}
    texts = {key: file_text(root / CPUS / "cpu0/cpufreq" / name) for key, name in names.items()}
    if not all(text.isdigit() for text in texts.values()):
        return None
    return CpuClock(**{key: round(int(text) / 1e3) for key, text in texts.items()})  # the kernel writes kHz


def _memory(root: Path) -> Memory:
    found: Dict[str, int] = {}
    for line in file_text(root / "proc/meminfo").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in ("MemTotal:", "MemAvailable:"):
            found[words[0]] = int(words[1]) // 1024
    groups = root / "sys/fs/cgroup"
    limit = file_text(groups / "memory.max") or file_text(groups / "memory/memory.limit_in_bytes")
    limited = limit.isdigit() and int(limit) < _UNLIMITED
    return Memory(found.get("MemTotal:"), found.get("MemAvailable:"), int(limit) >> 20 if limited else None)
