"""``folder:PATH``: any user's pictures, with masks and a classes file where there are labels.

Layout: ``PATH/images/…`` and ``PATH/labels/…`` (same relative name, ``.png``), or, with splits, ``PATH/<split>/images``
and ``PATH/<split>/labels``, or ``PATH/images/<split>`` and ``PATH/labels/<split>``; VOC's ``JPEGImages`` and
``SegmentationClass`` in their place. Without such a folder the pictures of PATH itself are read, and what looks like
labels among them is left out. ``label_suffix=_L`` finds the labels ``NAME_L.png``, in their folder or beside the
pictures. What masks mean is said by ``PATH/classes.json`` or ``classes=FILE.json``; without it they are Cityscapes' 19
train ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Set

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.labels.classes_file import ClassesFile
from rtda_training.data.labels.files import read_mask
from rtda_training.data.labels.lookalikes import part_labels
from rtda_training.data.layouts import Layout, find_layout, label_endings, layout_pairs, root_folder
from rtda_training.data.list_file import SUFFIXES, typed_file
from rtda_training.data.readers.paired import PairedPictures

__all__ = ["FolderPictures"]

_NAMES = (("images", "labels"), ("JPEGImages", "SegmentationClass"))


class FolderPictures(PairedPictures):
    """Pictures of a folder in the order of their names, and the label of the same name beside each."""

    _file = ClassesFile()
    _stems: Optional[Set[str]] = None
    _like_labels: Dict[str, List[Path]] = {}  # noqa: RUF012 - replaced, never changed

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> FolderPictures:
        """Open ``folder:PATH``.

        Raises:
            DataError: If there are no pictures, all of them look like labels, or the classes file is broken.
        """
        address.allow("list", "label_suffix", "classes")
        root = root_folder(address, "images/ and labels/")
        file = ClassesFile.load(root, typed_file(address, "classes", root) if "classes" in address.options else None)
        layouts: List[Layout] = find_layout(address, root, split, _NAMES)[0]
        plain = not layouts
        if plain:
            base = root / split if (root / split).is_dir() and "list" not in address.options else root
            layouts = [Layout(base, base / "labels", None)]
        named_so = root.name in [images for images, _ in _NAMES]  # its owner says that these are pictures
        like_labels: Dict[str, List[Path]] = {}

        def sift(paths: List[Path]) -> List[Path]:
            below = [path for path in paths if layouts[0].labels not in path.parents] if plain else paths
            kept, parted = part_labels(below, folders=plain and not named_so)
            like_labels.update(parted)
            return kept

        pool, chosen = layout_pairs(address, root, layouts, labels, sift)
        where = layouts[0].images if len(layouts) == 1 else root
        if not pool:
            _refuse_empty(where, like_labels)
        taken = layouts[0].split if len(layouts) == 1 else None
        found = cls(
            chosen,
            labelled=labels,
            where=where,
            pool=pool,
            picture_folders=[layout.images for layout in layouts],
            label_folders=[layout.labels for layout in layouts],
            split=taken if taken != split else None,
        )
        found._file = file
        found._like_labels = {} if "list" in address.options else like_labels  # a list says what is meant
        found.classes = file.classes
        found.meaning = file.meaning
        return found

    def read_label(self, path: Path) -> np.ndarray:
        return self._file.apply(read_mask(path), path)

    def left_out(self) -> Dict[str, List[str]]:
        told = {
            f"pictures that look like labels, {name}": [str(path) for path in paths]
            for name, paths in self._like_labels.items()
        }
        return {**super().left_out(), **told}

    def belongs(self, label: Path, keys: Set[str]) -> bool:
        """``a_L.png`` belongs to ``a.png``: a list, even one that is not used here, may pair the two."""
        if self._stems is None:
            self._stems = {key.rpartition("/")[2] for key in keys}
        cuts = (place for place, letter in enumerate(label.stem) if letter in "_-." and place)
        return any(label.stem[:cut] in self._stems for cut in cuts)

    def missing_hint(self) -> str:
        pair = next(pair for index, pair in enumerate(self._pairs) if self.missing_label(index))
        endings = label_endings(pair, self._label_folders)
        there = f"; {endings[0][0].name} is there: type ?label_suffix={endings[0][1]}" if endings else ""
        return f"labels/ holds one .png of class ids per picture, of the same name{there}"


def _refuse_empty(where: Path, like_labels: Dict[str, List[Path]]) -> None:
    if like_labels:
        count = sum(len(paths) for paths in like_labels.values())
        raise DataError(
            f"{where} holds no pictures but {count} that look like labels: few values in flat regions",
            hint="name the folder of the pictures; if these are pictures, put them into a folder named images",
        )
    raise DataError(f"{where} holds no pictures", hint=f"known kinds: {' '.join(SUFFIXES)}")
