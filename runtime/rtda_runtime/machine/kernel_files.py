"""The files in which the kernel tells of this machine, and what they say of its heat."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional

__all__ = ["CPUS", "file_text", "temperatures_c", "throttle_count"]

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
