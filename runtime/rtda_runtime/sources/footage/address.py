"""The text that names footage: ``video:drive.mp4?every=0.5s``, ``bag:run.mcap?topic=/front&from=10s&to=1:30``.

Reads nothing but names of files; imports the standard library alone, so that ``--help`` may use it.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple
from urllib.parse import parse_qsl

from rtda_deploy.errors import ConfigError, FileAccessError, SourceError
from rtda_deploy.folders import is_hidden, walk
from rtda_runtime.sources.names import PICTURE_SUFFIXES, natural_key

__all__ = [
    "BAG_SUFFIXES",
    "FOOTAGE_KINDS",
    "FOOTAGE_OPTIONS",
    "VIDEO_SUFFIXES",
    "FootageAddress",
    "folder_holds",
    "footage_kind",
    "names_footage",
    "parse_seconds",
]

FOOTAGE_KINDS = ("video", "bag")
FOOTAGE_OPTIONS = ("topic", "from", "to", "every")
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".insv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"),
)
BAG_SUFFIXES = (".bag", ".db3", ".mcap")
_ROS2_FILE = "metadata.yaml"  # a folder that holds it is one bag of ROS 2

_ADDRESS = re.compile(r"(?:(?P<kind>video|bag):(?!//))?(?P<path>[^?]+|.*?)(?:\?(?P<query>.*))?", re.DOTALL)
_SECONDS = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)(?P<unit>ms|s|m|min|h)?")
_CLOCK = re.compile(r"(?:(?P<h>\d+):)?(?P<m>\d{1,2}):(?P<s>\d{1,2}(?:\.\d+)?)")
_UNITS_S = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclasses.dataclass(frozen=True)
class FootageAddress:
    """Parsed ``kind:path?key=value``.

    Attributes:
        kind: ``video`` or ``bag``.
        path: As typed: a file, a folder of them, a pattern with ``*``, or several of these with commas between.
        topic: Of a bag; None: the only one that has pictures.
        from_s: Where to begin, seconds after the first frame; None: there.
        to_s: Where to end; None: at the end.
        every_s: A frame in so many seconds; None: every frame.
    """

    kind: str
    path: str
    topic: Optional[str] = None
    from_s: Optional[float] = None
    to_s: Optional[float] = None
    every_s: Optional[float] = None

    @classmethod
    def parse(cls, text: str) -> FootageAddress:
        """Read what a user typed, with the kind or without it.

        Raises:
            ConfigError: If it names no footage, or an option is unknown or makes no sense.
        """
        kind, path, options = split_address(text)
        return cls.of(kind or footage_kind(path) or "", path, options)

    @classmethod
    def of(cls, kind: str, path: str, options: Mapping[str, str]) -> FootageAddress:
        """The address of parts that were read already.

        Raises:
            ConfigError: If an option is unknown or makes no sense.
        """
        shown = f"{kind}:{path}"
        if kind not in FOOTAGE_KINDS or not path:
            bags = f"bag:FILE ({' '.join(BAG_SUFFIXES)}, a folder of ROS 2)"
            raise ConfigError(f"{path!r} is no footage", hint=f"known: video:FILE ({' '.join(VIDEO_SUFFIXES)}), {bags}")
        unknown = sorted(set(options) - set(FOOTAGE_OPTIONS))
        if unknown:
            known = ", ".join(f"{key}=" for key in FOOTAGE_OPTIONS)
            raise ConfigError(f"{shown}: option {unknown[0]!r} is unknown", hint=f"known for {kind}: {known}")
        if "topic" in options and kind != "bag":
            raise ConfigError(f"{shown}: a video has no topics", hint="leave topic= away")
        times = {key: parse_seconds(options[key], f"{shown}: {key}=") for key in FOOTAGE_OPTIONS[1:] if key in options}
        if times.get("every", 1.0) <= 0:
            raise ConfigError(f"{shown}: every={options['every']} is no time between frames", hint="such as every=0.5s")
        found = cls(kind, path, options.get("topic"), times.get("from"), times.get("to"), times.get("every"))
        if found.to_s is not None and found.to_s <= (found.from_s or 0.0):
            raise ConfigError(
                f"{shown}: to={options['to']} is not after from={options.get('from', '0s')}",
                hint="both count from the first frame",
            )
        return found

    def paths(self) -> List[Path]:
        """The recordings that are meant, in natural order: video files, bag files, folders of ROS 2 bags.

        Raises:
            FileAccessError: If one is not there.
            SourceError: If a folder or pattern holds none.
        """
        whole = _expanded(self.path)
        texts = [self.path] if os.path.lexists(whole) else _parts(self.path)
        found = [path for text in texts for path in self._one(text)]
        return list(dict.fromkeys(found))

    def places(self) -> List[Path]:
        """The files and folders that are named, as typed; of a pattern its matches. What is not there is among them."""
        found: List[Path] = []
        for text in _parts(self.path):
            path = _expanded(text)
            matches = [] if os.path.lexists(path) or not glob.has_magic(text) else glob.glob(path, recursive=True)
            found += [Path(match) for match in sorted(matches) or [path]]
        return found

    def _one(self, text: str) -> List[Path]:
        path = Path(_expanded(text))
        if path.is_dir():
            return self._of_folder(path)
        if not os.path.lexists(path) and glob.has_magic(text):
            matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
            shown = [match for match in matches if not is_hidden(match.name) and _is(self.kind, match)]
            if not shown:
                raise SourceError(f"{text} matches no {self.kind}", hint=f"look there: ls {path.parent}")
            return sorted(shown, key=lambda match: natural_key(str(match)))
        if not path.exists():
            raise FileAccessError(f"cannot read {text}", why="it is not there", hint="check the spelling of its path")
        return [path]

    def _of_folder(self, folder: Path) -> List[Path]:
        if self.kind == "bag" and (folder / _ROS2_FILE).is_file():
            return [folder]
        suffixes = VIDEO_SUFFIXES if self.kind == "video" else BAG_SUFFIXES
        files = walk(folder, lambda name: name.lower().endswith(suffixes)).files
        if not files:
            raise SourceError(f"{folder} holds no {self.kind}", hint=f"known: {' '.join(suffixes)}")
        units = (file.parent if self.kind == "bag" and (file.parent / _ROS2_FILE).is_file() else file for file in files)
        return sorted(dict.fromkeys(units), key=lambda path: natural_key(str(path)))

    def __str__(self) -> str:
        seconds = {"from": self.from_s, "to": self.to_s, "every": self.every_s}
        options = [*([f"topic={self.topic}"] if self.topic else [])]
        options += [f"{key}={value:g}s" for key, value in seconds.items() if value is not None]
        return f"{self.kind}:{self.path}" + (f"?{'&'.join(options)}" if options else "")


def split_address(text: str) -> Tuple[Optional[str], str, Dict[str, str]]:
    """Kind (None where none is typed), path and options. A file that is called so has no options.

    Raises:
        ConfigError: If what follows the question mark is not ``key=value``, or an option is given twice.
    """
    if os.path.lexists(_expanded(text)):
        return None, text, {}
    found = _ADDRESS.fullmatch(text)
    assert found is not None  # it matches every text
    query = found["query"] or ""
    try:
        given = parse_qsl(query.replace("+", "%2B"), strict_parsing=True) if query else []
    except ValueError as err:
        raise ConfigError(f"{text!r}: cannot read {query!r}", hint="options are key=value, joined by &") from err
    options = dict(given)
    if len(options) != len(given):
        raise ConfigError(f"{text!r}: an option is given twice", hint="give each option once")
    return found["kind"], found["path"] or "", options


def names_footage(text: str) -> bool:
    """Whether a user who typed this means footage: with its kind, or by the suffix or what a folder holds."""
    path = text if os.path.lexists(_expanded(text)) else text.partition("?")[0]
    kind = path.partition(":")[0]
    return (kind in FOOTAGE_KINDS and not path.startswith(f"{kind}://")) or footage_kind(path) is not None


def footage_kind(path: str) -> Optional[str]:
    """``video`` or ``bag``, by the suffix, or by what a folder holds; None: neither, or a folder of several kinds.

    Args:
        path: Without a kind and options.
    """
    if "://" in path:  # a film on a server
        return None
    if os.path.isdir(_expanded(path)):
        holds = folder_holds(Path(_expanded(path)))
        return next(iter(holds)) if len(holds) == 1 and "picture" not in holds else None
    kinds = {kind for part in _parts(path) for kind in FOOTAGE_KINDS if _is(kind, Path(part))}
    return kinds.pop() if len(kinds) == 1 else None


def folder_holds(folder: Path) -> Dict[str, int]:
    """How many videos, bags and pictures lie in a folder and below it: ``{"video": 2}``.

    Raises:
        FileAccessError: If it cannot be read.
    """
    if (folder / _ROS2_FILE).is_file():
        return {"bag": 1}
    kinds = {"video": VIDEO_SUFFIXES, "bag": BAG_SUFFIXES, "picture": PICTURE_SUFFIXES}
    endings = tuple(suffix for suffixes in kinds.values() for suffix in suffixes)
    files = walk(folder, lambda name: name.lower().endswith(endings)).files
    counts = {kind: sum(file.name.lower().endswith(suffixes) for file in files) for kind, suffixes in kinds.items()}
    return {kind: count for kind, count in counts.items() if count}


def parse_seconds(text: str, what: str = "") -> float:
    """``2``, ``0.5s``, ``250ms``, ``3m``, ``1h``, ``1:30`` or ``1:02:03.5`` in seconds.

    Args:
        what: What stands before it in the error.

    Raises:
        ConfigError: If it is not of this form.
    """
    plain, clock = _SECONDS.fullmatch(text.strip()), _CLOCK.fullmatch(text.strip())
    if plain:
        return float(plain["number"]) * _UNITS_S[plain["unit"]]
    if clock:
        return int(clock["h"] or 0) * 3600.0 + int(clock["m"]) * 60.0 + float(clock["s"])
    raise ConfigError(f"{what}{text} is no time", hint="such as 0.5s, 90s, 2m, 1:30, 1:02:03.5")


def _is(kind: str, path: Path) -> bool:
    if kind == "bag" and (path / _ROS2_FILE).is_file():
        return True
    return path.name.lower().endswith(VIDEO_SUFFIXES if kind == "video" else BAG_SUFFIXES)


def _parts(path: str) -> List[str]:
    """Several with commas between; a comma belongs to a name where a file is called so."""
    if os.path.lexists(_expanded(path)):
        return [path]
    return [part.strip() for part in path.split(",") if part.strip()]


def _expanded(path: str) -> str:
    return os.path.expanduser(path)
