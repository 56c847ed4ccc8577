"""The devices an estimate can be asked for, and the share of their peaks that engines were seen to reach.

The figures and their sources stand in ``devices.toml``.
"""

from __future__ import annotations

import difflib
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_export.precision import precision_named

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Achieved", "Device", "achieved", "device_named", "known_devices"]

_TABLE = Path(__file__).with_name("devices.toml")


@dataclass(frozen=True)
class Device:
    """What a data sheet promises.

    Attributes:
        name: As typed after ``--device``.
        title: For people.
        power_mode: That the figures hold for.
        bandwidth: Of its memory, 10^9 bytes a second.
        source: Of the figures.
        fp32: Dense peak of the CUDA cores, 10^12 operations a second.
        fp16: Of the tensor cores; likewise ``tf32`` and ``int8``, None where the device is no faster in it.
    """

    name: str
    title: str
    power_mode: str
    bandwidth: float
    source: str
    fp32: float
    fp16: float | None = None
    tf32: float | None = None
    int8: float | None = None

    def arithmetic(self, precision: str) -> str:
        """What an engine of a precision computes in: ``fp32``, ``tf32``, ``fp16`` or ``int8``.

        TensorRT takes TF32 for an fp32 engine where it exists, FP16 for an int8 engine where there is no fast INT8, and
        FP32 for either where there is no fast FP16.
        """
        kinds = precision_named(precision).arithmetic
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    def peak(self, arithmetic: str) -> float:
        """Dense peak of what ``arithmetic`` gave, 10^12 operations a second."""
        return float(getattr(self, arithmetic))


@dataclass(frozen=True)
class Achieved:
    """How much of a data sheet engines reach; the same for every device, network and precision.

    Attributes:
        compute: Share of the peak.
        bandwidth: Share of the bandwidth, where each map is counted once.
        floor_us: Microseconds that every layer costs besides: launch, first and last wave.
        error_factor: By which published speeds were missed at most, either way.
        source: Of these figures.
    """

    compute: float
    bandwidth: float
    floor_us: float
    error_factor: float
    source: str


def known_devices() -> tuple[Device, ...]:
    """Every device of the table, in its order."""
    return tuple(Device(name=name, **values) for name, values in _table()["devices"].items())


def achieved() -> Achieved:
    """The fitted shares."""
    return Achieved(**_table()["achieved"])


def device_named(name: str) -> Device:
    """The device of a name, however it is spelled in case, spaces and underscores.

    Raises:
        ConfigError: If it is unknown; the hint lists the known ones, the nearest first.
    """
    wanted = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    known = {device.name: device for device in known_devices()}
    if wanted in known:
        return known[wanted]
    words = set(wanted.split("-"))

    def likeness(candidate: str) -> tuple[int, float]:
        return len(words & set(candidate.split("-"))), difflib.SequenceMatcher(None, wanted, candidate).ratio()

    near = sorted(known, key=likeness, reverse=True)
    raise ConfigError(f"unknown device {name!r}", hint=f"known, the nearest first: {', '.join(near)}")


@functools.lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))
