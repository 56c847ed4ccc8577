"""What of a folder is data: hidden and system folders are not, linked folders are followed, nothing is read twice.

Readers of data sets, folders of pictures and the export's frames look into folders through this module alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Set, Tuple

from rtda_deploy.files import file_error

__all__ = ["Found", "is_hidden", "walk"]

# Made by file managers, NAS boxes, archivers and file systems; compared in lower case.
_SYSTEM = frozenset(
    (
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@tmp",
        "__macosx",
        "__pycache__",
        "lost+found",
        "recycler",
        "system volume information",
        "thumbs.db",
    )
)
DANGLING, HIDDEN, LOOP, NO_FILE, TWICE = (
    "links to nothing",
    "hidden or system folders and files",
    "links to a folder that holds them",
    "neither files nor folders (devices, pipes)",
    "folders that were read under another name",
)


class Found(NamedTuple):
    """Files of a folder tree, sorted, and what was left out of it.

    Attributes:
        files: In the order of their paths.
        left_out: Paths by the reason, such as ``links to nothing``; what is no data by its suffix is not told.
    """

    files: List[Path]
    left_out: Dict[str, List[Path]]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is a system's own: ``.x``, ``@eaDir``, ``__MACOSX``, ``lost+found``, …"""
    return name.startswith(".") or name.lower() in _SYSTEM


def walk(folder: Path, wanted: Callable[[str], bool]) -> Found:
    """The regular files below ``folder`` whose name is ``wanted``, linked files and folders included.

    A linked folder is read after the real ones, and left out where it was read already or leads back to ``folder``.

    Raises:
        FileAccessError: If a folder cannot be listed.
    """
    files: List[str] = []
    left_out: Dict[str, List[str]] = {}
    above = _above(folder)
    seen: Set[str] = set()
    real: List[str] = [str(folder)]
    linked: List[str] = []
    while real or linked:
        here = real.pop() if real else linked.pop(0)
        actual = os.path.realpath(here)
        if actual in seen:
            left_out.setdefault(TWICE, []).append(here)
            continue
        seen.add(actual)
        for path, kind in _entries(here, wanted):
            if kind == "file":
                files.append(path)
            elif kind == "folder":
                real.append(path)
            elif kind == "link" and os.path.realpath(path) not in above:
                linked.append(path)
            elif kind:
                left_out.setdefault(LOOP if kind == "link" else kind, []).append(path)
    return Found(_in_order(files), {why: _in_order(paths) for why, paths in left_out.items()})


def _in_order(paths: List[str]) -> List[Path]:
    """As paths are sorted, folder by folder; comparing ``Path`` takes several times as long."""
    return [Path(path) for path in sorted(paths, key=lambda path: path.split(os.sep))]


def _entries(folder: str, wanted: Callable[[str], bool]) -> List[Tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.path, _kind(entry, wanted)) for entry in entries)
    except OSError as err:
        raise file_error(err, folder, "list") from err


def _kind(entry: os.DirEntry[str], wanted: Callable[[str], bool]) -> str:
    """``file``, ``folder``, ``link`` (to a folder), the reason it is left out, or ``""``: neither read nor reported."""
    linked = entry.is_symlink()
    is_folder = os.path.isdir(entry.path) if linked else entry.is_dir()
    if is_hidden(entry.name):
        return HIDDEN if is_folder or wanted(entry.name) else ""
    if is_folder:
        return "link" if linked else "folder"
    if linked and not os.path.exists(entry.path):
        return DANGLING
    if not wanted(entry.name):
        return ""
    return "file" if (os.path.isfile(entry.path) if linked else entry.is_file()) else NO_FILE


def _above(folder: Path) -> Set[str]:
    """``folder`` and every folder above it, without links."""
    actual = Path(os.path.realpath(folder))
    return {str(actual), *(str(parent) for parent in actual.parents)}
