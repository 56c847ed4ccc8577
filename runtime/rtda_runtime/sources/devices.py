"""The cameras plugged into this machine, as the kernel lists them; nothing is opened."""

from __future__ import annotations

import dataclasses
import grp
import os
from pathlib import Path
from typing import Dict, List, Optional

__all__ = ["CameraInfo", "camera_paths", "cameras", "group_of", "stable_path"]

_DEV = Path("/dev")
_SYS = Path("/sys/class/video4linux")


@dataclasses.dataclass(frozen=True)
class CameraInfo:
    """One video node.

    Attributes:
        path: Such as ``/dev/video0``; the number can change when the machine starts again.
        name: What the driver calls it; empty where the kernel does not say.
        stable_path: The name under ``/dev/v4l/by-id`` that stays the same, where there is one.
        permitted: Whether this user may open it.
        main: False for the second node of a camera, which carries metadata and no pictures.
        group: Whose members may open it; None where nobody knows, or only root may.
    """

    path: str
    name: str
    stable_path: Optional[str]
    permitted: bool
    main: bool
    group: Optional[str] = None


def cameras(dev: Path = _DEV, sys_class: Path = _SYS) -> List[CameraInfo]:
    """The video nodes of this machine by number; empty where there are none."""
    stable = _stable_paths(dev)
    return [
        CameraInfo(
            path=str(path),
            name=_kernel_text(sys_class / path.name / "name"),
            stable_path=stable.get(path.name),
            permitted=os.access(str(path), os.R_OK | os.W_OK),
            main=_kernel_text(sys_class / path.name / "index") in ("", "0"),
            group=group_of(path),
        )
        for path in camera_paths(dev)
    ]


def camera_paths(dev: Path = _DEV) -> List[Path]:
    """``/dev/video*`` by number."""
    found = [path for path in dev.glob("video*") if path.name[len("video") :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len("video") :]))


def stable_path(device: Path, dev: Path = _DEV) -> Optional[Path]:
    """Its name under ``/dev/v4l/by-id``, which it keeps when it is unplugged and comes back under another number."""
    found = _stable_paths(dev).get(device.resolve().name)
    return Path(found) if found else None


def group_of(device: Path) -> Optional[str]:
    """The group that may open it; None where nobody knows, or only root may."""
    try:
        name = grp.getgrgid(device.stat().st_gid).gr_name
    except (KeyError, OSError):
        return None
    return None if name == "root" else name


def _kernel_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _stable_paths(dev: Path) -> Dict[str, str]:
    folder = dev / "v4l" / "by-id"
    try:
        links = sorted(folder.iterdir())
    except OSError:
        return {}
    return {link.resolve().name: str(link) for link in links}
