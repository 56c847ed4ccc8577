"""The label map of CVAT's "Segmentation mask 1.1": which colour means which class, written and read.

Every colour of a mask is declared there, ``name:red,green,blue::`` a line. CVAT refuses others (issue 7847 of
cvat-ai/cvat), also black (issue 8995): what has no class is declared as ``background:0,0,0::``.
"""

from __future__ import annotations

import colorsys
import json
from typing import List, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.files import is_text
from rtda_training.labels import IGNORE_INDEX, ClassList

__all__ = ["BACKGROUND", "Colour", "LabelMap", "class_colours", "cvat_labels", "is_a_line", "label_map_text"]

BACKGROUND = "background"
_BLACK = (0, 0, 0)

Colour = Tuple[int, int, int]


def cvat_labels(classes: ClassList) -> str:
    """The JSON for the "Raw" field where a task's labels are typed: names and colours as in the archive."""
    colours = class_colours(classes)
    labels = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*colours[index]), "attributes": []}
        for index, name in enumerate(classes.names)
    ]
    return json.dumps(labels, ensure_ascii=False, indent=1) + "\n"


def class_colours(classes: ClassList) -> List[Colour]:
    """A colour for each class, its own where it can be: none twice, and black for background alone.

    Raises:
        DataError: If a name cannot stand in a label map.
    """
    taken = {_BLACK}
    found: List[Colour] = []
    for index, (name, colour) in enumerate(zip(classes.names, classes.palette)):
        if ":" in name or name.lstrip().startswith("#") or not is_a_line(name):
            raise DataError(f"CVAT's label map cannot hold the name {name!r}", hint="rename it in classes.json")
        if name.lower() == BACKGROUND:
            found.append(_BLACK)
            continue
        turn = 0
        while tuple(colour) in taken:
            red, green, blue = colorsys.hsv_to_rgb((index + turn) * 0.618034 % 1.0, 0.75, 0.95)
            colour, turn = (int(255 * red), int(255 * green), int(255 * blue)), turn + 1
        taken.add((colour[0], colour[1], colour[2]))
        found.append((colour[0], colour[1], colour[2]))
    return found


def label_map_text(classes: ClassList, colours: Sequence[Colour]) -> str:
    """The file."""
    lines = ["# label:color_rgb:parts:actions"]
    if BACKGROUND not in [name.lower() for name in classes.names]:
        lines.append(f"{BACKGROUND}:0,0,0::")
    lines += [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip(classes.names, colours)]
    return "\n".join(lines) + "\n"


class LabelMap:
    """What the colours, or numbers, of an archive's masks mean in a set.

    Args:
        text: The label map.
        classes: Of the set.
        path: The archive, for messages.

    Raises:
        DataError: If it names a label that is no class of the set.
        ValueError: If a line is none of a label map.
    """

    def __init__(self, text: str, classes: ClassList, path: str) -> None:
        self._path = path
        self._names: List[str] = []
        self._colours: List[Colour] = []
        self._classes: List[int] = []
        for line in text.splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, colour = line.rsplit(":", 3)[0], line.rsplit(":", 3)[1]
            red, green, blue = bytes(map(int, colour.split(",")))  # 0 to 255 each
            if name not in classes.names and name.lower() != BACKGROUND:
                raise DataError(
                    f"{path} has the label {name!r}, which is no class of the set",
                    hint=f"rename it in CVAT; the classes are {', '.join(classes.names)}",
                )
            self._names.append(name)
            self._colours.append((red, green, blue))
            self._classes.append(classes.names.index(name) if name in classes.names else IGNORE_INDEX)

    def apply(self, mask: np.ndarray, name: str) -> np.ndarray:
        """uint8 (H, W) class indices of a mask in colours (H, W, 3), or of places in the label map (H, W).

        Raises:
            DataError: If it holds a colour that is not declared, or one of two labels.
        """
        if mask.ndim == 2:
            codes, known = mask.astype(np.int64), np.arange(len(self._classes))
        else:
            codes = mask[..., 0].astype(np.int64) << 16 | mask[..., 1].astype(np.int64) << 8 | mask[..., 2]
            known = np.array([red << 16 | green << 8 | blue for red, green, blue in self._colours])
        result = np.full(codes.shape, IGNORE_INDEX, np.uint8)
        left = np.ones(codes.shape, bool)
        for place, (code, index) in enumerate(zip(known, self._classes)):
            here = codes == code
            if (here & ~left).any() and (result[here] != index).any():
                self._refuse_shared_colour(name, place)
            result[here] = index
            left &= ~here
        if left.any():
            value = tuple(int(part) for part in np.atleast_1d(mask[left][0]))
            raise DataError(
                f"{self._path}: mask {name} has {value}, which its label map does not declare",
                hint="export the task again from CVAT",
            )
        return result

    def _refuse_shared_colour(self, mask: str, place: int) -> None:
        colour = self._colours[place]
        alike = [name for name, other in zip(self._names, self._colours) if other == colour]
        raise DataError(
            f"{self._path}: {' and '.join(alike)} have one colour, {colour}",
            why=f"mask {mask} does not say which of them it shows",
            hint="give each label a colour of its own in CVAT, and export the task again",
        )


def is_a_line(text: str) -> bool:
    """Whether a name can stand on a line of its own, in UTF-8."""
    return text.splitlines() == [text] and is_text(text)
