"""Pictures that EXIF turns, beside labels: refused, with the commands that settle it.

A camera that was held upright stores lying pixels and a note, EXIF's orientation. Viewers and :func:`read_frame` turn
such a picture; many tools that make labels do not. For a half turn or a mirror image no size tells which was done, so
none is assumed.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from rtda_deploy.errors import DataError
from rtda_deploy.pictures.whole import PictureFacts, look

__all__ = ["TurnedError", "refuse_turned", "turned_label"]

_BY_MOGRIFY = ("jpeg", "tiff")  # of PNG and WEBP it takes the note away and leaves the pixels lying


class TurnedError(DataError):
    """A picture or label that EXIF turns, where that is not allowed."""


def refuse_turned(content: bytes, path: Path) -> None:
    """Refuse a picture beside a label whose EXIF says that it is to be turned.

    Raises:
        TurnedError: With a command for labels of the stored pixels, and one for labels of the picture as shown.
    """
    facts = look(content)
    if facts.orientation == 1:
        return
    shown = (
        f"; fits it as viewers show it: mogrify -auto-orient {shlex.quote(str(path))}"
        if facts.kind in _BY_MOGRIFY
        else "; otherwise leave it out, or save it turned in an editor"
    )
    raise TurnedError(
        f"picture {path} is turned by its EXIF (orientation {facts.orientation}), and has a label",
        why="whether the label fits the pixels as they are stored or as viewers show them is not known",
        hint=f"if the label fits the pixels as stored: {_without_exif(path)}{shown}",
    )


def turned_label(path: Path, facts: PictureFacts) -> TurnedError:
    """The error for a label whose own EXIF says that it is to be turned."""
    return TurnedError(
        f"label {path} is turned by its EXIF (orientation {facts.orientation})",
        why="labels are read as their pixels are stored",
        hint=f"if the stored pixels lie as those of the picture: {_without_exif(path)}",
    )


def _without_exif(path: Path) -> str:
    return f"exiftool -overwrite_original -n -Orientation=1 {shlex.quote(str(path))}"
