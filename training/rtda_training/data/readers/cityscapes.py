"""``cityscapes:ROOT``: Cityscapes as it is downloaded, and the label ids that GTA5 shares with it.

Layout: ``leftImg8bit/<split>/<city>/*_leftImg8bit.png`` with ``gtFine/<split>/<city>/*_gtFine_labelIds.png``, or
``*_gtFine_labelTrainIds.png`` where that is the only one. labelIds are mapped here, labelTrainIds are taken as they
are; where a picture has both, labelIds count, because they are the original and the others are made from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Set, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.labels.files import read_mask
from rtda_training.data.labels.tables import IdTable, UnknownIdsError, by_name
from rtda_training.data.layouts import folder_of, pictures_below, root_folder
from rtda_training.data.list_file import Pair, listed
from rtda_training.data.readers.paired import PairedPictures
from rtda_training.labels import CITYSCAPES, IGNORE_INDEX

__all__ = ["LABEL_IDS", "CityscapesPictures", "refuse_train_ids"]

# Label id -> class; "" is not trained on. Cityscapes' own table (cityscapesScripts, labels.py); 34 is GTA5's plate.
LABEL_IDS: Dict[int, str] = {
    **dict.fromkeys(range(35), ""),
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_PICTURE, _LABEL_IDS, _TRAIN_IDS = "_leftImg8bit", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
_WANTS = "leftImg8bit/<split>/<city>/ and gtFine/<split>/<city>/"
_IDS = IdTable(
    by_name({number: name for number, name in LABEL_IDS.items() if number < 34}, CITYSCAPES.names),
    "Cityscapes' label ids 0..33",
    "are these train ids (0..18, 255)? then the file's name must end in _labelTrainIds.png",
)
_TRAIN = IdTable(
    {**{number: number for number in range(19)}, IGNORE_INDEX: IGNORE_INDEX},
    "the 19 train ids and 255",
    "are these label ids? then the file's name must end in _labelIds.png",
)


class CityscapesPictures(PairedPictures):
    """Cityscapes' pictures by city and name."""

    classes = CITYSCAPES

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool) -> CityscapesPictures:
        """Open ``cityscapes:ROOT``; where ``test`` was not typed, ``val`` is taken: test has no public labels."""
        address.allow("list")
        root = root_folder(address, _WANTS)
        images = folder_of(address, root / "leftImg8bit", _WANTS)
        taken = "val" if split == "test" and address.split is None and labels else split
        splits = [taken]
        if "list" in address.options:
            splits = [name for name in ("train", "val", "test") if (images / name).is_dir()] or splits
        folders = [folder_of(address, images / name, _WANTS) for name in splits]
        pairs = [pair for folder in folders for pair in _pairs(folder, root / "gtFine" / folder.name, labels)]
        chosen = listed(address, root, pairs, labels)
        return cls(
            pairs if chosen is None else chosen,
            labelled=labels,
            where=folders[0] if len(folders) == 1 else images,
            pool=pairs,
            picture_folders=folders,
            label_folders=[root / "gtFine" / name for name in splits],
            split=taken if taken != split else None,
        )

    def read_label(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        if mask.ndim != 2:
            raise DataError(f"label {path} holds colours", hint="use *_gtFine_labelIds.png, not *_gtFine_color.png")
        if "TrainIds" in path.name:
            return _TRAIN.apply(mask, path)
        refuse_train_ids(mask, path, "rename it to *_labelTrainIds.png if that is what it holds")
        return _IDS.apply(mask, path)

    def belongs(self, label: Path, keys: Set[str]) -> bool:
        stem = label.name.partition("_gtFine_")[0]
        other_kind = not label.name.endswith((_LABEL_IDS, _TRAIN_IDS))  # instanceIds, color
        return other_kind or f"{label.parent.name}/{stem}" in keys

    def missing_hint(self) -> str:
        return "gtFine_trainvaltest.zip holds the *_gtFine_labelIds.png of train and val"


def refuse_train_ids(mask: np.ndarray, path: Path, hint: str) -> None:
    """Refuse a file of label ids that can only be one of train ids.

    Such a file holds 255, or it has three classes and more but neither road (7) nor anything from 19 on: no light,
    plant, sky, person or vehicle.

    Raises:
        UnknownIdsError: If it is one.
    """
    highest = int(mask.max())
    if mask.dtype != np.uint8 or 19 <= highest < IGNORE_INDEX:  # nearly every picture: nothing more to look at
        return
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if IGNORE_INDEX in present or (len(present) >= 3 and present.max() < 19 and 7 not in present):
        shown = ", ".join(str(value) for value in present[-6:])
        raise UnknownIdsError(
            f"label {path} looks like train ids (it holds {shown}), label ids are expected", hint=hint
        )


def _pairs(images: Path, labels: Path, labelled: bool) -> List[Pair]:
    found = []
    for path in pictures_below(images):
        stem = path.stem[: -len(_PICTURE)] if path.stem.endswith(_PICTURE) else path.stem
        key = f"{path.parent.relative_to(images).as_posix()}/{stem}"
        found.append(Pair(key, path, _label(labels, key) if labelled else None))
    return found


def _label(folder: Path, key: str) -> Path:
    by_kind: Tuple[Path, Path] = (folder / f"{key}{_LABEL_IDS}", folder / f"{key}{_TRAIN_IDS}")
    return next((path for path in by_kind if path.is_file()), by_kind[0])
