"""``folder:PATH``: any user's pictures, with masks and a classes file where there are labels.

Layout: ``PATH/images/…`` and ``PATH/labels/…`` (same relative name, ``.png``), or, with splits, ``PATH/<split>/images``
and ``PATH/<split>/labels``; without an ``images`` folder, the pictures of PATH itself are read (unlabelled).
``PATH/classes.json`` holds ``{"names": [...], "palette": [[r, g, b], ...]}``; without it the labels are taken to be
Cityscapes' 19 train ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import List, Optional

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.files import readable_file
from rtda_deploy.optional import require
from rtda_training.data.address import DataAddress
from rtda_training.labels import CITYSCAPES, ClassList
from rtda_training.readers import Pictures

__all__ = ["FolderPictures", "read_frame", "read_label"]

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class FolderPictures(Pictures):
    """Pictures of a folder in the order of their names, and the label of the same name beside each."""

    def __init__(self, images: Path, labels: Optional[Path], classes: ClassList) -> None:
        self.classes = classes
        self._images = images
        self._labels = labels
        self._paths = _pictures(images)

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> FolderPictures:
        """Open ``folder:PATH``.

        Raises:
            DataError: If there are no pictures, or labels are wanted and missing.
        """
        address.allow()
        root = Path(address.path).expanduser()
        if not root.is_dir():
            raise DataError(f"{root} is no folder", hint="folder:PATH wants the folder that holds images/ and labels/")
        base = root / split if (root / split).is_dir() else root
        images = base / "images" if (base / "images").is_dir() else base
        found = cls(images, base / "labels" if labels else None, _classes(root))
        if not found._paths:
            raise DataError(f"{images} holds no pictures", hint=f"known kinds: {' '.join(_PICTURES)}")
        if labels:
            missing = [path for path in found._paths if not found._label_path(path).is_file()]
            if missing:
                raise DataError(
                    f"{len(missing)} of {len(found._paths)} pictures of {images} have no label,"
                    f" first: {found._label_path(missing[0])}",
                    hint="labels/ holds one .png of class ids per picture, of the same name",
                )
        return found

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def frame(self, index: int) -> np.ndarray:
        return read_frame(self._paths[index])

    def label(self, index: int) -> np.ndarray:
        return read_label(self._label_path(self._paths[index]))

    def _label_path(self, picture: Path) -> Path:
        if self._labels is None:
            raise DataError(f"{self._images} was opened without labels")
        return (self._labels / picture.relative_to(self._images)).with_suffix(".png")


def read_frame(path: Path) -> np.ndarray:
    """A picture file as uint8 (H, W, 3) BGR.

    Raises:
        DataError: If it cannot be decoded.
        FileAccessError: If it cannot be opened.
    """
    cv2 = require("cv2", extra="runtime", purpose="to read pictures")
    content = np.frombuffer(readable_file(path, what="picture").read_bytes(), dtype=np.uint8)
    frame = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if frame is None:
        raise DataError(f"{path} is no picture that OpenCV can read", hint="is the file whole?")
    return np.asarray(frame, dtype=np.uint8)


def read_label(path: Path) -> np.ndarray:
    """A label file as it is stored: uint8 (H, W) for a good one; checked by the caller.

    Raises:
        DataError: If it cannot be decoded.
        FileAccessError: If it cannot be opened.
    """
    cv2 = require("cv2", extra="runtime", purpose="to read labels")
    content = np.frombuffer(readable_file(path, what="label").read_bytes(), dtype=np.uint8)
    label = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if label is None:
        raise DataError(f"{path} is no picture that OpenCV can read", hint="is the file whole?")
    return np.asarray(label)


def _pictures(folder: Path) -> List[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES and path.is_file())


def _classes(root: Path) -> ClassList:
    path = root / "classes.json"
    if not path.exists():
        return CITYSCAPES
    try:
        values = json.loads(readable_file(path, what="classes file").read_text(encoding="utf-8"))
        names = tuple(str(name) for name in values["names"])
        red_green_blue = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(
            f"{path} is no classes file: {err!r}", hint='expected {"names": [...], "palette": [[r, g, b], ...]}'
        ) from err
    if not names or len(names) != len(red_green_blue):
        raise DataError(
            f"{path} has {len(names)} names and {len(red_green_blue)} colours", hint="give each class one of both"
        )
    return ClassList(names, red_green_blue)
