"""The files that a recording is read from; also so that nothing is written over them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import List, Union
from urllib.parse import unquote, urlsplit

from rtda_deploy.errors import RtdaError

__all__ = ["recording_files", "recording_path"]

_LOCATION = re.compile(r"""\blocation\s*=\s*(?:"([^"]+)"|'([^']+)'|(\S+))""")


def recording_path(address: Union[int, str, Path]) -> Path:
    """The file, folder or pattern that an address means.

    A name may end in a space where there is such a file, and a ``file://`` may be typed without escapes.
    """
    typed = str(address)
    text = typed.strip()
    if not text.lower().startswith("file://"):
        return Path(typed if os.path.exists(typed) else text)
    path, as_typed = unquote(urlsplit(text).path), typed.lstrip()[len("file://") :]
    return Path(as_typed if os.path.exists(as_typed) and not os.path.exists(path) else path)


def recording_files(address: Union[int, str, Path]) -> List[Path]:
    """The files of an address that ``open_source`` takes; none of a camera, a stream or a recording that is not there.

    Of a folder or a pattern the pictures, of a ``gst:`` pipeline what its elements name as their location.
    """
    from rtda_runtime.sources.pictures import pictures_of_folder, pictures_of_pattern

    text = str(address).strip()
    if text.startswith("gst:"):
        return [Path(next(filter(None, found))) for found in _LOCATION.findall(text)]
    path = recording_path(address)
    with contextlib.suppress(RtdaError, OSError, ValueError):
        if path.is_dir():
            return pictures_of_folder(path)
        if path.is_file():
            return [path]
        if re.search(r"%(0\d+)?d", path.name):
            return pictures_of_pattern(path)
    return []
