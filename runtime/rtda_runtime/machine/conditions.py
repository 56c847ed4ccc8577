"""What the machine does while something is measured: who took its CPU time, how hot it became, which clocks fell."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, NamedTuple, Optional, Tuple, Type, TypeVar

from rtda_deploy.errors import DeviceError
from rtda_runtime.machine.cores import file_text, temperatures_c, throttle_count
from rtda_runtime.machine.environment import Gpu, read_gpus
from rtda_runtime.machine.tegrastats import Tegrastats, Telemetry, summarize_readings
from rtda_runtime.records import fields_to_json

__all__ = ["Conditions", "ConditionsMonitor"]

Number = TypeVar("Number", int, float)


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The machine meanwhile; None: not told here.

    Attributes:
        own_cores: Mean CPU time of this process, in cores' worth.
        other_cores: That of all others on the whole machine, so outside of a container too.
        stolen_cores: What the hypervisor took.
        throttled: How often a core's clock was lowered for heat.
        temperature_start_c: The hottest sensor.
        temperature_end_c: The hottest sensor; on a Jetson the hottest meanwhile.
        memory_peak_mb: Resident memory of this process so far.
        gpus: At the end.
        jetson: What ``tegrastats`` read.
    """

    seconds: float
    own_cores: float
    other_cores: Optional[float]
    stolen_cores: Optional[float]
    throttled: Optional[int]
    temperature_start_c: Optional[float]
    temperature_end_c: Optional[float]
    memory_peak_mb: float
    load_1min: float
    gpus: Tuple[Gpu, ...] = ()
    jetson: Optional[Telemetry] = None

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready."""
        return fields_to_json(self)


class ConditionsMonitor:
    """Watches the machine while the block runs.

    ::

        with ConditionsMonitor() as monitor:
            work()
        print(monitor.conditions.other_cores)

    On a Jetson ``tegrastats`` runs meanwhile; elsewhere only counters are read, before and after.

    Args:
        root: Where ``/proc`` and ``/sys`` begin.

    Attributes:
        conditions: After the block.
    """

    conditions: Conditions

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._tegrastats: Optional[Tegrastats] = None

    def __enter__(self) -> ConditionsMonitor:
        if shutil.which("tegrastats"):
            with contextlib.suppress(DeviceError):
                self._tegrastats = Tegrastats()
        self._before = _Counters.read(self._root)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        before, after = self._before, _Counters.read(self._root)
        telemetry = None
        if self._tegrastats is not None:
            telemetry = summarize_readings(self._tegrastats.between(before.at_s, after.at_s))
            self._tegrastats.close()
        seconds = max(1e-9, after.at_s - before.at_s)
        own = (after.own_s - before.own_s) / seconds
        busy, stolen = _increase(before.busy_s, after.busy_s), _increase(before.stolen_s, after.stolen_s)
        start_c, end_c = (telemetry.temperature_start_c, telemetry.temperature_max_c) if telemetry else (None, None)
        self.conditions = Conditions(
            seconds=round(seconds, 3),
            own_cores=round(own, 2),
            other_cores=None if busy is None else round(max(0.0, busy / seconds - own), 2),
            stolen_cores=None if stolen is None else round(max(0.0, stolen / seconds), 2),
            throttled=_increase(before.throttled, after.throttled),
            temperature_start_c=before.hottest_c if start_c is None else start_c,
            temperature_end_c=after.hottest_c if end_c is None else end_c,
            memory_peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),  # Linux: KiB
            load_1min=round(os.getloadavg()[0], 2),
            gpus=read_gpus(),
            jetson=telemetry,
        )


class _Counters(NamedTuple):
    """What has passed so far, CPU seconds of this process and of the whole machine, and the heat now."""

    at_s: float
    own_s: float
    busy_s: Optional[float]
    stolen_s: Optional[float]
    throttled: Optional[int]
    hottest_c: Optional[float]

    @classmethod
    def read(cls, root: Path) -> _Counters:
        first = file_text(root / "proc/stat").split("\n", 1)[0].split()
        busy = stolen = None
        if first[:1] == ["cpu"] and len(first) > 8:
            # user nice system idle iowait irq softirq steal; a guest's time is part of user
            user, nice, system, _, _, irq, softirq, steal = (int(ticks) for ticks in first[1:9])
            per_s = os.sysconf("SC_CLK_TCK")
            busy, stolen = (user + nice + system + irq + softirq) / per_s, steal / per_s
        hottest = max(temperatures_c(root).values(), default=None)
        throttled = throttle_count(root)
        return cls(time.monotonic(), sum(os.times()[:4]), busy, stolen, throttled, hottest)


def _increase(before: Optional[Number], after: Optional[Number]) -> Optional[Number]:
    return None if before is None or after is None else after - before
