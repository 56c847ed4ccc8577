"""``tegrastats``, JetPack's own reader of load, clocks, temperature and power, as a child process.

Its lines changed between releases; those of JetPack 4, 5 and 6 are read here.

Source: fields as NVIDIA's Jetson Linux Developer Guide names them ("tegrastats Utility", r32.5 and r35.6); lines of
each board as in ``tests/runtime/recorded/``, whose README names where each format was seen.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import statistics
import subprocess
import threading
import time
from types import TracebackType
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Sequence, Tuple, Type

from rtda_deploy.errors import DeviceError
from rtda_runtime.records import fields_to_json

__all__ = ["Reading", "Tegrastats", "Telemetry", "parse_tegrastats", "summarize_readings"]

# What adds up to the module's power, by the rails that a board shows; the first row whose rails are all there counts.
# VDD_IN and POM_5V_IN are the module's input. AGX Orin: VDDQ_VDD2_1V8AO is fed from VIN_SYS_5V0, so it is not added.
_TOTAL_RAILS = (
    ("VDD_IN",),  # Xavier NX, Orin NX, Orin Nano, TX2
    ("POM_5V_IN",),  # Nano, TX1
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier: two INA3221 of three rails
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
)
_FIXED_SENSORS = ("PMIC",)  # shows a constant, 100 C on JetPack 4 and 50 C on JetPack 5: no measurement
_OFF_BELOW_C = -40.0  # a sensor whose unit is powered down reads -256 C

_NUMBER = r"-?\d+(?:\.\d+)?"
_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_CORE = re.compile(r"(\d+)%(?:@(\d+))?")
_LOAD = r"\b{} (\d+)%(?:@\[?(\d+))?"  # "0%", "0%@1600", "0%@[114]", "0%@[306,306]"
_EMC, _GPU = re.compile(_LOAD.format("EMC_FREQ")), re.compile(_LOAD.format("GR3D_FREQ"))
_TEMPERATURE = re.compile(rf"\b(\w+)@({_NUMBER})C\b")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)(?:mW)?/(-?\d+)(?:mW)?(?=\s|$)")  # JetPack 4 leaves the unit out


@dataclasses.dataclass(frozen=True)
class Reading:
    """One line of ``tegrastats``.

    Attributes:
        at_s: When it was read, seconds of the reader's clock.
        ram_used_mb: Of the memory that CPU and GPU share.
        ram_total_mb: The same.
        cpu_percent: Load of each core relative to its present clock; None: the core is off.
        cpu_mhz: Clock of each core; None: off, or not shown.
        emc_percent: Load of the memory controller.
        emc_mhz: Its clock; shown to root only on some releases.
        gpu_percent: Load of the GPU (``GR3D_FREQ``).
        gpu_mhz: Its clock, of the first cluster where there are several.
        temperatures_c: Per sensor, as named by the board; sensors that are off or show a constant are left out.
        rails_mw: Power per rail at this moment, mW; a rail near zero can read a little below it.
    """

    at_s: float
    ram_used_mb: Optional[int] = None
    ram_total_mb: Optional[int] = None
    cpu_percent: Tuple[Optional[int], ...] = ()
    cpu_mhz: Tuple[Optional[int], ...] = ()
    emc_percent: Optional[int] = None
    emc_mhz: Optional[int] = None
    gpu_percent: Optional[int] = None
    gpu_mhz: Optional[int] = None
    temperatures_c: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rails_mw: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def total_rails(self) -> Tuple[str, ...]:
        """The rails that add up to the module's power; empty where the board is not known or shows none."""
        return next((rails for rails in _TOTAL_RAILS if all(rail in self.rails_mw for rail in rails)), ())

    @property
    def power_w(self) -> Optional[float]:
        """Power of the module, W. The carrier board, the camera and the supply's own loss are not in it."""
        rails = self.total_rails
        return sum(self.rails_mw[rail] for rail in rails) / 1000.0 if rails else None

    @property
    def hottest_c(self) -> Optional[float]:
        """The highest of the temperatures."""
        return max(self.temperatures_c.values(), default=None)


def parse_tegrastats(line: str, at_s: float = 0.0) -> Optional[Reading]:
    """Read one line of ``tegrastats``; None if it is none (it begins with RAM, after a date from JetPack 5 on)."""
    ram = _RAM.search(line)
    if ram is None:
        return None
    cores = _CPU.search(line)
    loads = [_CORE.fullmatch(core.strip()) for core in cores.group(1).split(",")] if cores else []
    rest = line if cores is None else line[: cores.start()] + line[cores.end() :]
    emc, gpu = _EMC.search(rest), _GPU.search(rest)
    temperatures = {name: float(value) for name, value in _TEMPERATURE.findall(rest)}
    return Reading(
        at_s=at_s,
        ram_used_mb=int(ram.group(1)),
        ram_total_mb=int(ram.group(2)),
        cpu_percent=tuple(_integer(load, 1) for load in loads),
        cpu_mhz=tuple(_integer(load, 2) for load in loads),
        emc_percent=_integer(emc, 1),
        emc_mhz=_integer(emc, 2),
        gpu_percent=_integer(gpu, 1),
        gpu_mhz=_integer(gpu, 2),
        temperatures_c={
            name: value for name, value in temperatures.items() if value > _OFF_BELOW_C and name not in _FIXED_SENSORS
        },
        rails_mw={name: int(now) for name, now, _ in _RAIL.findall(rest) if name != "NC"},
    )


class Tegrastats:
    """``tegrastats`` as a child process, its readings kept with the time they came.

    ::

        with Tegrastats() as watch:
            started = watch.now_s()
            work()
            print(summarize_readings(watch.between(started, watch.now_s())).power_w)

    It has a session of its own, so that a Ctrl-C in the terminal does not end it before its owner. If its owner is
    killed, it ends by itself at its next line, because nobody reads it any more.

    Args:
        interval_ms: Between two lines.
        command: The program, for a board that keeps it elsewhere.
        clock: Seconds.
        kept: Readings to remember, the newest; None: all.
        stop_timeout_s: A child that does not end for so long when it is told to is killed.

    Attributes:
        pid: Of the child.

    Raises:
        DeviceError: If it cannot be started.
    """

    def __init__(
        self,
        interval_ms: int = 200,
        command: Sequence[str] = ("tegrastats",),
        clock: Callable[[], float] = time.monotonic,
        kept: Optional[int] = None,
        stop_timeout_s: float = 2.0,
    ) -> None:
        self.now_s = clock
        self._stop_timeout_s = stop_timeout_s
        self._readings: Deque[Reading] = collections.deque(maxlen=kept)
        self._lock = threading.Lock()
        self._last_words = ""
        try:
            self._child: Optional[subprocess.Popen[str]] = subprocess.Popen(
                [*command, "--interval", str(interval_ms)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                universal_newlines=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as err:
            raise DeviceError(
                f"{command[0]} cannot be started: {err.strerror}", hint="it is part of JetPack; elsewhere there is none"
            ) from err
        self.pid = self._child.pid
        self._reader = threading.Thread(target=self._read, args=(self._child,), name="tegrastats", daemon=True)
        self._reader.start()

    @property
    def ended(self) -> Optional[str]:
        """None while it runs; else what it said last."""
        child = self._child
        return None if child is not None and child.poll() is None else self._last_words or "it was stopped"

    def between(self, start_s: float, end_s: float) -> List[Reading]:
        """The readings that came from ``start_s`` to ``end_s``, oldest first."""
        with self._lock:
            return [reading for reading in self._readings if start_s <= reading.at_s <= end_s]

    def close(self) -> None:
        """End the child and wait for it. Calling it again does nothing."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._reader.join(self._stop_timeout_s)
        if child.stdout is not None and not self._reader.is_alive():
            child.stdout.close()

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            reading = parse_tegrastats(line, self.now_s())
            if reading is None:
                self._last_words = line.strip() or self._last_words
                continue
            with self._lock:
                self._readings.append(reading)

    def __enter__(self) -> Tegrastats:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class Telemetry:
    """Means and extremes of some readings; a value is None where no reading has it.

    Attributes:
        readings: How many.
        power_w: Mean.
        power_max_w: The highest.
        power_rails: What was added up.
        rails_w: Mean of each rail.
        gpu_mhz: Median.
        emc_mhz: Median.
        cpu_mhz: Median, of the fastest core.
        gpu_percent: Mean.
        temperature_start_c: Of the hottest sensor.
        temperature_max_c: The same.
        ram_max_mb: Of the whole board.
    """

    readings: int
    power_w: Optional[float]
    power_max_w: Optional[float]
    power_rails: Tuple[str, ...]
    rails_w: Mapping[str, Optional[float]]
    gpu_mhz: Optional[int]
    emc_mhz: Optional[int]
    cpu_mhz: Optional[int]
    gpu_percent: Optional[float]
    temperature_start_c: Optional[float]
    temperature_max_c: Optional[float]
    ram_max_mb: Optional[int]

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready."""
        return fields_to_json(self)


def summarize_readings(readings: Sequence[Reading]) -> Telemetry:
    """Means and extremes over a window."""
    power = [reading.power_w for reading in readings if reading.power_w is not None]
    hottest = [reading.hottest_c for reading in readings if reading.hottest_c is not None]
    fastest = [max((mhz for mhz in reading.cpu_mhz if mhz is not None), default=None) for reading in readings]
    rails = {rail: [r.rails_mw[rail] / 1000.0 for r in readings if rail in r.rails_mw] for rail in _rails(readings)}
    return Telemetry(
        readings=len(readings),
        power_w=_mean(power),
        power_max_w=max(power, default=None),
        power_rails=readings[0].total_rails if readings else (),
        rails_w={rail: _mean(values) for rail, values in rails.items()},
        gpu_mhz=_median([reading.gpu_mhz for reading in readings]),
        emc_mhz=_median([reading.emc_mhz for reading in readings]),
        cpu_mhz=_median(fastest),
        gpu_percent=_mean([float(reading.gpu_percent) for reading in readings if reading.gpu_percent is not None]),
        temperature_start_c=hottest[0] if hottest else None,
        temperature_max_c=max(hottest, default=None),
        ram_max_mb=max((r.ram_used_mb for r in readings if r.ram_used_mb is not None), default=None),
    )


def _rails(readings: Sequence[Reading]) -> List[str]:
    return sorted({rail for reading in readings for rail in reading.rails_mw})


def _integer(match: Optional[re.Match[str]], group: int) -> Optional[int]:
    text = match.group(group) if match is not None else None
    return int(text) if text is not None else None


def _mean(values: Sequence[float]) -> Optional[float]:
    return sum(values) / len(values) if values else None


def _median(values: Sequence[Optional[int]]) -> Optional[int]:
    known = [value for value in values if value is not None]
    return round(statistics.median(known)) if known else None
