"""``idda:ROOT``: IDDA (Alberti et al., RA-L 2020): 24 classes in many scenarios, made with CARLA.

Layout: ``<scenario>/RGB/*.jpg`` and ``<scenario>/Semantic/*.png``; ROOT may also be one scenario. Ids stand in the red
channel, or in the only one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.folders import is_hidden
from rtda_training.data.address import DataAddress
from rtda_training.data.labels.files import read_mask, red_channel
from rtda_training.data.labels.tables import IdTable, by_name
from rtda_training.data.layouts import numbered_pairs, pictures_below, root_folder
from rtda_training.data.list_file import Pair
from rtda_training.data.readers.carla import FIRST_IDS
from rtda_training.data.readers.paired import PairedPictures
from rtda_training.labels import CITYSCAPES

__all__ = ["IddaPictures"]

_WANTS = "<scenario>/RGB/ and <scenario>/Semantic/"
# By name: RTDA's idda_info.json numbers bicycle 15 and motorcycle 14 in a list of its own 16 classes. Its car is any
# vehicle on four wheels.
_NAMES: Dict[int, str] = {
    **FIRST_IDS,
    13: "traffic light",
    14: "",  # guard rail
    15: "",  # dynamic
    16: "bicycle",
    17: "motorcycle",
    18: "rider",
    19: "terrain",
    20: "sky",
    21: "",  # rail track
    22: "",  # ground
    23: "",  # static
}
_IDS = IdTable(by_name(_NAMES, CITYSCAPES.names), "IDDA's ids 0..23")


class IddaPictures(PairedPictures):
    """IDDA's pictures by scenario and name."""

    classes = CITYSCAPES

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> IddaPictures:
        """Open ``idda:ROOT``; the split is that of ``ROOT/<split>.txt``, else by number."""
        address.allow("list")
        root = root_folder(address, _WANTS)
        scenarios = [root] if (root / "RGB").is_dir() else _scenarios(root)
        pairs: List[Pair] = []
        for scenario in scenarios:
            for path in pictures_below(scenario / "RGB"):
                stem = path.relative_to(scenario / "RGB").with_suffix("").as_posix()
                key = stem if scenario == root else f"{scenario.relative_to(root).as_posix()}/{stem}"
                pairs.append(Pair(key, path, scenario / "Semantic" / f"{stem}.png" if labels else None))
        chosen = numbered_pairs(address, root, pairs, split, labels)
        return cls(
            chosen,
            labelled=labels,
            where=root,
            pool=pairs,
            picture_folders=[scenario / "RGB" for scenario in scenarios],
            label_folders=[scenario / "Semantic" for scenario in scenarios],
        )

    def read_label(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        return _IDS.apply(red_channel(mask), path)


def _scenarios(root: Path) -> List[Path]:
    found = sorted(folder for folder in root.iterdir() if not is_hidden(folder.name) and (folder / "RGB").is_dir())
    if not found:
        raise DataError(f"{root} holds no folder with RGB/ in it", hint=f"idda:PATH wants {_WANTS}; see docs/data.md")
    return found
