"""Class lists, their colours, the papers' protocols, and how the classes of two data sets are joined by name.

NumPy only: a robot evaluates with this too.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, DataError

__all__ = [
    "CAMVID",
    "CITYSCAPES",
    "IGNORE_INDEX",
    "PROTOCOLS",
    "ClassList",
    "LabelMeaning",
    "check_label",
    "class_list",
    "describe_join",
    "join_by_name",
    "join_classes",
    "known_partners",
    "needs_declared_join",
    "protocol_indices",
]

IGNORE_INDEX = 255


class ClassList(NamedTuple):
    """The classes of a data set in index order; ``names`` and ``palette`` (RGB, 0..255) have one entry per class."""

    names: Tuple[str, ...]
    palette: Tuple[Tuple[int, int, int], ...]

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.names)


class LabelMeaning(NamedTuple):
    """What a user said, or did not say, about the values of a set's labels.

    Attributes:
        file: The classes file, or where one would be looked for.
        assumed: There is no such file: the labels are taken for Cityscapes' 19 classes.
        names: The classes that the user named; empty where none were.
        says_ignored: It was said which values are not labelled, so that many of them are meant.
        absent: Classes of which no label need hold a pixel.
        raw: Values are class numbers as they stand; no table maps them.
    """

    file: str
    assumed: bool = False
    names: Tuple[str, ...] = ()
    says_ignored: bool = False
    absent: Tuple[str, ...] = ()
    raw: bool = True


# Cityscapes' 19 training classes ("train ids") with the data set's own colours.
CITYSCAPES = ClassList(
    names=(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
)

# CamVid's 11 classes in the order of the SegNet papers, with the data set's own colours.
CAMVID = ClassList(
    names=(
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

_CLASS_LISTS: Dict[str, ClassList] = {"cityscapes": CITYSCAPES, "camvid": CAMVID}

# What a class of one list is called in another. CamVid has one class for rider and bicycle, one for motor vehicles, one
# for lights and signs; terrain and motorcycle have no partner there and are ignored.
_TO_CAMVID = {
    "road": "Road",
    "sidewalk": "Pavement",
    "building": "Building",
    "wall": "Fence",
    "fence": "Fence",
    "pole": "Pole",
    "traffic light": "SignSymbol",
    "traffic sign": "SignSymbol",
    "vegetation": "Tree",
    "sky": "Sky",
    "person": "Pedestrian",
    "rider": "Bicyclist",
    "car": "Car",
    "truck": "Car",
    "bus": "Car",
    "train": "Car",
    "bicycle": "Bicyclist",
}
# The other way a class that Cityscapes splits goes to its commoner half; scores on it are approximate.
_FROM_CAMVID = {
    "Sky": "sky",
    "Building": "building",
    "Pole": "pole",
    "Road": "road",
    "Pavement": "sidewalk",
    "Tree": "vegetation",
    "SignSymbol": "traffic sign",
    "Fence": "fence",
    "Car": "car",
    "Pedestrian": "person",
    "Bicyclist": "bicycle",
}
_PARTNERS: Dict[str, str] = {**_TO_CAMVID, **_FROM_CAMVID}

# SYNTHIA has no terrain, truck and train; mIoU13 leaves out wall, fence and pole as well (RTDA, Table II).
PROTOCOLS: Dict[int, Tuple[str, ...]] = {
    19: CITYSCAPES.names,
    16: tuple(name for name in CITYSCAPES.names if name not in ("terrain", "truck", "train")),
    13: tuple(name for name in CITYSCAPES.names if name not in ("terrain", "truck", "train", "wall", "fence", "pole")),
}


def protocol_indices(class_names: Sequence[str], protocol: Optional[int] = None) -> Tuple[int, ...]:
    """Indices of the classes that a protocol averages over; all of them where ``protocol`` is None.

    Raises:
        ConfigError: If the protocol is unknown, or these classes do not hold all of its own.
    """
    if protocol is None:
        return tuple(range(len(class_names)))
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol} is unknown", hint="known: 19, 16 and 13 (Cityscapes' classes)")
    missing = [name for name in PROTOCOLS[protocol] if name not in class_names]
    if missing:
        raise ConfigError(
            f"protocol {protocol} needs classes that are not here: {', '.join(missing)}",
            hint="leave --protocol away to average over the classes that are",
        )
    return tuple(class_names.index(name) for name in PROTOCOLS[protocol])


def join_by_name(names: Sequence[str], into: Sequence[str], aliases: Optional[Mapping[str, str]] = None) -> np.ndarray:
    """A table that turns the class ids of one list into those of another, by name.

    Args:
        names: The classes that labels or masks are in.
        into: The classes wanted.
        aliases: Name in ``names`` -> name in ``into``, where they differ; an empty string means "ignore".

    Returns:
        uint8 (256,): ``table[id]``; 255 for every class without a partner and for every id outside ``names``.
    """
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    for index, name in enumerate(names):
        wanted = (aliases or {}).get(name, name)
        if wanted in into:
            table[index] = into.index(wanted)
    return table


def class_list(name: str) -> ClassList:
    """The class list of that name: ``cityscapes`` (19) or ``camvid`` (11).

    Raises:
        ConfigError: If no list has this name.
    """
    if name not in _CLASS_LISTS:
        raise ConfigError(f"class list {name!r} is unknown", hint=f"known: {', '.join(_CLASS_LISTS)}")
    return _CLASS_LISTS[name]


def join_classes(have: ClassList, want: ClassList) -> np.ndarray:
    """A table that turns class ids of ``have`` into those of ``want``: by name, else by the declared partners.

    Returns:
        uint8 (256,): ``table[id]``; 255 for a class without a partner and for every id outside ``have``.

    Raises:
        DataError: If the two lists have nothing in common.
    """
    table = known_partners(have, want)
    if (table == IGNORE_INDEX).all():
        raise DataError(
            f"these class lists have nothing in common: {', '.join(have.names)} | {', '.join(want.names)}",
            hint="classes are joined by name; give them the same names (folder: in its classes.json)",
        )
    return table


def known_partners(have: ClassList, want: ClassList) -> np.ndarray:
    """As :func:`join_classes`, also where the two lists have nothing in common: then all is 255."""
    return join_by_name(have.names, want.names, _aliases(have, want))


def needs_declared_join(have: ClassList, want: ClassList) -> bool:
    """Whether a class of either list meets its partner only under another name."""
    return bool(_aliases(have, want) or _aliases(want, have))


def describe_join(have: ClassList, want: ClassList) -> str:
    """One line for people: ``19 -> 11 classes: sidewalk -> Pavement, wall + fence -> Fence, …; ignored: terrain``.

    Classes that only change between upper and lower case are left out.
    """
    if have.names == want.names:
        return f"{have.num_classes} classes, unchanged"
    table = join_classes(have, want)
    groups: Dict[str, List[str]] = {}
    for index, name in enumerate(have.names):
        if table[index] != IGNORE_INDEX:
            groups.setdefault(want.names[int(table[index])], []).append(name)
    told = [
        f"{' + '.join(names)} -> {into}"
        for into, names in groups.items()
        if len(names) > 1 or names[0].lower() != into.lower()
    ]
    text = f"{have.num_classes} -> {want.num_classes} classes" + (f": {', '.join(told)}" if told else " by name")
    ignored = [name for index, name in enumerate(have.names) if table[index] == IGNORE_INDEX]
    never = [name for name in want.names if name not in groups]
    text += f"; ignored: {', '.join(ignored)}" if ignored else ""
    return text + (f"; without a partner: {', '.join(never)}" if never else "")


def _aliases(have: ClassList, want: ClassList) -> Dict[str, str]:
    return {
        name: _PARTNERS[name] for name in have.names if name not in want.names and _PARTNERS.get(name) in want.names
    }


def check_label(label: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """Give ``label`` back if it is uint8 (H, W) with values below ``num_classes`` or 255.

    Raises:
        DataError: Naming the picture and the values outside the class list.
    """
    if label.dtype != np.uint8 or label.ndim != 2:
        raise DataError(
            f"label {name} is {label.dtype} {label.shape}, expected one uint8 channel (H, W)",
            hint="save class ids as an 8-bit grey PNG, or say in classes.json what the values mean (docs/data.md)",
        )
    wrong = (label >= num_classes) & (label != IGNORE_INDEX)  # many times faster than counting every value
    if wrong.any():
        outside = np.unique(label[wrong])
        shown = ", ".join(str(value) for value in outside[:6])
        raise DataError(
            f"label {name} has values outside its {num_classes} classes: {shown}",
            hint=f"allowed are 0..{num_classes - 1} and 255 (ignore); are these raw ids that need a mapping?",
        )
    return label
