"""NVIDIA GPUs as ``nvidia-smi`` tells of them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from typing import Optional, Tuple

__all__ = ["Gpu", "read_gpus"]

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
