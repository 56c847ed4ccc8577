"""What is read is never written over.

A command names what it reads and what it is about to write, before it starts. Files are compared by what they are on
the disk (device and inode), so that another spelling, a symbolic link or a hard link of an input is found too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Dict, Iterable, Iterator, Mapping, Set, Tuple, Union

from rtda_deploy.errors import ConfigError

__all__ = ["entries", "refuse_overwriting", "same_place"]

PathLike = Union[str, "os.PathLike[str]"]
_Identity = Tuple[int, int]


def refuse_overwriting(outputs: Iterable[Tuple[str, PathLike]], inputs: Mapping[str, str]) -> None:
    """Check that no file that will be written is one that is read.

    Args:
        outputs: ``(what, path)`` for each file that may be written, such as ``("--save", "out.mp4")``. One that does
            not exist yet is allowed.
        inputs: What each file or folder that is read is called; of a folder, everything below it is read.

    Raises:
        ConfigError: If one is; it names both.
    """
    written: Dict[_Identity, Tuple[str, PathLike]] = {}
    for what, path in outputs:
        found = _identity(path)
        if found is not None:
            written.setdefault(found, (what, path))
    if not written:
        return
    for path, name in inputs.items():
        for file in _files(path):
            found = _identity(file)
            if found in written:
                what, output = written[found]
                same = "" if str(file) == str(output) else f" (it is {file})"
                raise ConfigError(
                    f"{what} would write over {output}{same}, which is {name}",
                    hint="choose another name or folder for what is written",
                )


def same_place(a: PathLike, b: PathLike) -> bool:
    """Whether two paths mean one file or folder, by links or another spelling too; also where nothing is there yet."""
    found = _identity(a)
    return found == _identity(b) if found is not None else os.path.realpath(a) == os.path.realpath(b)


def entries(folder: PathLike, *suffixes: str) -> Iterator[Path]:
    """The files directly in ``folder`` whose names end so, case set aside; none where there is no such folder."""
    with contextlib.suppress(OSError):
        for entry in sorted(os.listdir(folder)):
            if entry.lower().endswith(suffixes):
                yield Path(folder) / entry


def _files(path: PathLike) -> Iterator[PathLike]:
    """A file, or every file below a folder; linked folders are looked into, once each."""
    if not os.path.isdir(path):
        yield path
        return
    seen: Set[_Identity] = set()
    for base, folders, names in os.walk(path, followlinks=True):
        found = _identity(base)
        if found is None or found in seen:
            folders[:] = []
            continue
        seen.add(found)
        for name in names:
            yield os.path.join(base, name)


def _identity(path: PathLike) -> Union[_Identity, None]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # not there, or no path at all
        return None
    return status.st_dev, status.st_ino
