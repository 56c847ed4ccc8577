"""Which pictures of a folder are meant: layouts, list files, splits by number, pictures from another folder."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import file_error, readable_file
from rtda_training.data.address import DataAddress

__all__ = ["SUFFIXES", "Names", "Pair", "folder_of", "listed", "numbered_split", "pictures_below", "root_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_EVERY = 20  # of twenty consecutive numbers, one is val, one is test


class Pair(NamedTuple):
    """A picture and where its label is.

    Attributes:
        key: Relative name without a suffix, the same for every copy of the picture: ``aachen/aachen_000000_000019``.
        picture: The picture's file.
        label: The label's file; None in a set opened without labels, and where it has none.
    """

    key: str
    picture: Path
    label: Optional[Path] = None


class Names:
    """Positions by what a list file may call a picture: its key, its path, the end of either, or its number."""

    def __init__(self) -> None:
        self._full: Dict[str, int] = {}
        self._short: Dict[str, int] = {}

    def add(self, names: Iterable[str], place: int) -> None:
        """Let each of ``names`` mean ``place``."""
        self._full.update(dict.fromkeys(names, place))

    def add_short(self, names: Iterable[str], place: int) -> None:
        """Let each of ``names`` mean ``place`` where no full name is the same; one given twice means neither."""
        for name in set(names):
            self._short[name] = -1 if self._short.get(name, place) != place else place

    def find(self, text: str) -> Optional[int]:
        """The position of a name; None for one that is unknown or means several."""
        name = _without_suffix(text.lstrip("/"))
        place = self._full.get(name, self._short.get(name, self._short.get(_number(name) or name, -1)))
        return place if place >= 0 else None


def root_folder(address: DataAddress, wants: str) -> Path:
    """The folder an address names.

    Raises:
        DataError: If it is none; ``wants`` says what it should hold.
    """
    root = Path(address.path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is no folder", hint=f"{address.kind}:PATH wants the folder that holds {wants}")
    return root


def folder_of(address: DataAddress, folder: Path, wants: str) -> Path:
    """``folder``, if it is there.

    Raises:
        DataError: Naming it and what the layout wants.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", hint=f"{address.kind}:PATH wants {wants}; see docs/data.md")
    return folder


def pictures_below(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> List[Path]:
    """Picture files of a folder and its sub-folders, in the order of their names."""
    try:
        found = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    except OSError as err:
        raise file_error(err, folder, "list") from err
    return sorted(path for path in found if not path.name.startswith("."))


def numbered_split(key: str) -> str:
    """The split of a picture in a set that has none of its own, by the number that ends its name.

    Of twenty consecutive numbers the one divisible by 20 is val, the one ten later is test, the rest is train. A name
    without a number counts by its checksum. The same picture is in the same split on every machine.
    """
    digits = re.search(r"(\d+)\D*$", key.rpartition("/")[2])
    number = int(digits.group(1)) if digits else zlib.crc32(key.encode("utf-8"))
    return {0: "val", _EVERY // 2: "test"}.get(number % _EVERY, "train")


def listed(address: DataAddress, root: Path, pairs: Sequence[Pair], labels: bool) -> Optional[List[Pair]]:
    """The pictures that ``?list=FILE`` names, in its order; None where the address has no list.

    A line is a name (key, path below ``root`` with or without suffix, file stem or number), or a picture and its label
    as two paths below ``root``. Blank lines and ``#`` comments are skipped. Labels are not looked at unless ``labels``.

    Raises:
        ConfigError: If the list does not exist.
        DataError: If a line names no picture, several, or a label that is not there.
    """
    if "list" not in address.options:
        return None
    path = _list_file(address, root)
    names = Names()
    for place, pair in enumerate(pairs):
        below = _without_suffix(pair.picture.relative_to(root).as_posix())
        stem = pair.key.rpartition("/")[2]
        names.add([below, pair.key], place)
        names.add_short([*_tails(below), *_tails(pair.key), _number(stem)], place)
    chosen = []
    for number, line in enumerate(_lines(path), start=1):
        text = line.partition("#")[0].strip()
        if text:
            chosen.append(_entry(text, f"{path}:{number}", names, pairs, root, labels))
    if not chosen:
        raise DataError(f"{path} names no picture", hint="one name a line; lines that start with # are comments")
    return chosen


def _entry(text: str, where: str, names: Names, pairs: Sequence[Pair], root: Path, labels: bool) -> Pair:
    place = names.find(text)
    words = text.split()
    if place is None and len(words) == 2:
        place = names.find(words[0])
    if place is None:
        raise DataError(
            f"{where}: {text.split()[0]!r} names no picture of {root}, or more than one",
            hint="write its path below the data set's folder, or its file name",
        )
    pair = pairs[place]
    if not labels or len(words) != 2 or names.find(text) is not None:
        return pair
    label = root / words[1].lstrip("/")
    if not label.is_file():
        raise DataError(f"{where}: label {label} is not there", hint="the second word is the label's path below PATH")
    return pair._replace(label=label)


def _list_file(address: DataAddress, root: Path) -> Path:
    name = Path(address.options["list"]).expanduser()
    for candidate in (root / name, name):
        if candidate.is_file():
            return readable_file(candidate, what="list")
    raise ConfigError(f"{address}: list {name} is neither in {root} nor here", hint="list=FILE, one picture a line")


def _lines(path: Path) -> List[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as err:
        raise file_error(err, path, "read") from err
    except UnicodeDecodeError as err:
        raise DataError(f"{path} is no text file", hint="list=FILE holds one picture name a line") from err


def _without_suffix(name: str) -> str:
    path = name.lower()
    return next((name[: -len(suffix)] for suffix in SUFFIXES if path.endswith(suffix)), name)


def _tails(name: str) -> List[str]:
    """``a/b/c`` as ``b/c`` and ``c``."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(1 if len(parts) > 1 else 0, len(parts))]


def _number(name: str) -> str:
    """``#12`` for ``00012`` and ``12``: numbers are compared without their zeros."""
    return f"#{int(name)}" if name.isdecimal() else ""
