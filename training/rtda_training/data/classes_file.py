"""``classes.json`` of a folder: the class list, and how the values of its masks become classes.

::

    {"names": ["road", "sky"], "palette": [[128, 64, 128], [70, 130, 180]]}          masks hold 0, 1, … and 255
    {"ids": {"7": "road", "23": "sky"}, "ignore": [0, 1]}                            8- or 16-bit ids
    {"colors": {"128,64,128": "road", "70,130,180": "sky"}, "ignore": ["0,0,0"]}     RGB colours
    {"colors": [[[128, 64, 128], "road"], [[70, 130, 180], "sky"]]}                  the same, as a list

With ``ids`` or ``colors``, ``names`` gives the order of the classes (else that of the file) and ``palette`` their
colours; 255 is ignored unless it has a name, and so is a value whose name is ``""``. A value without a name is
an error.
"""

from __future__ import annotations

import colorsys
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.files import readable_file
from rtda_training.data.masks import MAX_CLASSES, ColourTable, IdTable
from rtda_training.labels import CAMVID, CITYSCAPES, IGNORE_INDEX, ClassList

__all__ = ["ClassesFile"]

Colour = Tuple[int, int, int]
_HINT = 'expected {"names": [...], "palette": [[r, g, b], ...]}, or "ids" or "colors" with names; see docs/data.md'


class ClassesFile:
    """A class list with the tables of its file, if it has any; as it stands, Cityscapes' 19 train ids."""

    def __init__(
        self,
        classes: ClassList = CITYSCAPES,
        ids: Optional[IdTable] = None,
        colours: Optional[ColourTable] = None,
    ) -> None:
        self.classes = classes
        self._ids = ids
        self._colours = colours

    @classmethod
    def load(cls, path: Path) -> ClassesFile:
        """Read ``path``; Cityscapes' 19 where there is none.

        Raises:
            DataError: If it is no classes file.
        """
        if not path.exists():
            return cls()
        try:
            values = json.loads(readable_file(path, what="classes file").read_text(encoding="utf-8"))
            return cls._of(values, path)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise DataError(f"{path} is no classes file: {err!r}", hint=_HINT) from err

    @classmethod
    def _of(cls, values: Dict[str, Any], path: Path) -> ClassesFile:
        ids = {int(number): _name(name) for number, name in values.get("ids", {}).items()}
        given = values.get("colors", {})
        colours = {
            _colour(colour): _name(name) for colour, name in (given.items() if isinstance(given, dict) else given)
        }
        used = [name for name in (*ids.values(), *colours.values()) if name]
        if not ids and not colours:
            names = tuple(str(name) for name in values["names"])
        else:
            names = tuple(str(name) for name in values.get("names", dict.fromkeys(used)))
        unknown = [name for name in used if name not in names]
        if unknown:
            raise DataError(f"{path}: {unknown[0]!r} is not among its names", hint=f"its names: {', '.join(names)}")
        if len(set(names)) != len(names) or len(names) > MAX_CLASSES:
            raise DataError(f"{path} has a name twice, or more than {MAX_CLASSES}", hint="each class once")
        if "palette" in values or not (ids or colours):
            palette = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
        else:
            palette = _palette(names, colours)
        if not names or len(names) != len(palette):
            raise DataError(
                f"{path} has {len(names)} names and {len(palette)} colours", hint="give each class one of both"
            )
        if any(not 0 <= channel <= 255 for colour in (*palette, *colours) for channel in colour):
            raise ValueError("a colour has three numbers of 0..255")
        if any(not 0 <= number <= 65535 for number in ids):
            raise ValueError("an id is a number of 0..65535")
        return cls(ClassList(names, palette), *_tables(ids, colours, values.get("ignore", []), names, path))

    def apply(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """Classes of a mask as it is stored; given back as it is where the file has no table for it.

        Raises:
            DataError: Naming the mask and the values that the tables do not know.
        """
        if mask.ndim == 3 and self._colours is not None:
            return self._colours.apply(mask, path)
        if mask.ndim == 2 and self._ids is not None:
            return self._ids.apply(mask, path)
        if self._ids is None and self._colours is None:
            return mask
        kind, wanted = ("colours", '"colors"') if mask.ndim == 3 else ("ids", '"ids"')
        raise DataError(f"label {path} holds {kind}, and classes.json has no {wanted}", hint=f"add {wanted} to it")


def _tables(
    ids: Dict[int, str], colours: Dict[Colour, str], ignore: Sequence[Any], names: Sequence[str], path: Path
) -> Tuple[Optional[IdTable], Optional[ColourTable]]:
    def index_of(name: str) -> int:
        return names.index(name) if name else IGNORE_INDEX

    ignored_ids = {int(value): IGNORE_INDEX for value in ignore if isinstance(value, int)}
    ignored_colours = {_colour(value): IGNORE_INDEX for value in ignore if not isinstance(value, int)}
    hint = f'give it a class in {path}, or name it under its "ignore"'
    by_id = {number: index_of(name) for number, name in ids.items()}
    by_colour = {colour: index_of(name) for colour, name in colours.items()}
    return (
        IdTable({IGNORE_INDEX: IGNORE_INDEX, **ignored_ids, **by_id}, f"the ids of {path}", hint) if ids else None,
        ColourTable({**ignored_colours, **by_colour}, f"the colours of {path}", hint) if colours else None,
    )


def _name(value: Any) -> str:
    return "" if value is None else str(value)


def _colour(value: Any) -> Colour:
    red, green, blue = value.split(",") if isinstance(value, str) else value
    return int(red), int(green), int(blue)


def _palette(names: Sequence[str], colours: Dict[Colour, str]) -> Tuple[Colour, ...]:
    """The first colour of each class in the masks, else that of a known list, else one that none of them has."""
    known: Dict[str, Colour] = {}
    for classes in (CITYSCAPES, CAMVID):
        known.update(zip(classes.names, classes.palette))
    known.update({name: colour for colour, name in reversed(list(colours.items())) if name})
    palette: List[Colour] = []
    for index, name in enumerate(names):
        red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1.0, 0.75, 0.95)  # golden section: hues far apart
        palette.append(known.get(name, (int(255 * red), int(255 * green), int(255 * blue))))
    return tuple(palette)
