"""Folders of pictures, numbered patterns and single pictures, in natural order."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Callable, List, Optional

import numpy as np

from rtda_deploy.errors import SourceError
from rtda_deploy.files import file_bytes, file_error
from rtda_deploy.folders import is_hidden
from rtda_deploy.pictures.decode import SixteenBits, decode_bgr
from rtda_runtime._opencv import opencv
from rtda_runtime.sources.base import Frame, Source
from rtda_runtime.sources.names import PICTURE_SUFFIXES, natural_key

__all__ = [
    "PictureSource",
    "pictures_of_folder",
    "pictures_of_pattern",
    "read_picture",
]


class PictureSource(Source):
    """Picture files one after the other; a picture that cannot be read is an error that names it."""

    live = False

    def __init__(self, name: str, files: List[Path], clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.name = name
        self.num_frames = len(files)
        self.names = [] if name == str(files[0]) else [file.name for file in files]
        self._files = files
        self._clock = clock
        self._next = 0
        self._closed = False
        # Decoded at once, so that a folder of broken files fails before a long model is loaded.
        self._sixteen = SixteenBits()
        self._first: Optional[np.ndarray] = read_picture(files[0], self._sixteen)
        self.size_wh = (self._first.shape[1], self._first.shape[0])

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self._closed:
            raise self._closed_error()
        if self._next >= len(self._files):
            return None
        image = self._first if self._first is not None else read_picture(self._files[self._next], self._sixteen)
        self._first = None
        frame = Frame(image=image, captured_ns=self._clock(), sequence=self._next)
        self._next += 1
        return frame

    def close(self) -> None:
        self._closed = True
        self._first = None


def read_picture(path: Path, sixteen: Optional[SixteenBits] = None) -> np.ndarray:
    """A picture file as uint8 (H, W, 3) BGR, turned as EXIF says: grey is repeated, alpha dropped, 16 bits cut to 8.

    Args:
        path: The file.
        sixteen: What is known of its source's bits; None for a picture by itself.

    Raises:
        SourceError: If it is no picture that OpenCV reads, is not whole, or has 12 bits in 16.
        FileAccessError: If it cannot be opened, is empty, or is no regular file.
    """
    content = file_bytes(path, what="picture")
    cv2: Any = opencv("to read pictures")
    decoded: np.ndarray = decode_bgr(cv2, content, f"picture {path}", SourceError, path=path, sixteen=sixteen)
    return decoded


def pictures_of_folder(folder: Path) -> List[Path]:
    """The pictures in ``folder`` (not below it), in natural order: 2.png before 10.png.

    Raises:
        SourceError: If there are none, saying what is there.
    """
    try:
        names = [name for name in os.listdir(folder) if not is_hidden(name)]
    except OSError as err:
        raise file_error(err, folder, "read") from err
    pictures = [folder / name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        there = f"{len(names)} other entries, such as {sorted(names)[0]}" if names else "it is empty"
        raise SourceError(
            f"no pictures in {folder} ({there})",
            hint=f"pictures end in {' '.join(PICTURE_SUFFIXES)}; videos are video:{folder}, bags bag:{folder}",
        )
    return sorted(pictures, key=lambda path: natural_key(path.name))


def pictures_of_pattern(pattern: Path) -> List[Path]:
    """The files a pattern such as ``frames/%06d.png`` stands for, by number; gaps are allowed.

    Raises:
        SourceError: If there are none.
    """
    expression = _pattern_expression(pattern.name)
    try:
        found = [(match, name) for name in os.listdir(pattern.parent) for match in [expression.match(name)] if match]
    except OSError as err:
        raise file_error(err, pattern.parent, "read") from err
    if not found:
        raise SourceError(f"no file fits the pattern {pattern}", hint=f"look there: ls {pattern.parent}")
    return [pattern.parent / name for match, name in sorted(found, key=lambda item: int(item[0].group(1)))]


def _pattern_expression(name: str) -> re.Pattern[str]:
    before, digits, after = re.split(r"%(?:0(\d+))?d", name, maxsplit=1)
    # %06d writes at least six digits: 000001, but also 1234567.
    number = rf"(\d{{{digits}}}|[1-9]\d{{{digits},}})" if digits else r"(\d+)"
    return re.compile(re.escape(before) + number + re.escape(after) + r"\Z")
