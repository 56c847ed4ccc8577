"""What footage holds: folders of pictures and recordings, each file with its size and time; nothing is decoded."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_deploy.files import file_error
from rtda_deploy.folders import walk
from rtda_runtime.sources.footage.address import FOOTAGE_KINDS, FootageAddress, folder_holds, names_footage
from rtda_runtime.sources.names import PICTURE_SUFFIXES, natural_key

__all__ = ["FileState", "Listing", "PictureFolder", "RecordingFile", "list_footage"]

FileState = Tuple[str, int, int]  # absolute path, bytes, nanoseconds of its last change


class PictureFolder(NamedTuple):
    """A folder, and the paths of its pictures below it, in natural order."""

    path: Path
    files: Tuple[str, ...]


class RecordingFile(NamedTuple):
    """A video or bag, and which of its frames are asked for."""

    path: Path
    asked: FootageAddress


@dataclasses.dataclass(frozen=True)
class Listing:
    """All that is to be labelled.

    Attributes:
        folders: Of pictures.
        recordings: Videos and bags.
    """

    folders: Tuple[PictureFolder, ...]
    recordings: Tuple[RecordingFile, ...]

    @property
    def kinds(self) -> Set[str]:
        """``pictures``, ``video``, ``bag``: what there is."""
        return {*(["pictures"] if self.folders else []), *(one.asked.kind for one in self.recordings)}

    def states(self) -> List[FileState]:
        """Size and time of every file, in the order of their paths.

        Raises:
            FileAccessError: If one is gone.
        """
        pictures = (folder.path / name for folder in self.folders for name in folder.files)
        recorded = (file for recording in self.recordings for file in _files_of(recording))
        return sorted({_state(path) for path in (*pictures, *recorded)})


def list_footage(footage: Sequence[str]) -> Listing:
    """What several addresses mean: videos, bags, folders of any of them and of pictures, single pictures.

    Args:
        footage: As typed: ``drive.mp4``, ``bag:run.mcap?topic=/front``, ``video:drives?every=0.5s``, ``frames/``.

    Raises:
        ConfigError: If one names no footage, or an option makes no sense.
        FileAccessError: If one is not there or cannot be listed.
        SourceError: If a folder or pattern holds none of its kind.
    """
    folders: Dict[Path, List[str]] = {}
    recordings: Dict[Tuple[Path, str], RecordingFile] = {}
    for text in footage:
        for address in _addresses(text):
            for path in address.paths():
                found = RecordingFile(Path(os.path.abspath(str(path))), address)
                known = recordings.setdefault((found.path, address.topic or ""), found)
                _refuse_other_part(known, found)
        folder, names = _pictures(text)
        if names:
            folders.setdefault(folder, []).extend(names)
    unique = (PictureFolder(path, tuple(dict.fromkeys(names))) for path, names in folders.items())
    return Listing(tuple(unique), tuple(recordings.values()))


def _refuse_other_part(known: RecordingFile, again: RecordingFile) -> None:
    """A recording that is named again, such as by its folder, is labelled once, and there is one answer to which part.

    Raises:
        ConfigError: If it is named with other options.
    """
    one, other = (dataclasses.replace(each.asked, path="", topic=None) for each in (known, again))
    if one != other:
        raise ConfigError(
            f"{known.path} is named twice with different options",
            why=f"{known.asked} and {again.asked}",
            hint="name it once, or label its parts into folders of their own",
        )


def _files_of(recording: RecordingFile) -> List[Path]:
    """The file of a recording, or those of a bag's folder."""
    path = recording.path
    return walk(path, lambda name: True).files if path.is_dir() else [path]


def _addresses(text: str) -> Iterator[FootageAddress]:
    if names_footage(text):
        yield FootageAddress.parse(text)
        return
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        holds = folder_holds(path)
        if not holds:
            raise ConfigError(f"{text} holds no pictures, videos or bags", hint="name a folder that does")
        for kind in FOOTAGE_KINDS:
            if kind in holds:
                yield FootageAddress(kind, text)
    elif not os.path.lexists(str(path)):
        raise FileAccessError(f"cannot read {text}", why="it is not there", hint="check the spelling of its path")
    elif not path.name.lower().endswith(PICTURE_SUFFIXES):
        raise ConfigError(
            f"{text} is no footage", hint="known: videos, bags, folders of them, pictures; see docs/fleets.md"
        )


def _pictures(text: str) -> Tuple[Path, List[str]]:
    """The folder and the pictures below it; of one picture its folder and name."""
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_dir() and not names_footage(text):
        found = walk(path, lambda name: name.lower().endswith(PICTURE_SUFFIXES)).files
        return path, sorted((str(file.relative_to(path)) for file in found), key=natural_key)
    return path.parent, [path.name] if path.is_file() and path.name.lower().endswith(PICTURE_SUFFIXES) else []


def _state(path: Path) -> FileState:
    try:
        found = path.stat()
    except OSError as err:
        raise file_error(err, path, "read") from err
    return str(path), found.st_size, found.st_mtime_ns
