"""Files that are either whole or absent.

Every artefact is written under a temporary name in the same folder, flushed to the disk and then renamed over its
final name, so that a full disk, a Ctrl-C or a power cut never leaves half a model behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Union

from rtda_deploy.errors import ConfigError, FileAccessError

__all__ = [
    "atomic_path",
    "cache_folder",
    "check_file_name",
    "file_bytes",
    "file_error",
    "is_text",
    "read_text",
    "readable_file",
    "remove_leftovers",
    "sha256_file",
    "utf8_text",
    "writable_folder",
    "write_bytes",
    "write_text",
]

PathLike = Union[str, "os.PathLike[str]"]

_TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.part(\.[^.]*)?$")  # what atomic_path calls its files

_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_LONGEST_STEM = 200  # bytes; a file's name has 255, and the temporary one is longer
_LOCKS: Dict[str, List[int]] = {}  # descriptors that keep the locks of this process's temporary files
_FINAL_NAMES: Dict[str, str] = {}  # of those files: people know a file by its final name only

_HINTS = {
    errno.ENOENT: "check the spelling; relative paths start at the current folder",
    errno.EACCES: "ask for permission on it (ls -l), or choose another folder with --out",
    errno.EPERM: "ask for permission on it (ls -l), or choose another folder with --out",
    errno.EROFS: "the file system is read-only; choose another folder with --out",
    errno.ENOSPC: "free some space (df -h), or choose another disk with --out",
    errno.EDQUOT: "your quota is used up; free some space, or choose another disk with --out",
    errno.EFBIG: "the file may not grow this large here (ulimit -f); choose another disk with --out",
    errno.EISDIR: "this is a folder; name a file",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EEXIST: "a file of this name stands where a folder is needed; choose another with --out",
}


def file_error(err: OSError, path: PathLike, verb: str) -> FileAccessError:
    """Turn an ``OSError`` into one sentence with its fix: ``cannot write a.pth: No space left on device``.

    A temporary file of :func:`atomic_path` is called by its final name.
    """
    from rtda_deploy.masking import mask_path  # here: its patterns take 15 ms, and every command imports this module

    reason = err.strerror or str(err) or type(err).__name__
    known_as = _FINAL_NAMES.get(str(path), path)
    return FileAccessError(
        f"cannot {verb} {mask_path(known_as)}: {reason}", hint=_HINTS.get(err.errno or 0, "check the path and the disk")
    )


@contextlib.contextmanager
def atomic_path(path: PathLike, *, verb: str = "write") -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` when the block ends without an error.

    The temporary name keeps the suffix, because encoders choose their container by it. On any error, Ctrl-C included,
    the temporary file is removed and ``path`` stays what it was. A lock on it, which ends with the process, tells
    :func:`remove_leftovers` that it is being written.

    Raises:
        FileAccessError: For every ``OSError`` of the block or of the rename; it names ``path``.
    """
    final = Path(path)
    temporary: Optional[Path] = None
    written = ""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
        # The name is known before the file is there: a signal in between leaves nothing behind.
        stem = os.fsdecode(os.fsencode(final.stem)[:_LONGEST_STEM])
        temporary = final.with_name(f".{stem}.{secrets.token_hex(4)}.part{final.suffix}")
        written = str(temporary)
        _FINAL_NAMES[written] = _FINAL_NAMES.get(str(final), str(final))
        _LOCKS[written] = [_locked_file(temporary)]
        yield temporary
        _flush_to_disk(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(str(temporary), str(final))
        temporary = None
    except OSError as err:
        raise file_error(err, final, verb) from err
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        _unlock(written, str(final))
        _FINAL_NAMES.pop(written, None)


def remove_leftovers(folder: PathLike, *, below: bool = True) -> None:
    """Remove the temporary files that killed processes left in ``folder``; one that is being written is left alone.

    Args:
        folder: Where to look.
        below: Also in the folders below it.

    Raises:
        FileAccessError: If one cannot be removed.
    """
    for path in Path(folder).rglob(".*.part*") if below else Path(folder).glob(".*.part*"):
        if _TEMPORARY.match(path.name) and not _being_written(path):
            try:
                path.unlink()
            except FileNotFoundError:
                pass  # its writer was quicker
            except OSError as err:
                raise file_error(err, path, "remove") from err


def write_bytes(path: PathLike, content: bytes) -> Path:
    """Write ``content`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: PathLike, content: str) -> Path:
    """Write ``content`` as UTF-8 to ``path``, whole or not at all."""
    return write_bytes(path, utf8_text(content).encode("utf-8"))


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold it: JSON can name half a pair (``\\ud800``), and names of files may be no text at all."""
    return utf8_text(value) == value


def utf8_text(text: str) -> str:
    """``text`` with what UTF-8 cannot hold spelled out (``\\ud800``), which in JSON means the same."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def readable_file(path: PathLike, *, what: str = "file") -> Path:
    """Check that ``path`` is a regular file that can be opened and is not empty.

    Raises:
        FileAccessError: If it is missing, a folder, a pipe or a device (also behind a link), not readable, or empty.
    """
    candidate = Path(path)
    try:
        _require_regular(candidate, what)
        with open(candidate, "rb") as stream:
            if not stream.read(1):
                raise FileAccessError(
                    f"{what} {candidate} is empty (0 bytes)", hint="was it copied or written to its end?"
                )
    except OSError as err:
        raise file_error(err, candidate, "read") from err
    return candidate


def file_bytes(path: PathLike, *, what: str = "file") -> bytes:
    """The whole content of a regular file. Errors as :func:`readable_file`."""
    try:
        return readable_file(path, what=what).read_bytes()
    except OSError as err:
        raise file_error(err, path, "read") from err


def read_text(path: PathLike, *, what: str = "file") -> str:
    """The text of a file that people wrote: UTF-8, or UTF-16 as Windows' editors save it, with its mark or without.

    Raises:
        FileAccessError: If it cannot be read, is empty, or is no text.
    """
    content = file_bytes(path, what=what)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    else:
        encoding = {0: "utf-16-be", 1: "utf-16-le"}.get(content[:2].find(b"\0"), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as err:
        raise FileAccessError(
            f"{what} {path} is no text file: {err.reason} at byte {err.start}", hint="save it as UTF-8"
        ) from err


def cache_folder() -> Path:
    """For what costs time only when it is deleted.

    ``$RTDA_CACHE``, else ``$XDG_CACHE_HOME/rtda-deploy``, else ``~/.cache/rtda-deploy``.

    Raises:
        RuntimeError: For a user without a home, as containers run with a number of their own have it.
    """
    if os.environ.get("RTDA_CACHE"):
        return Path(os.environ["RTDA_CACHE"])
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except KeyError as err:
        raise RuntimeError("this user has no home") from err
    return Path(base) / "rtda-deploy"


def writable_folder(path: PathLike) -> Path:
    """Make the folder ``path`` where it is missing and check that a file can be made in it, before long work starts.

    Raises:
        FileAccessError: If it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(folder)):
            pass
    except OSError as err:
        raise file_error(err, folder, "write to") from err
    return folder


def sha256_file(path: PathLike) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits; what ``provenance`` names the parent file by."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except OSError as err:
        raise file_error(err, path, "read") from err
    return digest.hexdigest()


def _require_regular(path: Path, what: str) -> None:
    """Refuse what has no end: opening a pipe waits for a writer, and ``/dev/zero`` is read until memory is full."""
    try:
        mode = path.stat().st_mode
    except ValueError as err:  # a NUL, or a character that no file system takes
        raise FileAccessError(f"{what} {str(path)!r}: no file has such a name", hint=_HINTS[errno.ENOENT]) from err
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        found = next((name for test, name in _SPECIAL if test(mode)), "something else")
        raise FileAccessError(
            f"{what} {path} is {found}, not a regular file", hint="name a file; leave this entry out of the folder"
        )


def _locked_file(path: Path) -> int:
    """A descriptor of a new file that this process holds a lock on, where the file system has locks."""
    import fcntl

    while True:
        descriptor = os.open(str(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # taken for a leftover before the lock was there


def _unlock(written: str, final: str) -> None:
    """Let go of a temporary file; one that took the place of another temporary file stays locked as long as that."""
    for descriptor in _LOCKS.pop(written, ()):
        if final in _LOCKS:
            _LOCKS[final].append(descriptor)
        else:
            os.close(descriptor)


def _being_written(path: Path) -> bool:
    """Whether a process holds a lock on the file; True where that cannot be told."""
    import fcntl

    descriptor: Optional[int] = None
    try:
        descriptor = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK)  # a FIFO of such a name is not waited for
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        return not isinstance(err, FileNotFoundError)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return False


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


_LONGEST = 100  # bytes; a file's name has 255, and ours add words to it


def check_file_name(name: str, what: str) -> str:
    """``name``, if it can be a part of a file's name and leads to no other folder.

    Args:
        name: Such as a stage's.
        what: What it names, for the message.

    Raises:
        ConfigError: If it is empty, dots alone, too long, or holds a separator or a character that is not printed.
    """
    if not name.strip(". "):
        problem = "is nothing but dots and spaces" if name else "is empty"
    elif "/" in name or "\\" in name:
        problem = "holds a separator of folders"
    elif not name.isprintable() or name != name.strip():
        problem = "holds a character that is not printed, or a space at an end"
    elif len(name.encode("utf-8", "surrogateescape")) > _LONGEST:
        problem = f"is longer than {_LONGEST} bytes"
    else:
        return name
    raise ConfigError(
        f"{what} {name!r} {problem}: files are named after it", hint="letters, digits, - and _ make a good name"
    )
