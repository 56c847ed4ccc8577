"""``folder:PATH``: any user's pictures, with masks and a classes file where there are labels.

Layout: ``PATH/images/…`` and ``PATH/labels/…`` (same relative name, ``.png``), or, with splits, ``PATH/<split>/images``
and ``PATH/<split>/labels``, or ``PATH/images/<split>`` and ``PATH/labels/<split>``; without an ``images`` folder, the
pictures of PATH itself are read (unlabelled). What masks mean is said by ``PATH/classes.json``; without it they are
Cityscapes' 19 train ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import List

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.classes_file import ClassesFile
from rtda_training.data.layouts import Layout, find_layout, layout_pairs
from rtda_training.data.listing import SUFFIXES, root_folder
from rtda_training.data.masks import read_mask
from rtda_training.data.paired import PairedPictures

__all__ = ["FolderPictures"]


class FolderPictures(PairedPictures):
    """Pictures of a folder in the order of their names, and the label of the same name beside each."""

    _file = ClassesFile()

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> FolderPictures:
        """Open ``folder:PATH``.

        Raises:
            DataError: If there are no pictures, or the classes file is broken.
        """
        address.allow("list")
        root = root_folder(address, "images/ and labels/")
        layouts: List[Layout] = find_layout(address, root, split, [("images", "labels")])[0]
        if not layouts:
            base = root / split if (root / split).is_dir() else root
            layouts = [Layout(base, base / "labels", None)]
        file = ClassesFile.load(root / "classes.json")
        pool, chosen = layout_pairs(address, root, layouts, labels)
        where = layouts[0].images if len(layouts) == 1 else root
        if not pool:
            raise DataError(f"{where} holds no pictures", hint=f"known kinds: {' '.join(SUFFIXES)}")
        taken = layouts[0].split if len(layouts) == 1 else None
        found = cls(
            chosen,
            labelled=labels,
            where=where,
            pool=pool,
            label_folders=[layout.labels for layout in layouts],
            split=taken if taken != split else None,
        )
        found._file = file
        found.classes = file.classes
        return found

    def read_label(self, path: Path) -> np.ndarray:
        return self._file.apply(read_mask(path), path)

    def missing_hint(self) -> str:
        return "labels/ holds one .png of class ids per picture, of the same name"
