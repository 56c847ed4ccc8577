"""``carla:ROOT``: pictures and semantic labels recorded from CARLA, whose ids changed twice.

Layout: ``CameraRGB/`` and ``CameraSeg/``, or ``images/`` and ``labels/``, each optionally below ``train/``, ``val/``
and ``test/``. The id stands in the red channel of a colour PNG, or in the only channel. ``version=`` names the table:
``0.8`` and ``0.9.5`` (13 ids), ``0.9.10`` (23 ids, to 0.9.13), ``0.9.14`` and ``carlascapes`` (train id + 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.labels.files import read_mask, red_channel
from rtda_training.data.labels.tables import IdTable, UnknownIdsError, by_name
from rtda_training.data.layouts import find_layout, layout_pairs, root_folder
from rtda_training.data.readers.paired import PairedPictures
from rtda_training.labels import CITYSCAPES

__all__ = ["FIRST_IDS", "CarlaPictures"]

_WANTS = "CameraRGB/ and CameraSeg/, or images/ and labels/"
# 0.8 to 0.9.9: the sky is among the unlabelled (0), and car is every vehicle, the own bonnet included.
FIRST_IDS: Dict[int, str] = {
    0: "",
    1: "building",
    2: "fence",
    3: "",  # other
    4: "person",
    5: "pole",
    6: "road",  # road line
    7: "road",
    8: "sidewalk",
    9: "vegetation",
    10: "car",
    11: "wall",
    12: "traffic sign",
}
# 0.9.10 to 0.9.13 go on from there.
_MIDDLE: Dict[int, str] = {
    **FIRST_IDS,
    13: "sky",
    14: "",  # ground
    15: "",  # bridge
    16: "",  # rail track
    17: "",  # guard rail
    18: "traffic light",
    19: "",  # static
    20: "",  # dynamic
    21: "",  # water
    22: "terrain",
}
# From 0.9.14 on: Cityscapes' train ids plus one, then what Cityscapes does not train on.
_NEW: Dict[int, str] = {
    **dict.fromkeys(range(29), ""),
    **{index + 1: name for index, name in enumerate(CITYSCAPES.names)},
    24: "road",  # road line
}
_TRY_NEW = "CARLA 0.9.14 and newer number classes otherwise: ?version=0.9.14"
_TABLES: Dict[str, IdTable] = {
    "0.8": IdTable(by_name(FIRST_IDS, CITYSCAPES.names), "the 13 ids of CARLA 0.8", _TRY_NEW),
    "0.9.5": IdTable(by_name(FIRST_IDS, CITYSCAPES.names), "the 13 ids of CARLA 0.9.5", _TRY_NEW),
    "0.9.10": IdTable(by_name(_MIDDLE, CITYSCAPES.names), "the 23 ids of CARLA 0.9.10 to 0.9.13", _TRY_NEW),
    "0.9.14": IdTable(by_name(_NEW, CITYSCAPES.names), "the 29 ids of CARLA 0.9.14"),
    "carlascapes": IdTable(by_name(_NEW, CITYSCAPES.names), "the 29 ids of CarlaScapes"),
}
_CAMERAS = ("CameraRGB", "CameraSeg")
_MANY = 5  # classes in a picture that make the absence of every newer id telling


class CarlaPictures(PairedPictures):
    """CARLA's pictures by name.

    Without ``version=``, ``CameraRGB/`` means 0.8 (who recorded in that layout did so then) and ``images/`` means
    0.9.14; a label that speaks against it is refused.
    """

    classes = CITYSCAPES
    _table = _TABLES["0.9.14"]
    _presumed = False

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> CarlaPictures:
        """Open ``carla:ROOT``."""
        address.allow("list", "version")
        version = address.choice("version", tuple(_TABLES))
        root = root_folder(address, _WANTS)
        layouts, names = find_layout(address, root, split, (_CAMERAS, ("images", "labels")))
        if not layouts:
            raise DataError(
                f"{root} holds neither CameraRGB/ nor images/", hint=f"carla:PATH wants {_WANTS}; see docs/data.md"
            )
        pool, chosen = layout_pairs(address, root, layouts, labels)
        found = cls(
            chosen,
            labelled=labels,
            where=layouts[0].images if len(layouts) == 1 else root,
            pool=pool,
            picture_folders=[layout.images for layout in layouts],
            label_folders=[layout.labels for layout in layouts],
            split=layouts[0].split if len(layouts) == 1 else None,
        )
        found._table = _TABLES[version or ("0.8" if names == _CAMERAS else "0.9.14")]
        found._presumed = version is None
        return found

    def read_label(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        ids = red_channel(mask)
        if mask.ndim == 3 and mask[..., 1].any() and len(np.unique(ids)) > len(_NEW):
            raise UnknownIdsError(
                f"label {path} holds colours, not ids", hint="save CARLA's raw tags: no CityScapesPalette conversion"
            )
        if self._presumed and self._table is _TABLES["0.9.14"] and ids.dtype == np.uint8:
            present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
            if len(present) >= _MANY and present.max() < len(FIRST_IDS):
                raise UnknownIdsError(
                    f"label {path} looks like the 13 ids of CARLA before 0.9.10: it has {len(present)} classes,"
                    f" all below {len(FIRST_IDS)}",
                    hint="type ?version=0.9.5, or ?version=0.9.14 if it is one after all",
                )
        return self._table.apply(ids, path)
