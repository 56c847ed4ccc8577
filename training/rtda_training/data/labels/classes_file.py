"""``classes.json`` of a folder: the class list, and how the values of its masks become classes.

::

    {"names": ["road", "sky"], "palette": [[128, 64, 128], [70, 130, 180]]}          masks hold 0, 1, … and 255
    {"names": ["road", "sky"]}                                    the same, colours are chosen
    {"ids": {"7": "road", "23": "sky"}, "ignore": [0, 1]}                            8- or 16-bit ids
    {"colors": {"128,64,128": "road", "70,130,180": "sky"}, "ignore": ["0,0,0"]}     RGB colours
    {"colors": [[[128, 64, 128], "road"], [[70, 130, 180], "sky"]]}                  the same, as a list

With ``ids`` or ``colors``, ``names`` gives the order of the classes (else that of the file) and ``palette`` their
colours; 255 is ignored unless it has a name, and so is a value whose name is ``""``. A value without a name is
an error. ``"absent": ["bus"]`` says that no label need hold a bus.
"""

from __future__ import annotations

import colorsys
import json
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, TypeVar, Union

import numpy as np

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import is_text, read_text
from rtda_training.data.labels.faults import unknown_ids_fix
from rtda_training.data.labels.tables import MAX_CLASSES, ColourTable, IdTable, UnknownIdsError
from rtda_training.labels import CAMVID, CITYSCAPES, IGNORE_INDEX, ClassList, LabelMeaning

__all__ = ["ClassesFile"]

Colour = Tuple[int, int, int]
_Key = TypeVar("_Key")
_HINT = 'expected {"names": [...], "palette": [[r, g, b], ...]}, or "ids" or "colors" with names; see docs/data.md'


class ClassesFile:
    """A class list with the tables of its file, if it has any; as it stands, Cityscapes' 19 train ids."""

    def __init__(
        self,
        classes: ClassList = CITYSCAPES,
        ids: Optional[IdTable] = None,
        colours: Optional[ColourTable] = None,
        meaning: Optional[LabelMeaning] = None,
    ) -> None:
        self.classes = classes
        self.meaning = meaning
        self._ids = ids
        self._colours = colours

    @classmethod
    def load(cls, root: Path, named: Optional[Path] = None) -> ClassesFile:
        """Read ``named``, else ``root/classes.json``; Cityscapes' 19 where there is none.

        Raises:
            DataError: If it is no classes file, or says two things about one value.
            FileAccessError: If it cannot be read.
        """
        path = named or root / "classes.json"
        if named is None and not path.exists():
            return cls(meaning=LabelMeaning(str(path), assumed=True))
        text = read_text(path, what="classes file")
        with parsing(DataError, f"{path} is no classes file", hint=_HINT):
            return cls._of(json_values(text, str(path), DataError, hint=_HINT, pairs=_each_once), path)

    @classmethod
    def _of(cls, values: Dict[str, Any], path: Path) -> ClassesFile:
        if not isinstance(values, dict) or not {"names", "ids", "colors"} & set(values):
            raise ValueError('it has none of "names", "ids" and "colors"')
        ids = _each_once((_id(number), _name(name)) for number, name in values.get("ids", {}).items())
        given = values.get("colors", {})
        colours = _each_once(
            (_colour(colour), _name(name)) for colour, name in (given.items() if isinstance(given, dict) else given)
        )
        used = [name for name in (*ids.values(), *colours.values()) if name]
        names = tuple(values["names"] if "names" in values or not used else dict.fromkeys(used))
        _check_names(names, used, path)
        ignored = _ignored(values.get("ignore", []), names, ids, colours, path)
        if "palette" in values:
            palette = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
        else:
            palette = _palette(names, colours)
        if not names or len(names) != len(palette):
            raise DataError(
                f"{path} has {len(names)} names and {len(palette)} colours", hint="give each class one of both"
            )
        if any(not 0 <= channel <= 255 for colour in (*palette, *colours) for channel in colour):
            raise ValueError("a colour has three numbers of 0..255")
        meaning = LabelMeaning(
            str(path),
            names=names,
            says_ignored=bool(ignored or colours) or "" in ids.values(),
            absent=_absent(values.get("absent", []), names, path),
            raw=not (ids or colours),
        )
        return cls(ClassList(names, palette), *_tables(ids, colours, ignored, names, path), meaning)

    def apply(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """Classes of a mask as it is stored; given back as it is where the file has no table and the values fit.

        Raises:
            DataError: Naming the mask and the values that the tables do not know.
        """
        if mask.ndim == 3 and self._colours is not None:
            return self._colours.apply(mask, path)
        if mask.ndim == 2 and self._ids is not None:
            return self._ids.apply(mask, path)
        if self._ids is None and self._colours is None:
            return self._raw(mask, path) if mask.ndim == 2 and mask.dtype == np.uint8 else mask
        kind, wanted = ("colours", '"colors"') if mask.ndim == 3 else ("ids", '"ids"')
        raise DataError(f"label {path} holds {kind}, and classes.json has no {wanted}", hint=f"add {wanted} to it")

    def _raw(self, mask: np.ndarray, path: Path) -> np.ndarray:
        count = self.classes.num_classes
        wrong = (mask >= count) & (mask != IGNORE_INDEX)
        if not wrong.any():
            return mask
        outside = np.unique(mask[wrong])
        values = tuple(int(value) for value in np.unique(mask))
        fix = "are these class ids, or a picture?"
        if self.meaning is not None and len(values) <= MAX_CLASSES:
            fix = unknown_ids_fix(self.meaning, values)
        shown = ", ".join(str(value) for value in outside[:6])
        err = UnknownIdsError(f"label {path} has values outside its {count} classes: {shown}", hint=fix)
        err.values = values
        raise err


def _tables(
    ids: Dict[int, str], colours: Dict[Colour, str], ignored: Sequence[Any], names: Sequence[str], path: Path
) -> Tuple[Optional[IdTable], Optional[ColourTable]]:
    def index_of(name: str) -> int:
        return names.index(name) if name else IGNORE_INDEX

    nothing = dict.fromkeys(ignored, IGNORE_INDEX)
    hint = f'give it a class in {path}, or name it under its "ignore"'
    by_id = {
        IGNORE_INDEX: IGNORE_INDEX,
        **{value: index for value, index in nothing.items() if isinstance(value, int)},
        **{number: index_of(name) for number, name in ids.items()},
    }
    by_colour = {
        **{value: index for value, index in nothing.items() if not isinstance(value, int)},
        **{colour: index_of(name) for colour, name in colours.items()},
    }
    return (
        IdTable(by_id, f"the ids of {path}", hint) if ids else None,
        ColourTable(by_colour, f"the colours of {path}", hint) if colours else None,
    )


def _check_names(names: Sequence[Any], used: Sequence[str], path: Path) -> None:
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}: a class is named {name!r}", hint="give every class a name, in quotation marks")
        if not is_text(name):
            raise DataError(f"{path}: a class is named {name!r}, which is no text", hint="write its characters in full")
    unknown = [name for name in used if name not in names]
    if unknown:
        raise DataError(f"{path}: {unknown[0]!r} is not among its names", hint=f"its names: {', '.join(names)}")
    if len(set(names)) != len(names) or len(names) > MAX_CLASSES:
        raise DataError(f"{path} has a name twice, or more than {MAX_CLASSES}", hint="each class once")


def _ignored(
    given: Any, names: Sequence[str], ids: Dict[int, str], colours: Dict[Colour, str], path: Path
) -> List[Union[int, Colour]]:
    """The values under ``ignore``: ids as numbers, colours as triples; each must have a table to be looked up in."""
    if not isinstance(given, list):
        raise ValueError(f'"ignore" is a list, such as "ignore": [{json.dumps(given)}]')
    found: List[Union[int, Colour]] = [_id(value) if _is_id(value) else _colour(value) for value in given]
    for value in found:
        kind, table = ('"ids"', bool(ids)) if isinstance(value, int) else ('"colors"', bool(colours))
        name = ids.get(value) if isinstance(value, int) else colours.get(value)
        if not table:
            line = json.dumps({"ids": {str(place): name for place, name in enumerate(names)}, "ignore": given})
            fix = f"write it so: {line}" if kind == '"ids"' and not colours else f"add {kind} to it"
            raise DataError(f'{path}: "ignore" has {value}, but the file has no {kind}: it would do nothing', hint=fix)
        if name:
            raise DataError(
                f'{path}: {value} is {name!r} and stands under "ignore" too', hint="leave it in one of the two"
            )
    return found


def _absent(given: Any, names: Sequence[str], path: Path) -> Tuple[str, ...]:
    if not isinstance(given, list):
        raise ValueError('"absent" is a list of names')
    unknown = [name for name in given if name not in names]
    if unknown:
        raise DataError(f'{path}: "absent" has {unknown[0]!r}, no name of it', hint=f"its names: {', '.join(names)}")
    return tuple(given)


def _each_once(pairs: Iterable[Tuple[_Key, Any]]) -> Dict[_Key, Any]:
    """A dictionary in which no key was given twice: "3" and "03" are one id, and the last would win."""
    found: Dict[_Key, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is given twice")
        found[key] = value
    return found


def _name(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"a class is named {value!r}; names stand in quotation marks")
    return value or ""


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, str) and "," not in value)


def _id(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError(f"{value!r} is no id; an id is a number of 0..65535")
    return int(text)


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
