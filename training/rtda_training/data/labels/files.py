"""Pictures and label files as they are stored, read and written.

A camera that was held upright stores lying pixels and a note, EXIF's orientation. Viewers and :func:`read_frame` turn
such a picture; many tools that make labels do not. Beside a label it is refused, with the commands that settle it: for
a half turn or a mirror image no size tells which was done, so none is assumed.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.files import file_bytes, file_error, readable_file, write_bytes
from rtda_deploy.optional import require
from rtda_deploy.pictures.content_kind import PICTURE_KINDS
from rtda_deploy.pictures.decode import checked_picture, decode_bgr, decode_stored
from rtda_deploy.pictures.whole import PictureFacts, look
from rtda_training.data.labels.palette_png import GREY, GREY_ALPHA, PALETTE, png_header, stored_bytes

__all__ = ["TurnedError", "mask_size", "read_frame", "read_mask", "red_channel", "write_png"]

_BY_MOGRIFY = ("jpeg", "tiff")  # of PNG and WEBP it takes the note away and leaves the pixels lying


class TurnedError(DataError):
    """A picture or label that EXIF turns, where that is not allowed."""


def read_frame(path: Path, *, labelled: bool = False) -> np.ndarray:
    """A picture file as uint8 (H, W, 3) BGR, turned as its EXIF says.

    Args:
        path: The file.
        labelled: Whether a label is read beside it; a picture that EXIF turns is then refused, because nothing says
            whether the label fits the pixels as they are stored or as they are shown.

    Raises:
        DataError: If it cannot be decoded or is not whole, has 12 bits in 16, or is turned beside a label.
        FileAccessError: If it cannot be opened, or is no regular file.
    """
    content = file_bytes(path, what="picture")
    if labelled:
        _refuse_turned(content, path)
    cv2 = require("cv2", extra="runtime", purpose="to read pictures")
    return np.asarray(decode_bgr(cv2, content, f"picture {path}", DataError, path=path), dtype=np.uint8)


def red_channel(mask: np.ndarray) -> np.ndarray:
    """The ids (H, W) of an RGB label (H, W, 3), CARLA's way of storing them, or of one that has a single channel."""
    return np.ascontiguousarray(mask[..., 0]) if mask.ndim == 3 else mask


def read_mask(path: Path) -> np.ndarray:
    """A label file as it is stored.

    Returns:
        uint8 or uint16 (H, W) for one channel and for palette files (their indices, not their colours);
        uint8 or uint16 (H, W, 3) RGB for colours, a fourth channel left out.

    Raises:
        DataError: If it cannot be decoded, is not whole, is lossy (JPEG, whatever it is called), or EXIF turns it.
        FileAccessError: If it cannot be opened, or is no regular file.
    """
    content = file_bytes(path, what="label")
    facts = checked_picture(content, f"label {path}", DataError)
    if facts.lossy:
        raise DataError(
            f"label {path} is a {PICTURE_KINDS[facts.kind]}, which is lossy: near edges its ids are not those saved",
            hint="save labels as PNG in the program that made them; a PNG made from this file has the same wrong ids",
        )
    if facts.orientation != 1:
        raise _turned_label(path, facts)
    header = png_header(content)
    if header is not None and (header.colour_type == PALETTE or (header.colour_type == GREY and header.depth < 8)):
        return stored_bytes(content, path)
    cv2 = require("cv2", extra="runtime", purpose="to read labels")
    mask = decode_stored(cv2, content, f"label {path}", DataError)
    if mask.ndim == 2:
        return np.asarray(mask)
    if header is not None and header.colour_type == GREY_ALPHA:
        return np.ascontiguousarray(mask[..., 0])
    return np.ascontiguousarray(mask[..., 2::-1])  # BGR or BGRA to RGB


def mask_size(path: Path) -> Tuple[int, int]:
    """(height, width) of a label file, from its header where it is a PNG."""
    try:
        with open(readable_file(path, what="label"), "rb") as stream:
            header = png_header(stream.read(33))
    except OSError as err:
        raise file_error(err, path, "read") from err
    if header is not None:
        return header.height, header.width
    height, width = read_mask(path).shape[:2]
    return int(height), int(width)


def _refuse_turned(content: bytes, path: Path) -> None:
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


def _turned_label(path: Path, facts: PictureFacts) -> TurnedError:
    """The error for a label whose own EXIF says that it is to be turned."""
    return TurnedError(
        f"label {path} is turned by its EXIF (orientation {facts.orientation})",
        why="labels are read as their pixels are stored",
        hint=f"if the stored pixels lie as those of the picture: {_without_exif(path)}",
    )


def _without_exif(path: Path) -> str:
    return f"exiftool -overwrite_original -n -Orientation=1 {shlex.quote(str(path))}"


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3) BGR, whole or not at all.

    Raises:
        DataError: If it cannot be encoded.
        FileAccessError: If the folder cannot be written to or the disk is full.
    """
    cv2 = require("cv2", extra="training", purpose="to store pictures")
    encoded, content = cv2.imencode(".png", picture)
    if not encoded:
        raise DataError(f"cannot encode {path} as PNG", hint="memory may be short (free -h); run it again")
    write_bytes(path, content.tobytes())
