"""``synthia:ROOT``: SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016), 9,400 pictures.

Layout: ``RGB/0000000.png`` and ``GT/LABELS/0000000.png``: PNGs of three channels with 16 bits each, class id in the
red one. Readers that reduce them to 8 bits get zeros everywhere, which is refused here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.labels.files import read_mask
from rtda_training.data.labels.tables import IdTable, UnknownIdsError, by_name
from rtda_training.data.layouts import folder_of, numbered_pairs, pictures_below, root_folder
from rtda_training.data.list_file import Pair
from rtda_training.data.readers.paired import PairedPictures
from rtda_training.labels import CITYSCAPES

__all__ = ["SynthiaPictures"]

_WANTS = "RGB/ and GT/LABELS/"
# SYNTHIA has no terrain, truck and train in its pictures, though 16, 18 and 20 stand for them.
_NAMES: Dict[int, str] = {
    0: "",
    1: "sky",
    2: "building",
    3: "road",
    4: "sidewalk",
    5: "fence",
    6: "vegetation",
    7: "pole",
    8: "car",
    9: "traffic sign",
    10: "person",
    11: "bicycle",
    12: "motorcycle",
    13: "",  # parking slot
    14: "",  # road work
    15: "traffic light",
    16: "terrain",
    17: "rider",
    18: "truck",
    19: "bus",
    20: "train",
    21: "wall",
    22: "",  # lane marking: RTDA trains on it as road, BDL and DAFormer ignore it
}
_WHAT = "SYNTHIA's ids 0..22"
_IDS = IdTable(by_name(_NAMES, CITYSCAPES.names), _WHAT)
_LANE_IS_ROAD = IdTable(by_name({**_NAMES, 22: "road"}, CITYSCAPES.names), _WHAT)


class SynthiaPictures(PairedPictures):
    """SYNTHIA's pictures by number; ``lane=road`` makes lane markings road, as RTDA does."""

    classes = CITYSCAPES
    _ids = _IDS

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> SynthiaPictures:
        """Open ``synthia:ROOT``; the split is that of ``ROOT/<split>.txt``, else by number."""
        address.allow("list", "lane")
        lane = address.choice("lane", ("road", "ignore"))
        root = root_folder(address, _WANTS)
        images = folder_of(address, root / "RGB", _WANTS)
        folder = root / "GT" / "LABELS"
        below = [(path.relative_to(images).with_suffix("").as_posix(), path) for path in pictures_below(images)]
        pairs = [Pair(key, path, folder / f"{key}.png" if labels else None) for key, path in below]
        chosen = numbered_pairs(address, root, pairs, split, labels)
        found = cls(chosen, labelled=labels, where=images, pool=pairs, picture_folders=[images], label_folders=[folder])
        found._ids = _LANE_IS_ROAD if lane == "road" else _IDS
        return found

    def read_label(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        if mask.ndim != 3:
            raise DataError(
                f"label {path} has one channel, SYNTHIA's have the class id in the red one of three",
                hint="point synthia: at GT/LABELS as downloaded; for labels mapped to train ids, use folder:ROOT",
            )
        red = np.ascontiguousarray(mask[..., 0])
        if not red.any():
            raise UnknownIdsError(
                f"label {path} is zero everywhere",
                why="SYNTHIA's labels have 16 bits; saved again by a program that keeps 8, they lose their ids",
                hint="unpack GT/LABELS again from the download; do not convert it",
            )
        return self._ids.apply(red, path)
