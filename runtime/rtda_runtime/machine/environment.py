"""What a latency depends on beside the program: the machine, its state, and the versions of what runs.

:func:`environment` is the state before; :class:`Conditions` is what the machine did meanwhile. What cannot be read is
None; nothing is guessed, changed or imported for it.
"""

from __future__ import annotations

import importlib
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Type

from rtda_deploy.errors import DeviceError
from rtda_runtime.machine.cores import cpu_model, cpu_quota, usable_cores
from rtda_runtime.machine.jetson import read_board
from rtda_runtime.machine.tegrastats import Tegrastats, summarize_readings

__all__ = ["Conditions", "environment"]

_SMI_TIMEOUT_S = 15.0  # the first call wakes a sleeping driver
_SMI_FIELDS = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "temperature.gpu",
    "power.draw",
    "clocks_throttle_reasons.active",
)
# Bits of clocks_throttle_reasons.active. Source: NVML's nvmlClocksThrottleReasons.
_TOO_HOT = 0x08 | 0x20 | 0x40
_TOO_MUCH_POWER = 0x04 | 0x80
_CPUS = "sys/devices/system/cpu"
_UNLIMITED = 1 << 60  # bytes; what a version 1 control group without a limit shows is about 2**63


def environment(root: Path = Path("/"), libraries: Sequence[str] = ()) -> Dict[str, Any]:
    """The machine and the versions of everything that a latency depends on.

    Args:
        root: Where ``/etc``, ``/proc`` and ``/sys`` begin.
        libraries: Modules that may be at work, such as ``onnxruntime``.

    Returns:
        JSON-ready::

            machine system os kernel   x86_64, the platform in one line, the distribution, the kernel's release
            container                  "docker", "podman", "kubernetes", "container", or None
            cpu cores cores_total      its model; cores this process may use; cores of the machine
            cores_usable               physical cores of those, at most what the quota pays for
            cpu_quota                  cores' worth of time that a container may use (None: no limit)
            governor cpu_mhz           of the first core; least, now and most
            memory_mb                  total, available, limit (of a container)
            load_1min temperatures_c   before anything was measured
            gpus                       per NVIDIA GPU: name, driver, clock_mhz, clock_max_mhz, temperature_c, power_w
            jetson                     as Board.to_dict() (None: not a Jetson)
            python numpy LIBRARIES opencv rtda_deploy
                                       versions; None: not loaded, so not used
    """
    board, quota = read_board(root), cpu_quota(root)
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "os": _os_name(root),
        "kernel": platform.release(),
        "container": _container(root),
        "cpu": cpu_model(root),
        "cores": len(os.sched_getaffinity(0)),
        "cores_total": os.cpu_count(),
        "cores_usable": usable_cores(root),
        "cpu_quota": None if quota is None else round(quota, 2),
        "governor": _text(root / _CPUS / "cpu0/cpufreq/scaling_governor"),
        "cpu_mhz": _cpu_mhz(root),
        "memory_mb": _memory_mb(root),
        "load_1min": round(os.getloadavg()[0], 2),
        "temperatures_c": _temperatures(root),
        "gpus": _gpus(),
        "jetson": board.to_dict() if board.is_jetson else None,
        "python": platform.python_version(),
        "numpy": _loaded_version("numpy"),
        **{module: _loaded_version(module) for module in libraries},
        "opencv": _loaded_version("cv2"),
        "rtda_deploy": importlib.import_module("rtda_deploy").__version__,
    }


class Conditions:
    """Watches the machine while something is measured.

    ::

        with Conditions() as conditions:
            work()
        print(conditions.record["other_cores"])

    On a Jetson ``tegrastats`` runs meanwhile; elsewhere only counters are read, before and after.

    Attributes:
        record: After the block, JSON-ready: ``seconds``; ``own_cores``, ``other_cores`` and ``stolen_cores`` (cores'
            worth of CPU time that this process, others and the hypervisor took, mean; others over the whole machine,
            so from a container too); ``throttled`` (how often a core's clock was lowered for heat; None: not told
            here); ``temperature_start_c`` and ``temperature_end_c`` (hottest sensor); ``memory_peak_mb`` (resident, of
            this process so far); ``load_1min``; ``gpus`` (at the end, as :func:`environment`, with ``throttled``:
            "heat", "power" or None); ``jetson`` (:func:`rtda_runtime.machine.tegrastats.summarize_readings`, or None).
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.record: Dict[str, Any] = {}
        self._root = root
        self._watch: Optional[Tegrastats] = None

    def __enter__(self) -> Conditions:
        if shutil.which("tegrastats"):
            try:
                self._watch = Tegrastats()
            except DeviceError:
                self._watch = None
        self._heat = _hottest(self._root)
        self._throttled = _throttle_count(self._root)
        self._began_s = self._watch.now_s() if self._watch is not None else 0.0
        self._before = _CpuTimes.read(self._root)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        after = _CpuTimes.read(self._root)
        readings = None
        if self._watch is not None:
            readings = summarize_readings(self._watch.between(self._began_s, self._watch.now_s()))
            self._watch.close()
        before, throttled = self._throttled, _throttle_count(self._root)
        seen = readings or {}
        heat = _hottest(self._root)
        self.record = {
            **self._before.until(after),
            "throttled": throttled - before if throttled is not None and before is not None else None,
            "temperature_start_c": _first_known(seen.get("temperature_start_c"), self._heat),
            "temperature_end_c": _first_known(seen.get("temperature_max_c"), heat),
            "memory_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),  # Linux: KiB
            "load_1min": round(os.getloadavg()[0], 2),
            "gpus": _gpus(),
            "jetson": readings,
        }


class _CpuTimes(NamedTuple):
    """CPU time that has passed, seconds; ``busy`` and ``stolen`` of the whole machine, None where it does not tell."""

    wall: float
    own: float
    busy: Optional[float]
    stolen: Optional[float]

    @classmethod
    def read(cls, root: Path) -> _CpuTimes:
        first = (_text(root / "proc/stat") or "").split("\n", 1)[0].split()
        busy = stolen = None
        if first[:1] == ["cpu"] and len(first) > 8:
            # user nice system idle iowait irq softirq steal; a guest's time is part of user
            user, nice, system, _, _, irq, softirq, steal = (int(ticks) for ticks in first[1:9])
            per_s = os.sysconf("SC_CLK_TCK")
            busy, stolen = (user + nice + system + irq + softirq) / per_s, steal / per_s
        times = os.times()
        return cls(time.monotonic(), sum(times[:4]), busy, stolen)

    def until(self, after: _CpuTimes) -> Dict[str, Optional[float]]:
        wall = max(1e-9, after.wall - self.wall)
        own = (after.own - self.own) / wall
        busy = stolen = None
        if after.busy is not None and self.busy is not None:
            busy = max(0.0, (after.busy - self.busy) / wall - own)
        if after.stolen is not None and self.stolen is not None:
            stolen = max(0.0, (after.stolen - self.stolen) / wall)
        return {
            "seconds": round(wall, 3),
            "own_cores": round(own, 2),
            "other_cores": round(busy, 2) if busy is not None else None,
            "stolen_cores": round(stolen, 2) if stolen is not None else None,
        }


def _gpus() -> List[Dict[str, Any]]:
    """What ``nvidia-smi`` tells of each GPU; empty where it is not there."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, timeout=_SMI_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[value.strip() for value in line.split(",")] for line in done.stdout.splitlines()]
    return [_gpu(row) for row in rows if len(row) == len(_SMI_FIELDS)]


def _gpu(row: List[str]) -> Dict[str, Any]:
    name, driver, clock, most, heat, power, reasons = row
    bits = int(reasons, 16) if reasons.startswith("0x") else 0
    return {
        "name": name,
        "driver": driver,
        "clock_mhz": _number(clock),
        "clock_max_mhz": _number(most),
        "temperature_c": _number(heat),
        "power_w": _number(power),
        "throttled": "heat" if bits & _TOO_HOT else "power" if bits & _TOO_MUCH_POWER else None,
    }


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:  # "[N/A]", "[Not Supported]"
        return None


def _os_name(root: Path) -> Optional[str]:
    for line in (_text(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return None


def _container(root: Path) -> Optional[str]:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    groups = _text(root / "proc/1/cgroup") or ""
    for word, kind in (("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "container")):
        if word in groups:
            return kind
    return "container" if (root / "run/systemd/container").exists() else None


def _cpu_mhz(root: Path) -> Optional[Dict[str, int]]:
    names = {"least": "scaling_min_freq", "now": "scaling_cur_freq", "most": "scaling_max_freq"}
    texts = {key: _text(root / _CPUS / "cpu0/cpufreq" / name) or "" for key, name in names.items()}
    if not all(text.isdigit() for text in texts.values()):
        return None
    return {key: round(int(text) / 1e3) for key, text in texts.items()}  # the kernel writes kHz


def _memory_mb(root: Path) -> Dict[str, Optional[int]]:
    found: Dict[str, int] = {}
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in ("MemTotal:", "MemAvailable:"):
            found[words[0]] = int(words[1]) // 1024
    limit = _text(root / "sys/fs/cgroup/memory.max") or _text(root / "sys/fs/cgroup/memory/memory.limit_in_bytes") or ""
    limited = limit.isdigit() and int(limit) < _UNLIMITED
    return {
        "total": found.get("MemTotal:"),
        "available": found.get("MemAvailable:"),
        "limit": int(limit) >> 20 if limited else None,
    }


def _temperatures(root: Path) -> Dict[str, float]:
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, value = _text(zone / "type"), _text(zone / "temp")
        if name and value and value.lstrip("-").isdigit() and int(value) > 0:  # a unit that is off reads below zero
            found[name] = int(value) / 1000.0
    return found


def _hottest(root: Path) -> Optional[float]:
    return max(_temperatures(root).values(), default=None)


def _first_known(*values: Optional[float]) -> Optional[float]:
    return next((value for value in values if value is not None), None)


def _throttle_count(root: Path) -> Optional[int]:
    """How often a core's clock was lowered for heat since the start; Intel's counter, None where there is none."""
    texts = [_text(path) or "" for path in (root / _CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    counts = [int(text) for text in texts if text.isdigit()]
    return sum(counts) if counts else None


def _loaded_version(module: str) -> Optional[str]:
    version = getattr(sys.modules.get(module), "__version__", None)
    return str(version) if version is not None else None


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
