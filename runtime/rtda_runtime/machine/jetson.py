"""Which Jetson this is, in which power mode and with which clocks, as its own tools and files tell it.

Nothing is guessed: what cannot be read is None, and :attr:`Board.missing` says in a sentence what and why. Load,
temperature and power while something runs: :mod:`rtda_runtime.machine.tegrastats`.

Source: the files and tools of Jetson Linux r32 to r36; ``tests/runtime/recorded/README.md`` names where each format
was seen.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import ConfigError, DeviceError
from rtda_runtime.machine.cores import CPUS, file_text
from rtda_runtime.records import fields_to_json

__all__ = [
    "Board",
    "ClockRange",
    "PowerMode",
    "parse_power_mode",
    "parse_power_modes",
    "read_board",
    "read_power_mode",
    "set_power_mode",
]

_TOOL_TIMEOUT_S = 20.0  # nvpmodel switches cores on and off; it takes a second or two

_MODE_NAME = re.compile(r"NV Power Mode:\s*(\S+)")
_MODEL_LINE = re.compile(r"<\s*POWER_MODEL\s+([^>]*)>")


class PowerMode(NamedTuple):
    """A mode of ``nvpmodel``: ``PowerMode("MODE_30W_ALL", 3)``; the number is None where the tool did not print one."""

    name: str
    number: Optional[int]


class ClockRange(NamedTuple):
    """The range that a clock may move in, and where it is now, MHz."""

    least_mhz: int
    now_mhz: int
    most_mhz: int

    @property
    def locked(self) -> bool:
        """Whether it cannot move, as after ``jetson_clocks``."""
        return self.least_mhz == self.most_mhz


@dataclasses.dataclass(frozen=True)
class Board:
    """What stays the same while a benchmark runs, unless somebody changes it.

    Attributes:
        is_jetson: Where False, nothing of the rest is known.
        model: Such as ``NVIDIA Jetson AGX Xavier Developer Kit``.
        l4t: Release of Jetson Linux, such as ``35.4.1`` (JetPack 5.1.2).
        power_mode: The mode in force.
        power_modes: The modes that the board has.
        gpu_clock: Range and present value of the GPU's clock.
        cpu_clock: The same of the first CPU core.
        cpus_online: As the kernel writes it: ``0-3``.
        missing: One sentence for each thing that could not be read.
    """

    is_jetson: bool = False
    model: Optional[str] = None
    l4t: Optional[str] = None
    power_mode: Optional[PowerMode] = None
    power_modes: Tuple[PowerMode, ...] = ()
    gpu_clock: Optional[ClockRange] = None
    cpu_clock: Optional[ClockRange] = None
    cpus_online: Optional[str] = None
    missing: Tuple[str, ...] = ()

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready: the attributes; a mode is its name and number, a clock its three values."""
        return fields_to_json(self)


def parse_power_mode(text: str) -> Optional[PowerMode]:
    """Read what ``nvpmodel -q`` prints; None where it names no mode. Warnings and the fan's mode are passed over."""
    name = _MODE_NAME.search(text)
    if name is None:
        return None
    number = re.search(r"^\s*(\d+)\s*$", text[name.end() :], re.MULTILINE)
    return PowerMode(name.group(1), int(number.group(1)) if number else None)


def parse_power_modes(text: str) -> Tuple[PowerMode, ...]:
    """Read the modes of an ``/etc/nvpmodel.conf``, by number; of modes without a name or number, none."""
    modes = []
    for line in text.splitlines():
        found = _MODEL_LINE.match(line.strip())
        values = dict(part.split("=", 1) for part in found.group(1).split() if "=" in part) if found else {}
        if values.get("ID", "").isdigit() and "NAME" in values:
            modes.append(PowerMode(values["NAME"], int(values["ID"])))
    return tuple(sorted(modes, key=lambda mode: mode.number or 0))


def read_board(root: Path = Path("/")) -> Board:
    """Everything that can be read of this board, without root and without changing anything.

    Args:
        root: Where ``/etc``, ``/proc`` and ``/sys`` begin.
    """
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", file_text(root / "etc/nv_tegra_release"))
    if release is None and "nvidia,tegra" not in file_text(root / "proc/device-tree/compatible"):
        return Board(missing=("not a Jetson: power mode, clocks, temperature and power are not known",))
    mode = read_power_mode()
    modes = parse_power_modes(file_text(root / "etc/nvpmodel.conf"))
    gpu = _clock(sorted((root / "sys/class/devfreq").glob("17000000.*")), ("min_freq", "cur_freq", "max_freq"), 1e6)
    cpu_names = ("scaling_min_freq", "scaling_cur_freq", "scaling_max_freq")
    missing = [
        sentence
        for known, sentence in (
            (release, "release of Jetson Linux not known: no /etc/nv_tegra_release (a container hides it)"),
            (mode, "power mode not known: nvpmodel is not there or names none; try sudo nvpmodel -q"),
            (modes, "power modes of the board not known: no /etc/nvpmodel.conf that lists them"),
            (gpu, "GPU clock range not known: no /sys/class/devfreq/17000000.*"),
            (shutil.which("tegrastats"), "no power, temperature and load: tegrastats is not there"),
        )
        if not known
    ]
    return Board(
        is_jetson=True,
        model=file_text(root / "proc/device-tree/model").rstrip("\0\n") or None,
        l4t=f"{release.group(1)}.{release.group(2)}" if release else None,
        power_mode=mode,
        power_modes=modes,
        gpu_clock=gpu,
        cpu_clock=_clock([root / CPUS / "cpu0/cpufreq"], cpu_names, 1e3),
        cpus_online=file_text(root / CPUS / "online") or None,
        missing=tuple(missing),
    )


def read_power_mode() -> Optional[PowerMode]:
    """The mode in force; None where ``nvpmodel`` is not there or does not tell."""
    answer = _ask(["nvpmodel", "-q"])
    return parse_power_mode(answer) if answer is not None else None


def set_power_mode(number: int) -> PowerMode:
    """Switch to a mode, which needs root, and check that it is in force.

    Some modes need a restart of the board, and ``nvpmodel`` then asks whether to restart now; it is told no.

    Raises:
        DeviceError: If the mode is not in force afterwards.
        ConfigError: If ``number`` is negative.
    """
    if number < 0:
        raise ConfigError(f"a power mode is numbered from 0, got {number}", hint="grep POWER_MODEL /etc/nvpmodel.conf")
    answer = _ask(["nvpmodel", "-m", str(number)])
    if answer is None:
        raise DeviceError("nvpmodel is not there or does not answer", hint="power modes can be set on a Jetson only")
    mode = read_power_mode()
    if mode is not None and mode.number == number:
        return mode
    if "eboot" in answer:
        raise DeviceError(
            f"power mode {number} needs a restart of the board",
            hint=f"sudo nvpmodel -m {number}, answer yes, and start the benchmark again after the restart",
        )
    reason = next((line.strip() for line in answer.splitlines() if "ERROR" in line), "nvpmodel gave no reason")
    raise DeviceError(f"power mode {number} could not be set", why=reason, hint="it needs root: sudo; sudo nvpmodel -q")


def _ask(command: Sequence[str]) -> Optional[str]:
    """What a tool prints, both streams together; None where it is not there or hangs. Every question gets a no."""
    try:
        done = subprocess.run(
            command,
            input="no\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TOOL_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout


def _clock(folders: Sequence[Path], names: Sequence[str], per_mhz: float) -> Optional[ClockRange]:
    for folder in folders:
        texts = [file_text(folder / name) for name in names]
        if all(text.isdigit() for text in texts):
            least, now, most = (round(int(text) / per_mhz) for text in texts)
            return ClockRange(least, now, most)
    return None
