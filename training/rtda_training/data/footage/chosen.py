"""The frames that are chosen from footage, kept in the cache: chosen once, read as pictures ever after.

A choice is a folder ``<cache>/footage-v1/<key>/`` with ``frames/<recording>/<time>.png``, losslessly, and
``frames.json``; it is whole or not there. The key changes with everything the choice depends on: what was asked, path,
size and time of each file, and how frames are chosen. While frames are chosen, all that may be are on the disk: up to
four times as many as are kept. Deleting a folder costs only the time to choose again; those of footage that has changed
since are not deleted for you.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

from rtda_deploy.files import cache_folder, file_error
from rtda_training.data.address import DataAddress
from rtda_training.data.footage.asked import AskedFrames
from rtda_training.data.footage.record import FRAMES, SHEET, FootageRecord, KeptFrame
from rtda_training.data.footage.select import SelectOptions
from rtda_training.data.kept_folders import filling
from rtda_training.readers import Progress

__all__ = ["ChosenFrames", "chosen_frames"]

_FORMAT = 1  # of the folder; part of its parent's name
_CHOICE = 2  # raised with every change of what the same thresholds choose from the same footage


class ChosenFrames(NamedTuple):
    """What is kept of footage.

    Attributes:
        folder: In the cache.
        record: What was chosen and dropped.
        asked: What was asked for.
    """

    folder: Path
    record: FootageRecord
    asked: AskedFrames

    def path(self, frame: KeptFrame) -> Path:
        """The file of a frame."""
        return self.folder / FRAMES / frame.file

    @property
    def sheet(self) -> Path:
        """A picture of what was kept and dropped."""
        return self.folder / SHEET


def chosen_frames(address: DataAddress, progress: Optional[Progress] = None) -> ChosenFrames:
    """The chosen frames of an address of the kind ``video`` or ``bag``, from the cache; it is filled first if need be.

    Args:
        address: Its options say what is looked at and how much is kept.
        progress: Called with (done, total) frames that were looked at.

    Raises:
        ConfigError: If an option makes no sense.
        DataError: If no frame is left.
        FileAccessError: If a file is missing, the cache cannot be written to, or the disk is full.
        SourceError: If a recording cannot be read.
        MissingPackageError: If the package that reads such a recording is not installed.
    """
    asked = AskedFrames.of(address)
    folder = _folder_of(asked)
    if folder.is_dir():
        return ChosenFrames(folder, FootageRecord.read(folder), asked)
    from rtda_training.data.footage.choosing import choose_into
    from rtda_training.data.footage.frame_writer import cannot_keep

    try:
        with filling(folder) as work:
            choose_into(work, asked, str(address.without("list", "pictures")), folder.name, progress)
    except OSError as err:
        raise cannot_keep(err, folder.parent, "chosen frames are kept there") from err
    return ChosenFrames(folder, FootageRecord.read(folder), asked)


def _folder_of(asked: AskedFrames) -> Path:
    footage = asked.footage
    head = [_CHOICE, footage.kind, footage.topic, footage.from_s, footage.to_s, footage.every_s, asked.select]
    if asked.select:  # what is held back is chosen apart
        head += [dataclasses.asdict(SelectOptions(count=asked.count)), asked.hold_back.share, asked.hold_back.seconds]
    digest = hashlib.sha256(json.dumps(head).encode())
    for path in footage.paths():
        for file in _files(path):
            digest.update(f"\n{_state(file)}".encode("utf-8", "surrogateescape"))
    return cache_folder() / f"footage-v{_FORMAT}" / digest.hexdigest()[:24]


def _files(path: Path) -> Iterator[Path]:
    """A file, or those of a bag's folder."""
    if not path.is_dir():
        yield path
        return
    found: List[Path] = [Path(base) / name for base, _, names in os.walk(str(path)) for name in names]
    yield from sorted(found)


def _state(path: Path) -> str:
    """Changes when a file does."""
    try:
        found = path.stat()
    except OSError as err:
        raise file_error(err, path, "read") from err
    return f"{path.absolute()}|{found.st_size}|{found.st_mtime_ns}"
