"""What the readers of files share: a list of pictures with their labels."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.labels.files import mask_size, read_frame
from rtda_training.data.layouts import files_below, pictures_below
from rtda_training.data.list_file import Pair
from rtda_training.labels import CITYSCAPES, ClassList
from rtda_training.readers import Pictures, file_stamp, labels_closed

__all__ = ["PairedPictures"]

_LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")


class PairedPictures(Pictures):
    """Files by position; a reader adds how its labels are read.

    Args:
        pairs: The pictures in their order.
        labelled: Whether labels may be read.
        where: The folder that was looked at, for messages.
        pool: Every picture of the layout, of which ``pairs`` are some; to find labels without a picture.
        picture_folders: Where pictures are; to tell what was left out of them.
        label_folders: Where labels are.
        split: The split that was taken, where it is not the one asked for.
    """

    classes: ClassList = CITYSCAPES

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        labelled: bool,
        where: Path,
        pool: Sequence[Pair],
        picture_folders: Sequence[Path],
        label_folders: Sequence[Path],
        split: Optional[str] = None,
    ) -> None:
        self._pairs = list(pairs)
        self._labelled = labelled
        self._pool = list(pool) if labelled else []
        self._picture_folders = tuple(picture_folders)
        self._label_folders = tuple(label_folders) if labelled else ()
        self.where = str(where)
        self.split = split

    @abc.abstractmethod
    def read_label(self, path: Path) -> np.ndarray:
        """uint8 (H, W), class ids of ``classes``, 255 where not labelled."""

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        return str(self._pairs[index].picture)

    def key(self, index: int) -> str:
        return self._pairs[index].key

    def frame(self, index: int) -> np.ndarray:
        return read_frame(self._pairs[index].picture, labelled=self._labelled)

    def label(self, index: int) -> np.ndarray:
        return self.read_label(self._label_path(index))

    def label_size(self, index: int) -> Tuple[int, int]:
        return mask_size(self._label_path(index))

    def label_name(self, index: int) -> str:
        return str(self._label_path(index))

    def stamp(self, index: int) -> str:
        return file_stamp(self._label_path(index))

    def missing_label(self, index: int) -> bool:
        label = self._pairs[index].label
        return self._labelled and (label is None or not label.is_file())

    def without_picture(self) -> List[str]:
        pairs = (*self._pairs, *self._pool)
        known = {_plain(pair.label) for pair in pairs if pair.label is not None}
        keys = {pair.key for pair in self._pool}
        folders = [folder for folder in self._label_folders if folder.is_dir()]
        found = dict.fromkeys(path for folder in folders for path in pictures_below(folder, _LABEL_SUFFIXES))
        return [str(path) for path in found if _plain(path) not in known and not self.belongs(path, keys)]

    def left_out(self) -> Dict[str, List[str]]:
        told: Dict[str, List[str]] = {}
        for folder in self._picture_folders:
            for why, paths in files_below(folder).left_out.items():
                told.setdefault(why, []).extend(str(path) for path in paths)
        return told

    def belongs(self, label: Path, keys: Set[str]) -> bool:
        """Whether a file in a label folder that is the label of no picture is no fault."""
        return False

    def require_labels(self) -> None:
        missing = [index for index in range(len(self)) if self.missing_label(index)]
        if missing:
            label = self._pairs[missing[0]].label
            raise DataError(
                f"{len(missing)} of {len(self)} pictures of {self.where} have no label,"
                f" first: {label or self._pairs[missing[0]].picture}",
                hint=self.missing_hint(),
            )

    def _label_path(self, index: int) -> Path:
        label = self._pairs[index].label
        if not self._labelled:
            raise labels_closed(self.where)
        if label is None:
            raise DataError(f"{self.name(index)} has no label", hint=self.missing_hint())
        return label


def _plain(path: Path) -> str:
    """A path to compare by: ``labels/../masks/a.png`` is ``masks/a.png``, and so is ``labels/a.png`` through a link."""
    return os.path.realpath(path)
