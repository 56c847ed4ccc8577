"""``gta5:ROOT``: the 24,966 frames of "Playing for Data" (Richter et al., ECCV 2016).

Layout: ``images/00001.png`` and ``labels/00001.png``. The labels are palette PNGs whose indices are Cityscapes' label
ids, 0..34; grey PNGs of the same ids and RGB ones of the same colours (some mirrors have them) are read as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple

import numpy as np

from rtda_training.data.address import DataAddress
from rtda_training.data.labels.files import read_mask
from rtda_training.data.labels.tables import ColourTable, IdTable, by_name
from rtda_training.data.layouts import folder_of, numbered_pairs, pictures_below, root_folder
from rtda_training.data.list_file import Pair
from rtda_training.data.readers.cityscapes import LABEL_IDS, refuse_train_ids
from rtda_training.data.readers.paired import PairedPictures
from rtda_training.labels import CITYSCAPES, IGNORE_INDEX

__all__ = ["Gta5Pictures"]

_WANTS = "images/ and labels/"
_IDS = IdTable(by_name(LABEL_IDS, CITYSCAPES.names), "GTA5's ids 0..34")
# Colours of the classes that are not trained on: void, static (two spellings), dynamic, ground, parking, rail track,
# guard rail, bridge, tunnel, caravan, trailer. A pole group has a pole's colour and a licence plate a car's.
_IGNORED: Tuple[Tuple[int, int, int], ...] = (
    (0, 0, 0),
    (20, 20, 20),
    (111, 74, 0),
    (81, 0, 81),
    (250, 170, 160),
    (230, 150, 140),
    (180, 165, 180),
    (150, 100, 100),
    (150, 120, 90),
    (0, 0, 90),
    (0, 0, 110),
)
_BY_COLOUR: Dict[Tuple[int, int, int], int] = {
    **dict.fromkeys(_IGNORED, IGNORE_INDEX),
    **{colour: index for index, colour in enumerate(CITYSCAPES.palette)},
}
_COLOURS = ColourTable(_BY_COLOUR, "the colours of GTA5's classes")


class Gta5Pictures(PairedPictures):
    """GTA5's frames by number."""

    classes = CITYSCAPES

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> Gta5Pictures:
        """Open ``gta5:ROOT``; the split is that of ``ROOT/<split>.txt``, else by number."""
        address.allow("list")
        root = root_folder(address, _WANTS)
        images = folder_of(address, root / "images", _WANTS)
        below = [(path.relative_to(images).with_suffix("").as_posix(), path) for path in pictures_below(images)]
        pairs = [Pair(key, path, root / "labels" / f"{key}.png" if labels else None) for key, path in below]
        chosen = numbered_pairs(address, root, pairs, split, labels)
        return cls(
            chosen,
            labelled=labels,
            where=images,
            pool=pairs,
            picture_folders=[images],
            label_folders=[root / "labels"],
        )

    def read_label(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        if mask.ndim == 3:
            return _COLOURS.apply(mask, path)
        refuse_train_ids(mask, path, "for labels that are train ids already, use folder:ROOT")
        return _IDS.apply(mask, path)
