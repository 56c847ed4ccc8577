"""``camvid:ROOT``: CamVid's 11 classes as in the SegNet tutorial: 367 train, 101 val and 233 test pictures of 480x360.

Layout: ``train/``, ``val/``, ``test/`` with pictures, ``trainannot/`` … with 8-bit PNGs of ids 0..10, 11 where not
labelled. The original with 32 colours is not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.labels.files import read_mask
from rtda_training.data.labels.tables import IdTable
from rtda_training.data.layouts import folder_of, pictures_below, root_folder
from rtda_training.data.list_file import Pair, listed
from rtda_training.data.readers.paired import PairedPictures
from rtda_training.labels import CAMVID, IGNORE_INDEX

__all__ = ["CamvidPictures"]

_WANTS = "train/, trainannot/ and the same for val and test"
_IDS = IdTable(
    {**{number: number for number in range(11)}, 11: IGNORE_INDEX},
    "CamVid's ids 0..11",
    "camvid: reads the 11 classes of the SegNet tutorial; for others, use folder: with a classes.json",
)


class CamvidPictures(PairedPictures):
    """CamVid's pictures by name."""

    classes = CAMVID

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> CamvidPictures:
        """Open ``camvid:ROOT``."""
        address.allow("list")
        root = root_folder(address, _WANTS)
        splits = [split]
        if "list" in address.options:
            splits = [name for name in ("train", "val", "test") if (root / name).is_dir()] or splits
        pairs = []
        for name in splits:
            folder = folder_of(address, root / name, _WANTS)
            for path in pictures_below(folder):
                key = f"{name}/{path.relative_to(folder).with_suffix('').as_posix()}"
                label = root / f"{name}annot" / f"{key[len(name) + 1 :]}.png"
                pairs.append(Pair(key, path, label if labels else None))
        chosen = listed(address, root, pairs, labels)
        return cls(
            pairs if chosen is None else chosen,
            labelled=labels,
            where=root / split if len(splits) == 1 else root,
            pool=pairs,
            picture_folders=[root / name for name in splits],
            label_folders=[root / f"{name}annot" for name in splits],
        )

    def read_label(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        if mask.ndim != 2:
            raise DataError(
                f"label {path} holds colours, the SegNet tutorial's CamVid has ids",
                hint="for the 32 colours of the original, use folder: with their names in classes.json",
            )
        return _IDS.apply(mask, path)

    def missing_hint(self) -> str:
        return "trainannot/, valannot/ and testannot/ hold one .png per picture, of the same name"
