"""What readers look for below a folder: pictures, their keys, splits by number."""

from __future__ import annotations

import re
import shlex
import zlib
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from rtda_deploy.errors import DataError
from rtda_deploy.folders import Found, walk
from rtda_deploy.masking import mask_path
from rtda_training.data.address import DataAddress

__all__ = ["SUFFIXES", "Pair", "files_below", "folder_of", "numbered_split", "pictures_below", "root_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_EVERY = 20  # of twenty consecutive numbers, one is val, one is test


class Pair(NamedTuple):
    """A picture and where its label is.

    Attributes:
        key: Relative name without a suffix, the same for every copy of the picture: ``aachen/aachen_000000_000019``.
        picture: The picture's file.
        label: The label's file; None in a set opened without labels, and where it has none.
    """

    key: str
    picture: Path
    label: Optional[Path] = None


def root_folder(address: DataAddress, wants: str) -> Path:
    """The folder an address names.

    Raises:
        DataError: If it is none; ``wants`` says what it should hold.
    """
    root = Path(address.path).expanduser()
    if not root.exists():
        raise DataError(
            f"{mask_path(root)} is no folder: nothing of this name is there",
            hint=f"check the spelling; {address.kind}:PATH wants the folder that holds {wants}",
        )
    if not root.is_dir():
        frames = (
            f"mkdir footage && ffmpeg -i {shlex.quote(str(root))} -vf fps=2 footage/%06d.png   and type folder:footage"
        )
        raise DataError(
            f"{mask_path(root)} is no folder",
            hint=f"{address.kind}:PATH wants the folder that holds {wants}; of a film make pictures: {frames}",
        )
    return root


def folder_of(address: DataAddress, folder: Path, wants: str) -> Path:
    """``folder``, if it is there.

    Raises:
        DataError: Naming it and what the layout wants.
    """
    if not folder.is_dir():
        raise DataError(
            f"{mask_path(folder)} is no folder", hint=f"{address.kind}:PATH wants {wants}; see docs/data.md"
        )
    return folder


def pictures_below(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> List[Path]:
    """Picture files of a folder and its sub-folders, in the order of their paths; see :func:`files_below`."""
    return files_below(folder, suffixes).files


def files_below(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> Found:
    """Files of these kinds below a folder, and what was left out: hidden and system folders, links to nothing."""
    endings = tuple(suffixes)
    return walk(folder, lambda name: name.lower().endswith(endings))


def numbered_split(key: str) -> str:
    """The split of a picture in a set that has none of its own, by the number that ends its name.

    Of twenty consecutive numbers the one divisible by 20 is val, the one ten later is test, the rest is train. A name
    without a number counts by its checksum. The same picture is in the same split on every machine.
    """
    digits = re.search(r"(\d+)\D*$", key.rpartition("/")[2])
    number = int(digits.group(1)) if digits else zlib.crc32(key.encode("utf-8"))
    return {0: "val", _EVERY // 2: "test"}.get(number % _EVERY, "train")
