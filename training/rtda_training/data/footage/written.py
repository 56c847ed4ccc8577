"""Chosen frames as a folder of pictures of one's own: ``DIR/train/images`` and ``DIR/val/images``."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import List, Optional, Tuple

from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import atomic_path, remove_leftovers, write_text
from rtda_deploy.run_folders import LOCK_NAME
from rtda_training.data.footage.chosen import ChosenFrames
from rtda_training.data.footage.record import RECORD, SPLITS, FootageRecord, KeptFrame
from rtda_training.readers import Progress

__all__ = ["refuse_foreign", "write_frames"]


def write_frames(chosen: ChosenFrames, folder: Path, split: str = "all", progress: Optional[Progress] = None) -> int:
    """Copy chosen frames, their record and the contact sheet into a folder.

    Frames are copied and not linked: who retouches one does not change the cache. What is there already is left alone,
    so that a killed run goes on where it was.

    Args:
        chosen: What to write.
        folder: Gets ``train/images/…``, ``val/images/…``, ``frames.json`` and ``sheet.jpg``; made where it is missing.
        split: ``train``, ``val``, or ``all`` for both.
        progress: Called with (done, total).

    Returns:
        How many frames were written by this call.

    Raises:
        ConfigError: If the folder holds something else, or frames of another choice.
        FileAccessError: If it cannot be written to or the disk is full.
    """
    frames = _placed(chosen, split)
    record = dataclasses.replace(chosen.record, frames=tuple(frame for _, frame in frames))
    refuse_foreign(folder)
    _refuse_others(folder, record)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_text(folder / RECORD, record.text())
    written = 0
    for place, (source, frame) in enumerate(frames):
        written += _copied(source, folder / frame.file)
        if progress is not None:
            progress(place + 1, len(frames))
    if chosen.sheet.is_file():
        _copied(chosen.sheet, folder / chosen.sheet.name)
    return written


def _placed(chosen: ChosenFrames, split: str) -> List[Tuple[Path, KeptFrame]]:
    """The cached file of each frame, and the frame as it is called in the folder."""
    found = []
    for name in SPLITS if split == "all" else (split,):
        for frame in chosen.record.part(name, chosen.asked.hold_back):
            placed = dataclasses.replace(frame, file=f"{name}/images/{frame.file}")
            found.append((chosen.path(frame), placed))
    return found


def refuse_foreign(folder: Path) -> None:
    """Check that a folder is empty, not there, or one that frames were written to; asked before frames are chosen.

    Raises:
        ConfigError: If it holds something else.
    """
    there = sorted(set(os.listdir(folder)) - {LOCK_NAME}) if folder.is_dir() else []
    if there and RECORD not in there:
        raise ConfigError(
            f"{folder} holds other files, such as {there[0]}",
            hint="choose a new folder for the frames, or empty this one",
        )


def _refuse_others(folder: Path, record: FootageRecord) -> None:
    if not (folder / RECORD).is_file():
        return
    try:
        before = FootageRecord.read(folder)
    except DataError as err:
        raise ConfigError(
            f"{folder} holds a {RECORD} of something else", why=err.message, hint="choose a new folder for the frames"
        ) from err
    if (before.key, before.frames) != (record.key, record.frames):
        raise ConfigError(
            f"{folder} holds frames of another choice: {before.address}", hint="choose a new folder, or empty this one"
        )


def _copied(source: Path, target: Path) -> bool:
    """Copy a file, whole or not at all; False where it is there already."""
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return False
    with atomic_path(target) as temporary:
        shutil.copyfile(str(source), str(temporary))
    return True
