"""Recordings on a disk: the files that an address means, and what opens them."""

from __future__ import annotations

import contextlib
import functools
import logging
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
from rtda_runtime.sources.footage.address import BAG_SUFFIXES, VIDEO_SUFFIXES
from rtda_runtime.sources.footage.playback import footage_files, is_footage, open_playback, parse_playback
from rtda_runtime.sources.kinds import SOURCE_KINDS, CameraRequest
from rtda_runtime.sources.names import PICTURE_SUFFIXES
from rtda_runtime.sources.pictures import PictureSource, pictures_of_folder, pictures_of_pattern

__all__ = ["files", "opener"]

_log = logging.getLogger(__name__)

_NUMBERED = re.compile(r"%(0\d+)?d")


def opener(address: str, request: CameraRequest) -> Callable[[], Source]:
    """What opens a file, a folder, a numbered pattern or footage; nothing can be asked of it.

    Raises:
        ConfigError: If an option of footage is unknown or makes no sense.
    """
    footage = _without_scheme(address)
    if is_footage(footage):
        return functools.partial(open_playback, *parse_playback(footage))
    return functools.partial(_open, address)


def files(address: str) -> List[Path]:
    """The files that are read; none of a recording that is not there."""
    path = _path(address)
    with contextlib.suppress(RtdaError, OSError, ValueError):
        if is_footage(_without_scheme(address)):
            return footage_files(_without_scheme(address))
        if path.is_dir():
            return pictures_of_folder(path)
        if path.is_file():
            return [path]
        if _NUMBERED.search(path.name):
            return pictures_of_pattern(path)
    return []


def _without_scheme(address: str) -> str:
    return address[len("file://") :] if address.lower().startswith("file://") else address


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


def _tell_videos_beside(folder: Path, pictures: int) -> None:
    others = sorted(name for name in os.listdir(folder) if name.lower().endswith((*VIDEO_SUFFIXES, *BAG_SUFFIXES)))
    if others:
        _log.warning(
            "%s: its %d pictures are read; %s and other footage beside them is not (video:%s plays it)",
            *(folder, pictures, others[0], folder / others[0]),
        )


def _open_path(path: Path) -> Source:
    if path.is_dir():
        pictures = pictures_of_folder(path)
        _tell_videos_beside(path, len(pictures))
        return PictureSource(str(path), pictures)
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
