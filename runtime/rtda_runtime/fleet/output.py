"""The output folder of a label run, and what makes a unit done: its own file there, written whole or not at all.

::

    plan.json           the units
    shards/ID.tar       layout "tar": masks/KEY.png, confidences/KEY.png of one unit, and its unit.json at the end
    masks/KEY.png       layout "png": the same as files, and
    units/ID.json       what says that a unit's are whole
    attempts/ID         a line for each time that somebody began with a unit; gone when it is done
    failed/ID.json      why a unit is given up
    machines/HOST.json  in what a machine differs that took part, where that was accepted (:mod:`.mixed`)

Workers of any machine may work into one folder: whoever finishes a unit renames its file into place, and a second one
that did the same work renames the same bytes over it.
"""

from __future__ import annotations

import abc
import contextlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import atomic_path, file_bytes, file_error, remove_leftovers, write_bytes, write_text

__all__ = ["LAYOUTS", "MOST_ATTEMPTS", "Output", "UnitWriter", "open_output"]

MOST_ATTEMPTS = 3  # a unit whose worker died so often is given up
_SUMMARY = "unit.json"
_BLOCK, _END = 512, 64 << 10  # bytes, of a tar; how much of its end is looked at for the summary


class UnitWriter(abc.ABC):
    """Takes the pictures of one unit, one after the other."""

    @abc.abstractmethod
    def add(self, kind: str, key: str, content: bytes) -> None:
        """Keep a PNG.

        Args:
            kind: ``masks`` or ``confidences``.
            key: Of the frame.
            content: The file.
        """


class Output(abc.ABC):
    """An output folder of one layout.

    Args:
        folder: Where; it exists.
    """

    layout: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abc.abstractmethod
    def done_path(self, unit: str) -> Path:
        """The file that stands there where the unit of this id is done."""

    @abc.abstractmethod
    def writing(self, unit: str, summary: Dict[str, Any]) -> Any:
        """A context with a :class:`UnitWriter`; where it ends without an error, the unit is done.

        Args:
            unit: Its id.
            summary: Stored with it; may be filled until the context ends.

        Raises:
            FileAccessError: If it cannot be written; nothing is done then.
        """

    @abc.abstractmethod
    def summary(self, unit: str) -> Dict[str, Any]:
        """What was stored with a unit that is done.

        Raises:
            DataError: If its file is damaged.
        """

    def is_done(self, unit: str) -> bool:
        """Whether all of a unit is there."""
        return self.done_path(unit).is_file()

    def begin(self, unit: str) -> int:
        """Count an attempt at a unit; gives the number of those before it.

        Raises:
            FileAccessError: If it cannot be written.
        """
        path = self.folder / "attempts" / unit
        try:
            path.parent.mkdir(exist_ok=True)
            descriptor = os.open(str(path), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o666)
            try:
                os.write(descriptor, b".")
                return os.fstat(descriptor).st_size - 1
            finally:
                os.close(descriptor)
        except OSError as err:
            raise file_error(err, path, "write") from err

    def attempts(self, unit: str) -> int:
        """How often somebody began with a unit that is not done."""
        try:
            return (self.folder / "attempts" / unit).stat().st_size
        except OSError:
            return 0

    def forget(self, unit: str, *, last: bool = False) -> None:
        """Take a unit's attempts away: all of them, or the last one, which was stopped and did not fail."""
        path, left = self.folder / "attempts" / unit, self.attempts(unit) - 1 if last else 0
        with contextlib.suppress(OSError):
            if left > 0:
                os.truncate(str(path), left)
            else:
                path.unlink()

    def failed_path(self, unit: str) -> Path:
        """Where it says why a unit is given up."""
        return self.folder / "failed" / f"{unit}.json"

    def fail(self, unit: str, values: Dict[str, Any]) -> None:
        """Give a unit up.

        Raises:
            FileAccessError: If that cannot be written.
        """
        write_text(self.failed_path(unit), _json(values))
        self.forget(unit)

    def failure(self, unit: str) -> Optional[Dict[str, Any]]:
        """Why a unit was given up; None: it was not."""
        path = self.failed_path(unit)
        return _read(file_bytes(path), path) if path.is_file() else None

    def clean(self) -> None:
        """Remove what killed processes left half written."""
        for name in ("shards", "units", "failed", "machines", "masks", "confidences"):
            if (self.folder / name).is_dir():
                remove_leftovers(self.folder / name)
        remove_leftovers(self.folder, below=False)


class _TarOutput(Output):
    layout = "tar"

    def done_path(self, unit: str) -> Path:
        return self.folder / "shards" / f"{unit}.tar"

    @contextlib.contextmanager
    def writing(self, unit: str, summary: Dict[str, Any]) -> Iterator[UnitWriter]:
        with atomic_path(self.done_path(unit)) as temporary, _new_tar(temporary) as archive:
            writer = _TarWriter(archive)
            yield writer
            writer.put(_SUMMARY, _json(summary).encode("utf-8"))

    def summary(self, unit: str) -> Dict[str, Any]:
        path = self.done_path(unit)
        damaged = parsing(DataError, f"{path} is damaged", hint="remove it and run the same command again")
        with damaged:
            at_end = _at_end(path)
            if at_end is None:  # it is longer, such as of a unit of which nothing decodes
                with tarfile.open(str(path), "r:") as archive:
                    member = archive.extractfile(_SUMMARY)
                    at_end = member.read() if member else b""
            return _read(at_end, path)


def _new_tar(path: Path) -> tarfile.TarFile:
    return tarfile.open(str(path), "w", format=tarfile.PAX_FORMAT)


def _at_end(path: Path) -> Optional[bytes]:
    """The summary, if it lies in the last bytes of a shard: on a network's disk each header that is read takes a while.

    Source: POSIX ustar, blocks of 512 bytes.
    """
    with open(path, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _END))
        end = stream.read()
    for place in range(len(end) - _BLOCK, -1, -_BLOCK):
        block = end[place : place + _BLOCK]
        if block.startswith(_SUMMARY.encode() + b"\0"):
            with contextlib.suppress(tarfile.HeaderError):  # a part of a picture
                start = place + _BLOCK
                return end[start : start + tarfile.TarInfo.frombuf(block, "utf-8", "strict").size]
    return None


class _TarWriter(UnitWriter):
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, kind: str, key: str, content: bytes) -> None:
        self.put(f"{kind}/{key}.png", content)

    def put(self, name: str, content: bytes) -> None:
        """A member without time and owner: the same labels are the same bytes."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))


class _PngOutput(Output, UnitWriter):
    layout = "png"

    def done_path(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.json"

    @contextlib.contextmanager
    def writing(self, unit: str, summary: Dict[str, Any]) -> Iterator[UnitWriter]:
        yield self
        write_text(self.done_path(unit), _json(summary))

    def summary(self, unit: str) -> Dict[str, Any]:
        path = self.done_path(unit)
        return _read(file_bytes(path), path)

    def add(self, kind: str, key: str, content: bytes) -> None:
        write_bytes(self.folder / kind / f"{key}.png", content)


_LAYOUTS = {one.layout: one for one in (_PngOutput, _TarOutput)}
LAYOUTS = tuple(_LAYOUTS)


def open_output(folder: Path, layout: str) -> Output:
    """The output folder in a layout: ``png``, a file for each mask, or ``tar``, one for each unit.

    Raises:
        ConfigError: If there is no such layout.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"{layout!r} is no layout of labels", hint=f"known: {', '.join(LAYOUTS)}")
    return _LAYOUTS[layout](folder)


def _json(values: Dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, sort_keys=True) + "\n"


def _read(content: bytes, path: Path) -> Dict[str, Any]:
    hint = "remove it and run the same command again"
    with parsing(DataError, f"{path} is damaged", hint=hint):
        values: Dict[str, Any] = dict(json_values(content, str(path), DataError, hint=hint))
        texts = [values["id"], values["state"], *([values["why"]] if values["state"] == "failed" else [])]
        texts += [entry[key] for entry in values["skipped"] for key in ("file", "key", "why")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(values["frames"], int):
            raise ValueError("it says something else than what became of a unit")
        return values
