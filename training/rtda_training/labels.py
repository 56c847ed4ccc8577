"""Class lists, their colours, the papers' protocols, and how the classes of two data sets are joined by name.

NumPy only: a robot evaluates with this too.
"""

from __future__ import annotations

from typing import Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, DataError

__all__ = [
    "CITYSCAPES",
    "IGNORE_INDEX",
    "PROTOCOLS",
    "ClassList",
    "check_label",
    "join_by_name",
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


def check_label(label: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """Give ``label`` back if it is uint8 (H, W) with values below ``num_classes`` or 255.

    Raises:
        DataError: Naming the picture and the values outside the class list.
    """
    if label.dtype != np.uint8 or label.ndim != 2:
        raise DataError(
            f"label {name} is {label.dtype} {label.shape}, expected one uint8 channel (H, W)",
            hint="save class ids as an 8-bit grey PNG, not colours",
        )
    present = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    outside = [int(value) for value in present if num_classes <= value != IGNORE_INDEX]
    if outside:
        shown = ", ".join(str(value) for value in outside[:6])
        raise DataError(
            f"label {name} has values outside its {num_classes} classes: {shown}",
            hint=f"allowed are 0..{num_classes - 1} and 255 (ignore); are these raw ids that need a mapping?",
        )
    return label
