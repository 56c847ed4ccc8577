"""Tables that turn the ids or colours of a label into classes.

A value that a table does not know is an error that names the file and the value; nothing is mapped by nearness.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.labels import IGNORE_INDEX

__all__ = ["MAX_CLASSES", "ColourTable", "IdTable", "UnknownIdsError", "by_name"]

Colour = Tuple[int, int, int]

MAX_CLASSES = 254  # 254 marks an unknown value while a mask is mapped, 255 is ignore
_UNKNOWN = 254


class UnknownIdsError(DataError):
    """A label that holds ids or colours outside its data set's table.

    Attributes:
        values: Every id of the label, where it could be an id of another numbering.
    """

    values: Tuple[int, ...] = ()


class IdTable:
    """Ids, 0..65535, to classes; 255 for ids that are not trained on.

    Args:
        classes: Class index, or 255, of each known id.
        what: The table's name for messages, such as ``GTA5's ids 0..34``.
        hint: What to try where a label holds another id.
    """

    def __init__(self, classes: Mapping[int, int], what: str, hint: str = "") -> None:
        self._classes = dict(classes)
        self._what = what
        self._hint = hint or "are these labels of another data set, or colours?"
        size = 256 if max(self._classes, default=0) < 256 else 65536
        self._table = np.full(size, _UNKNOWN, dtype=np.uint8)
        for number, index in self._classes.items():
            self._table[number] = index

    def apply(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """uint8 (H, W) of classes from an integer (H, W) of ids.

        Raises:
            UnknownIdsError: Naming the file and the ids outside the table.
        """
        size = len(self._table)
        inside = mask if mask.dtype == np.uint8 and size >= 256 else np.minimum(mask, size - 1)
        mapped: np.ndarray = self._table[inside]
        unknown = mapped == _UNKNOWN
        if inside is not mask:
            unknown |= mask >= size
        if unknown.any():
            values = [int(value) for value in np.unique(mask[unknown])]
            raise UnknownIdsError(f"label {path} holds ids outside {self._what}: {_some(values)}", hint=self._hint)
        return mapped


class ColourTable:
    """RGB colours to classes; 255 for colours that are not trained on. Arguments as :class:`IdTable`."""

    def __init__(self, classes: Mapping[Colour, int], what: str, hint: str = "") -> None:
        self._codes = tuple(sorted((_code(colour), index) for colour, index in classes.items()))
        self._what = what
        self._hint = hint or "colours must match exactly; was the label scaled smoothly or saved as JPEG?"

    def apply(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """uint8 (H, W) of classes from uint8 (H, W, 3) RGB.

        Raises:
            UnknownIdsError: Naming the file and the colours outside the table.
        """
        if mask.dtype != np.uint8:
            raise DataError(f"label {path} has {mask.dtype} colours", hint="save colours with 8 bits per channel")
        codes = (mask[..., 0].astype(np.int32) << 16) | (mask[..., 1].astype(np.int32) << 8) | mask[..., 2]
        mapped: np.ndarray = _colour_lookup(self._codes)[codes]
        unknown = mapped == _UNKNOWN
        if unknown.any():
            values = [f"({code >> 16}, {code >> 8 & 255}, {code & 255})" for code in np.unique(codes[unknown])]
            raise UnknownIdsError(f"label {path} holds colours outside {self._what}: {_some(values)}", hint=self._hint)
        return mapped


@functools.lru_cache(maxsize=4)
def _colour_lookup(codes: Tuple[Tuple[int, int], ...]) -> np.ndarray:
    table = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)  # 16 MB; a search per pixel takes ten times as long
    for code, index in codes:
        table[code] = index
    return table


def by_name(names_of: Mapping[int, str], class_names: Sequence[str]) -> Dict[int, int]:
    """Class index of each id by its class's name; 255 where the name is empty or no class.

    Used for the data sets' own tables, so that none of them repeats an order of classes.
    """
    return {
        number: class_names.index(name) if name in class_names else IGNORE_INDEX for number, name in names_of.items()
    }


def _code(colour: Colour) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _some(values: Sequence[object]) -> str:
    shown: List[str] = [str(value) for value in values[:6]]
    return ", ".join(shown) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
