"""Folders that a command fills: a new one named by the time, and held by one process while it is written to."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Iterator

from rtda_deploy.folder_lock import folder_lock

__all__ = ["new_run_folder", "working_in"]


def new_run_folder(verb: str, name: str = "") -> Path:
    """A path ``runs/<verb>/<time>[-<name>]`` at which nothing exists yet; it is not created."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / verb / (f"{stamp}-{name}" if name else stamp)
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}.{number}")
    return folder


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs; folders made for it are removed again if they stay empty.

    Raises:
        FolderBusyError: If another process writes there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]  # the deepest first
    try:
        with folder_lock(folder):
            yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
