"""Folders of the cache that are whole or not there: filled beside their place, and renamed into it.

Two processes that fill the same folder at once both end with a whole one: the first to finish is kept. What a killed
process left half filled is taken away by the next that fills a folder beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Iterator

__all__ = ["filling"]

_LOCK = ".lock"  # held by the process that fills the folder; a killed one holds it no more
_YOUNG_S = 60.0  # a folder of this age may be one whose lock is about to be taken


@contextlib.contextmanager
def filling(final: Path) -> Iterator[Path]:
    """Give an empty folder beside ``final`` that takes its place when the block ends without an error.

    On any error, Ctrl-C included, it is removed.

    Raises:
        OSError: If it cannot be made, or not be renamed while there is no ``final``.
    """
    parent = final.parent
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=str(parent)))
    try:
        with _held(work):
            yield work
            (work / _LOCK).unlink()
            try:
                os.replace(str(work), str(final))
            except OSError:
                if not final.is_dir():
                    raise
    finally:
        shutil.rmtree(str(work), ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the kernel gives it free however this process ends."""
    with open(folder / _LOCK, "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _remove_abandoned(parent: Path) -> None:
    """Take away what killed processes left half filled; a folder whose process lives is locked."""
    for folder in parent.glob(".*.*"):
        with contextlib.suppress(OSError), open(folder / _LOCK, "rb") as stream:
            if time.time() - os.fstat(stream.fileno()).st_mtime < _YOUNG_S:
                continue
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(str(folder), ignore_errors=True)
