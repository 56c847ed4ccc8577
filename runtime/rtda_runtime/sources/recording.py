"""Recordings on a disk: the files that an address means, and what opens them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path
from typing import Callable, List
from urllib.parse import unquote, urlsplit

from rtda_deploy.border import parsing
from rtda_deploy.errors import FileAccessError, RtdaError, SourceError
from rtda_deploy.files import readable_file
from rtda_deploy.masking import mask_password
from rtda_deploy.optional import available
from rtda_runtime.kinds import examples
from rtda_runtime.sources.base import Source
from rtda_runtime.sources.kinds import SOURCE_KINDS, CameraRequest
from rtda_runtime.sources.names import PICTURE_SUFFIXES
from rtda_runtime.sources.pictures import PictureSource, pictures_of_folder, pictures_of_pattern

__all__ = ["files", "opener"]

_NUMBERED = re.compile(r"%(0\d+)?d")


def opener(address: str, request: CameraRequest) -> Callable[[], Source]:
    """What opens a file, a folder or a numbered pattern; nothing can be asked of it."""
    return functools.partial(_open, address)


def files(address: str) -> List[Path]:
    """The files that are read; none of a recording that is not there."""
    path = _path(address)
    with contextlib.suppress(RtdaError, OSError, ValueError):
        if path.is_dir():
            return pictures_of_folder(path)
        if path.is_file():
            return [path]
        if _NUMBERED.search(path.name):
            return pictures_of_pattern(path)
    return []


def _path(address: str) -> Path:
    """The file, folder or pattern; a ``file://`` may be typed without escapes."""
    if not address.lower().startswith("file://"):
        return Path(address)
    path, as_typed = unquote(urlsplit(address).path), address[len("file://") :]
    return Path(as_typed if os.path.exists(as_typed) and not os.path.exists(path) else path)


def _open(address: str) -> Source:
    shown = mask_password(address)
    if shown == address:
        with parsing(FileAccessError, f"cannot read {shown!r}", hint="check the spelling of its path"):
            return _open_path(_path(address))
    with contextlib.suppress(FileAccessError, SourceError, OSError, ValueError):
        return _open_path(_path(address))
    # A mistyped address of a camera. Outside of the with block: what was raised there holds the password.
    raise FileAccessError(
        f"cannot read {shown}",
        why="there is no file, folder or video of that name that can be read",
        hint="a camera is rtsp://user:password@host/path; a file with : and @ in its name needs its whole path, /...",
    )


def _open_path(path: Path) -> Source:
    if path.is_dir():
        return PictureSource(str(path), pictures_of_folder(path))
    if _NUMBERED.search(path.name) and not path.exists():
        return PictureSource(str(path), pictures_of_pattern(path))
    try:
        readable_file(path, what="source")
    except FileAccessError as err:
        if "/" not in str(path) and not path.suffix:
            known = f"known: {examples(SOURCE_KINDS)}"
            raise FileAccessError(err.message, why=f"{path} is no file or folder here", hint=known) from err
        raise
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureSource(str(path), [path])
    if available("av"):
        from rtda_runtime.sources.stream import open_film

        return open_film(path)
    from rtda_runtime.sources.capture import open_video

    return open_video(path)
