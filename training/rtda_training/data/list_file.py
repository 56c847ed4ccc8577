"""List files: which pictures ``?list=FILE`` means, and the labels it pairs them with.

Lists come from many programs: paths below the set's folder, absolute ones of this machine or of another (SegNet's
``/SegNet/CamVid/train/…``), with backslashes, commas or spaces. A name counts only where it can mean one picture.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import re
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import read_text, readable_file
from rtda_training.data.address import DataAddress

__all__ = ["SUFFIXES", "Names", "Pair", "listed", "typed_file"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")  # of pictures
_COMMENT = re.compile(r"(?:^|\s)#.*")  # drive#2.png is a name
_DRIVE = re.compile(r"[A-Za-z]:/")
_TWO_NAMES = re.compile(r"\.[A-Za-z]{3,4}[\"\s,;]")  # a file name ended, and another follows


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
    """Positions by what a picture may be called, the most exact name first; one that means several means none."""

    def __init__(self) -> None:
        self._levels: List[Dict[str, int]] = []

    def add(self, place: int, levels: Sequence[Iterable[str]]) -> None:
        """Let ``place`` be known by these names; a name is looked for in the first level, then in the next."""
        while len(self._levels) < len(levels):
            self._levels.append({})
        for known, names in zip(self._levels, levels):
            for name in set(names):
                known[name] = -1 if known.get(name, place) != place else place

    def find(self, *spellings: str, levels: int = 99) -> Optional[int]:
        """The position of the first spelling that is known at all; None for one that is unknown or means several."""
        for known in self._levels[:levels]:
            place = next((known[text] for text in spellings if text in known), None)
            if place is not None:
                return place if place >= 0 else None
        return None


def listed(address: DataAddress, root: Path, pairs: Sequence[Pair], labels: bool) -> Optional[List[Pair]]:
    """The pictures that ``?list=FILE`` names, in its order; None where the address has no list.

    A line is a name (key, path with or without suffix, file stem or number), or a picture and its label as two paths.
    Blank lines and comments (``#`` at the start or after a space) are skipped. Where the address names a split, what
    could mean several pictures means the one in a folder of that split. Labels are not looked at unless ``labels``.

    Raises:
        ConfigError: If the list does not exist.
        DataError: If a line names no picture, several, or a label that is not there.
    """
    if "list" not in address.options:
        return None
    path = typed_file(address, "list", root)
    books = [_Book(root, pairs)]
    if address.split in ("train", "val", "test"):
        books.insert(0, _Book(root, pairs, address.split))
    chosen = []
    for number, line in enumerate(read_text(path, what="list").splitlines(), start=1):
        text = _COMMENT.sub("", line).strip()
        if text:
            chosen.append(_entry(text, f"{path}:{number}", books, labels))
    if not chosen:
        raise DataError(f"{path} names no picture", hint="one name a line; lines that start with # are comments")
    return chosen


def typed_file(address: DataAddress, key: str, root: Path) -> Path:
    """The file that an option names: below the set's folder, else from here.

    Raises:
        ConfigError: If it is in neither.
    """
    name = Path(address.options[key]).expanduser()
    for candidate in (root / name, name):
        if candidate.is_file():
            return readable_file(candidate, what=key)
    raise ConfigError(
        f"{address}: {key} {name} is neither in {root} nor here", hint=f"{key}=FILE, below {root} or here"
    )


class _Book:
    """The pictures of a set by every name that a list may give them."""

    def __init__(self, root: Path, pairs: Sequence[Pair], split: str = "") -> None:
        self.root = root
        self.root_name = root.resolve().name.lower()
        self.pairs = pairs
        self._paths, self._names = Names(), Names()
        self._real: Optional[Dict[str, int]] = None
        for place, pair in enumerate(pairs):
            below = pair.picture.relative_to(root)
            if not split or split in below.parts[:-1]:
                self._add(place, below.as_posix(), pair.key)

    def find(self, text: str) -> Optional[int]:
        """The position of the picture that ``text`` means; None where it is none, or more than one."""
        spelled = _slashes(text)
        if _is_absolute(spelled) and os.path.exists(spelled):
            return self._found_here(spelled)
        place = next(
            (found for name in dict.fromkeys((text, spelled)) for found in [self._look(name)] if found is not None),
            None,
        )
        if place is None and not _is_absolute(spelled) and os.path.exists(spelled):
            place = self._found_here(spelled)
        tails = (self._paths.find(tail, _without_suffix(tail)) for tail in _foreign(spelled, self.root_name))
        return place if place is not None else next((found for found in tails if found is not None), None)

    def _add(self, place: int, below: str, key: str) -> None:
        suffix = posixpath.splitext(below)[1]
        short = _without_suffix(below)
        self._paths.add(place, ([below], [short]))
        exact = ([below], [key + suffix], [*_tails(below), *(f"{tail}{suffix}" for tail in _tails(key))])
        loose = ([short], [key], [*_tails(short), *_tails(key)], [_number(key.rpartition("/")[2])])
        self._names.add(place, (*exact, *loose))

    def _look(self, text: str) -> Optional[int]:
        name = text.lstrip("/")
        short = _without_suffix(name)
        return self._names.find(*dict.fromkeys((name, short, _number(short) or short)))

    def _found_here(self, path: str) -> Optional[int]:
        if self._real is None:
            self._real = {os.path.realpath(pair.picture): place for place, pair in enumerate(self.pairs)}
        return self._real.get(os.path.realpath(path))


def _entry(text: str, where: str, books: Sequence[_Book], labels: bool) -> Pair:
    root, root_name, pairs = books[0].root, books[0].root_name, books[0].pairs
    readings = []
    for picture, label in _readings(text):
        place = next((found for book in books for found in [book.find(picture)] if found is not None), None)
        if place is not None and not label:
            return pairs[place]
        if place is not None:
            readings.append((pairs[place], label, picture))
    if not readings:
        raise DataError(
            f"{where}: {text.split()[0]!r} names no picture of {root}, or more than one",
            hint="write its path below the data set's folder, or its file name",
        )
    readings.sort(key=lambda reading: not reading[2].lower().endswith(SUFFIXES))  # names with spaces: whole ones first
    if not labels:
        return readings[0][0]
    for pair, label, _ in readings:
        path = _label_path(label, root, root_name)
        if path is not None:
            return pair._replace(label=path)
    missing = root / _slashes(readings[0][1]).lstrip("/")
    raise DataError(f"{where}: label {missing} is not there", hint="the second name is the label's path below PATH")


def _readings(text: str) -> Iterator[Tuple[str, str]]:
    """What a line may say, as (picture, label); a label of ``""`` is none."""
    yield text, ""
    quoted = re.findall(r'"([^"]*)"', text)
    if quoted:
        yield quoted[0], (quoted[1] if len(quoted) > 1 else "")
    for separator in ("\t", ",", ";"):
        columns = [column.strip().strip('"') for column in text.split(separator)]
        if len(columns) > 1:
            yield columns[0], columns[1]
    for gap in re.finditer(r"\s+", text):
        yield text[: gap.start()].rstrip(","), text[gap.end() :]


def _label_path(text: str, root: Path, root_name: str) -> Optional[Path]:
    spelled = _slashes(text)
    below = (root / name.lstrip("/") for name in dict.fromkeys((text, spelled)))
    foreign = (root / tail for tail in _foreign(spelled, root_name))
    return next((path for path in itertools.chain(below, [Path(spelled)], foreign) if path.is_file()), None)


def _foreign(text: str, root_name: str) -> Iterator[str]:
    """What may be the path below a folder called ``root_name`` in one that starts elsewhere.

    After that name anything counts; without it, only in an absolute path, and only with a folder before the file name:
    a bare file name could be that of another picture.
    """
    if not _is_absolute(text) and root_name not in text.lower():
        return
    parts = [part for part in text.split("/") if part]
    for start in range(1, len(parts)):
        if _TWO_NAMES.search(parts[start - 1]):
            return
        if parts[start - 1].lower() == root_name or (_is_absolute(text) and start < len(parts) - 1):
            yield "/".join(parts[start:])


def _is_absolute(text: str) -> bool:
    return text.startswith("/") or _DRIVE.match(text) is not None


def _slashes(text: str) -> str:
    """``.\\a\\..\\b.png`` as ``b.png``."""
    return posixpath.normpath(text.replace("\\", "/"))


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
