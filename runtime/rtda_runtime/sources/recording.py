"""The files that a recording is read from, so that nothing is written over them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import List, Union
from urllib.parse import unquote, urlsplit

from rtda_deploy.errors import RtdaError

__all__ = ["recording_files"]

_LOCATION = re.compile(r"""\blocation\s*=\s*(?:"([^"]+)"|'([^']+)'|(\S+))""")


def recording_files(address: Union[int, str, Path]) -> List[Path]:
    """The files of an address that ``open_source`` takes; none of a camera, a stream or a recording that is not there.

    Of a folder or a pattern the pictures, of a ``gst:`` pipeline what its elements name as their location.
    """
    from rtda_runtime.sources.pictures import pictures_of_folder, pictures_of_pattern

    text = str(address).strip()
    if text.startswith("gst:"):
        return [Path(next(filter(None, found))) for found in _LOCATION.findall(text)]
    path = Path(unquote(urlsplit(text).path)) if text.lower().startswith("file://") else Path(text)
    with contextlib.suppress(RtdaError, OSError, ValueError):
        if path.is_dir():
            return pictures_of_folder(path)
        if path.is_file():
            return [path]
        if re.search(r"%(0\d+)?d", path.name):
            return pictures_of_pattern(path)
    return []
