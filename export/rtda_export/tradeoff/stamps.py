"""What a file or a score was made on, as a short text that changes when a picture under the same path does.

Names, sizes and times of change are looked at; nothing is decoded.
"""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path
from typing import Any, Iterable, List, Optional

__all__ = ["set_stamp", "source_stamp"]


def source_stamp(source: Optional[str]) -> str:
    """Of what pictures are read from: a picture, a folder, a recording, or an address of one; empty of None."""
    if source is None:
        return ""
    files: List[Path] = []
    for path in _paths_of(source):
        files += sorted(path.iterdir()) if path.is_dir() else [path]
    return _digest([source, *(_state(file) for file in files)])


def set_stamp(data: Any) -> str:
    """Of a ``LabelledSet``: its pictures, labels, their order and classes."""
    return _digest([data.fingerprint(), *(_state(Path(data.name(index))) for index in range(len(data)))])


def _paths_of(source: str) -> List[Path]:
    """Of footage the files and folders that are named, patterns filled in; else the one path."""
    from rtda_runtime.sources.footage import FootageAddress, names_footage

    if not names_footage(source):
        return [Path(source)]
    parts = FootageAddress.parse(source).path.split(",")
    return [Path(name) for part in parts for name in (sorted(glob.glob(part)) or [part])]


def _state(file: Path) -> str:
    """Of one file; of what is none, its name."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # a picture that is rendered; a name that no file can have
        return str(file)
    return f"{file}|{found.st_size}|{found.st_mtime_ns}"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
