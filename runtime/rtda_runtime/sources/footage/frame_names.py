"""What frames of recordings are called where they lie in a folder: one for each recording, and the time in it."""

from __future__ import annotations

import os
import re
from typing import List, Sequence, Set

from rtda_runtime.sources.footage.base import Recording

__all__ = ["frame_name", "plain_name", "recording_folders"]

_LONGEST = 80  # characters of a folder's name


def frame_name(time_ns: int, number: int, taken: Set[str]) -> str:
    """``000123.450s``, by the time after the recording's first frame; with its number where the name is taken.

    Args:
        time_ns: Nanoseconds.
        number: Of the frame in its recording.
        taken: Names that are taken; this one is added.
    """
    name = f"{time_ns / 1e9:010.3f}s"
    name = f"{name}-{number}" if name in taken else name
    taken.add(name)
    return name


def recording_folders(recordings: Sequence[Recording]) -> List[str]:
    """A folder's name for each recording: its file's, with more of the path where several are called alike."""
    paths = [recording.files[0].parent if _is_folder(recording) else recording.files[0] for recording in recordings]
    found = [plain_name(path.stem) for path in paths]
    if len(set(found)) < len(found):
        shared = os.path.commonpath([str(path.absolute().parent) for path in paths])
        found = [plain_name(os.path.relpath(str(path.absolute()), shared).replace(os.sep, "-")) for path in paths]
    return [name if found.index(name) == place else f"{name}-{place + 1}" for place, name in enumerate(found)]


def _is_folder(recording: Recording) -> bool:
    return recording.kind == "bag" and (recording.files[0].parent / "metadata.yaml").is_file()


def plain_name(name: str) -> str:
    """A name that every file system takes and that is not hidden."""
    plain = re.sub(r"[^\w.+-]+", "_", name).strip("._")[-_LONGEST:]
    return plain or "footage"
