"""The kinds of data set, one row each. Opening, errors, ``data check --help`` and the tests of docs/data.md read them.

To add one: a module with a subclass of ``rtda_training.readers.Pictures`` that has ``open``, and a row below. Imports
no NumPy, so that ``--help`` is quick.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple

from rtda_deploy.errors import ConfigError
from rtda_training.data.address import SPLITS

__all__ = ["DATA_KINDS", "DataKind", "data_kind", "kinds_text"]


class DataKind(NamedTuple):
    """One kind of data set.

    Attributes:
        reader: ``module:class``, loaded when first used. ``class.open(address, split, labels=...)`` gives ``Pictures``.
        example: An address of it.
        help: What it is, in a few words.
        splits: What ``?split=`` takes.
        rendered: It is made by the program: no file is read.
        prepared: It is made, or chosen, before it is read: ``open`` takes ``progress=`` too.
        labelled: Whether it can have labels.
    """

    reader: str
    example: str
    help: str
    splits: Tuple[str, ...] = SPLITS
    rendered: bool = False
    prepared: bool = False
    labelled: bool = True


_READERS = "rtda_training.data.readers"
_BY_NUMBER = (*SPLITS, "all")  # no split of their own: ?split=all takes every picture, as the papers do
_HELD_BACK = ("train", "val", "all")  # val is the end of the footage
_FOOTAGE = f"{_READERS}.footage:FootageFrames"
DATA_KINDS: Dict[str, DataKind] = {
    "toytown": DataKind(
        "rtda_training.data.toytown.cache:ToyTownPictures",
        "toytown:source",
        "rendered here",
        rendered=True,
        prepared=True,
    ),
    "folder": DataKind(f"{_READERS}.folder:FolderPictures", "folder:PATH", "your own pictures and masks"),
    "gta5": DataKind(f"{_READERS}.gta5:Gta5Pictures", "gta5:ROOT", "Playing for Data", _BY_NUMBER),
    "synthia": DataKind(f"{_READERS}.synthia:SynthiaPictures", "synthia:ROOT", "SYNTHIA-RAND-CITYSCAPES", _BY_NUMBER),
    "cityscapes": DataKind(f"{_READERS}.cityscapes:CityscapesPictures", "cityscapes:ROOT", "Cityscapes"),
    "camvid": DataKind(f"{_READERS}.camvid:CamvidPictures", "camvid:ROOT", "CamVid, 11 classes"),
    "idda": DataKind(f"{_READERS}.idda:IddaPictures", "idda:ROOT", "IDDA", _BY_NUMBER),
    "carla": DataKind(f"{_READERS}.carla:CarlaPictures", "carla:ROOT?version=0.9.14", "recorded from CARLA"),
    "video": DataKind(_FOOTAGE, "video:drive.mp4", "frames of videos", _HELD_BACK, prepared=True, labelled=False),
    "bag": DataKind(_FOOTAGE, "bag:run.mcap", "frames of ROS bags", _HELD_BACK, prepared=True, labelled=False),
}


def data_kind(name: str) -> DataKind:
    """The kind of that name.

    Raises:
        ConfigError: If there is none, naming all.
    """
    if name not in DATA_KINDS:
        raise ConfigError(f"data kind {name!r} is unknown", hint=f"known: {', '.join(DATA_KINDS)}")
    return DATA_KINDS[name]


def kinds_text() -> str:
    """All kinds for a help text: an address and what it is."""
    return "; ".join(f"{kind.example} ({kind.help})" for kind in DATA_KINDS.values())
