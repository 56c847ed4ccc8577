"""Folders that a command fills: a new one named by the time, and held by one process while it is written to."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sys
from pathlib import Path
from typing import Iterator, List, Union

from rtda_deploy.errors import FileAccessError
from rtda_deploy.files import file_error

__all__ = ["LOCK_NAME", "FolderBusyError", "folder_lock", "is_locked", "new_run_folder", "working_in"]

LOCK_NAME = ".lock"
_log = logging.getLogger(__name__)


class FolderBusyError(FileAccessError):
    """Another process writes there now."""


@contextlib.contextmanager
def folder_lock(folder: Union[str, Path], *, name: str = LOCK_NAME) -> Iterator[None]:
    """Hold the folder's lock while the block runs; the folder is made where it is missing.

    Args:
        folder: What is written to.
        name: Of the lock's file in it, where several kinds of work may share a folder.

    Raises:
        FolderBusyError: If another process holds it; it says which.
        FileAccessError: If the folder cannot be written to.
    """
    path = Path(folder) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(path)
    except OSError as err:
        raise file_error(err, path.parent, "write to") from err
    try:
        with contextlib.suppress(OSError):  # a full disk: whoever writes there next says so
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()}: {' '.join(_words())}\n".encode("utf-8", "replace"))
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is still held, so that nobody's newer one is taken away
            path.unlink()
        os.close(descriptor)


def is_locked(folder: Union[str, Path], *, name: str = LOCK_NAME) -> bool:
    """Whether a process, this one included, holds the folder's lock now."""
    import fcntl

    try:
        descriptor = os.open(str(Path(folder) / name), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _opened(path: Path) -> int:
    """The lock's file, locked; a file that its last holder removed in between is made again."""
    import fcntl

    while True:
        descriptor = os.open(str(path), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = os.read(descriptor, 4096).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise FolderBusyError(
                f"another process writes to {path.parent} now",
                why=holder or "its lock is held",
                hint="wait for its end, stop it, or choose another folder with --out",
            ) from err
        except OSError as err:  # a network file system without locks
            _log.warning("%s cannot be locked (%s): see that no other process writes there", path.parent, err)
            return descriptor
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        os.close(descriptor)


def _words() -> List[str]:
    """The program and its verb; what else was typed may hold a password."""
    return [os.path.basename(sys.argv[0] or "python"), *sys.argv[1:2]]


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
