"""The files of a bag, and the storage that reads each; told by what is in a file, not by its name."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Callable, Dict, List

from rtda_deploy.errors import FileAccessError, SourceError
from rtda_deploy.files import file_error, read_text, readable_file
from rtda_deploy.pictures.content_kind import describe, kind_of
from rtda_runtime.sources.footage.bags.mcap import MCAP_MAGIC, McapStorage
from rtda_runtime.sources.footage.bags.packed import ZSTD_MAGIC, UnpackedFile
from rtda_runtime.sources.footage.bags.ros1 import ROS1_MAGIC, Ros1Storage
from rtda_runtime.sources.footage.bags.sqlite import SqliteStorage
from rtda_runtime.sources.footage.bags.storage import Storage

__all__ = ["METADATA", "bag_files", "open_storage"]

METADATA = "metadata.yaml"  # beside the files of a bag of ROS 2
_KINDS: Dict[bytes, Callable[[Path, Path], Storage]] = {
    ROS1_MAGIC: Ros1Storage,
    b"SQLite format 3\0": SqliteStorage,
    MCAP_MAGIC: McapStorage,
}
_HEAD_BYTES = 1024
# The list in metadata.yaml, as yaml-cpp and ruamel write it (- name), or in one line ([name, name]).
_LIST = re.compile(
    r"^(?P<indent> *)relative_file_paths:[ \t]*(?P<line>\[[^\]]*\])?(?P<items>(?:\n(?P=indent) *- .*)*)", re.M
)


def bag_files(path: Path) -> List[Path]:
    """The files of a bag, in their order: itself, or those that the ``metadata.yaml`` of its folder names.

    Raises:
        FileAccessError: If one is missing.
        SourceError: If the folder is no bag of ROS 2.
    """
    if not path.is_dir():
        return [path]
    listed = path / METADATA
    if not listed.is_file():
        raise SourceError(
            f"{path} is no bag of ROS 2", why=f"it holds no {METADATA}", hint="name the .db3 or .mcap in it"
        )
    names = _named(read_text(listed, what="list of a bag's files"))
    if not names:
        raise SourceError(
            f"{listed} names no files (relative_file_paths)", hint=f"where ROS 2 is installed: ros2 bag reindex {path}"
        )
    files = [path / PurePosixPath(name).name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileAccessError(
            f"{path} lacks {', '.join(missing)}",
            why=f"its {METADATA} names {len(files)} file{'s' * (len(files) > 1)}",
            hint="copy what is missing, or name one that is there: bag:" + str(_there(path, files)),
        )
    return files


def _there(folder: Path, files: List[Path]) -> Path:
    return next((file for file in files if file.is_file()), folder / "FILE")


def _named(text: str) -> List[str]:
    found = _LIST.search(text)
    if found is None:
        return []
    line = (found["line"] or "").strip("[]").split(",")
    items = [item.partition("- ")[2] for item in found["items"].splitlines()]
    return [name for name in (part.strip().strip("'\"") for part in (*line, *items)) if name]


def open_storage(path: Path) -> Storage:
    """The storage of one file.

    Raises:
        FileAccessError: If it cannot be read, or is empty.
        SourceError: If it is no file of a bag, or damaged.
        MissingPackageError: If the package that reads it is not installed.
    """
    readable_file(path, what="bag")
    head = _head(path)
    if not head.startswith(ZSTD_MAGIC):
        return _storage_of(path, path, head)
    copy = UnpackedFile(path)
    storage = _storage_of(copy.path, path, _head(copy.path))
    storage.holds = copy
    return storage


def _storage_of(path: Path, shown: Path, head: bytes) -> Storage:
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            return kind(path, shown)
    said = describe(kind_of(head))
    raise SourceError(
        f"{shown} is no bag" + (f" but {said.text}" if said.text else " of a known format"),
        hint=said.hint or "known: .bag of ROS 1 (version 2.0), .db3 of ROS 2, .mcap; zstd around them",
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError as err:
        raise file_error(err, path, "read") from err
