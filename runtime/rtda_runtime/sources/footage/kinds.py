"""Opening footage: the recordings that an address means, each by the reader of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Union

from rtda_deploy.errors import SourceError
from rtda_runtime.kinds import function_named
from rtda_runtime.sources.footage.address import FootageAddress
from rtda_runtime.sources.footage.base import Recording

__all__ = ["open_footage"]

# Called with a path and a topic (None: not typed). To add one: a module, a row here, and its suffixes in ``address``.
_READERS: Dict[str, str] = {
    "video": "rtda_runtime.sources.footage.video:open_video_recording",
    "bag": "rtda_runtime.sources.footage.bag:open_bag_recording",
}


def open_footage(address: Union[str, Path, FootageAddress]) -> List[Recording]:
    """The recordings that an address means, in natural order. They hold no file open until frames are asked for.

    Its ``from``, ``to`` and ``every`` are not applied: :func:`rtda_runtime.sources.footage.base.numbers_every` does.

    Raises:
        ConfigError: If it names no footage, or an option makes no sense.
        FileAccessError: If a file is missing or unreadable.
        SourceError: If a recording holds no frame that can be decoded, or a bag has several topics of pictures.
        MissingPackageError: If the package that reads such a recording is not installed.
    """
    meant = address if isinstance(address, FootageAddress) else FootageAddress.parse(str(address))
    reader = function_named(_READERS[meant.kind])
    found: List[Recording] = [reader(path, meant.topic) for path in meant.paths()]
    if len(found) > 1 and (meant.from_s, meant.to_s) != (None, None):
        raise SourceError(
            f"{meant}: from= and to= are of one recording, here are {len(found)}", hint="name one of them"
        )
    return found
