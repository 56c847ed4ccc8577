"""The folder of collected frames: a data set at any moment, whatever happens to the process or the disk.

::

    DIR/images/ID.jpg       the picture           DIR/labels/ID.png   its mask, class ids
    DIR/confidence/ID.png   255 is certain        DIR/frames.jsonl    a line a frame
    DIR/classes.json        what the ids mean

A frame is there when its picture is there: mask, confidence and line are written before it, and removed after it. A
line whose picture is gone is a frame that gave way; such lines are left out when the file is written anew, at the next
start and now and then. Each file is written under a hidden name and renamed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_deploy.files import file_error, remove_leftovers, write_bytes, write_text
from rtda_deploy.json_lines import append_line, json_line
from rtda_deploy.own_masks import is_own_mask
from rtda_deploy.run_folders import folder_lock
from rtda_deploy.spec import ModelSpec

__all__ = ["CLASSES", "LINES", "PARTS", "FrameStore"]

LINES, CLASSES = "frames.jsonl", "classes.json"
PARTS = {"images": ".jpg", "labels": ".png", "confidence": ".png"}  # the folders, and what their files end in
_ID = re.compile(r"\d{8}-\d{6}-\d{6}")
_STALE_LINES = 100  # of frames that are gone; then the file is written anew


class FrameStore:
    """Opens the folder, brings it into order after a process that was killed, and holds its lock.

    Args:
        folder: Made where it is missing.
        spec: Class names and palette.

    Attributes:
        folder: The folder.
        lines: What is known of each frame, by its id, in the order in which they were kept.
        sizes: Bytes of each frame on the disk.
        bytes: Of all frames.

    Raises:
        ConfigError: If there are other things in the folder, or frames of other classes.
        FolderBusyError: If another process collects there.
        FileAccessError: If it cannot be read or written to.
    """

    def __init__(self, folder: Union[str, Path], spec: ModelSpec) -> None:
        self.folder = Path(folder)
        self.lines: Dict[str, Dict[str, Any]] = {}
        self.sizes: Dict[str, int] = {}
        self.bytes = 0
        self._stale = 0
        _check_own(self.folder)
        self._opened = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            opened.enter_context(folder_lock(self.folder))
            self._bring_in_order(spec)
            self._opened = opened.pop_all()

    def new_id(self, time_ns: int) -> str:
        """A name that sorts by time: UTC, to the microsecond.

        Args:
            time_ns: Since 1970; clocks that were set back give a later one, so that no frame takes another's name.
        """
        moment = datetime.datetime.fromtimestamp(time_ns // 1000 / 1e6, datetime.timezone.utc)
        while True:
            name = f"{moment:%Y%m%d-%H%M%S-%f}"
            if name not in self.lines:
                return name
            moment += datetime.timedelta(microseconds=1)

    def write(self, line: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Keep a frame.

        Args:
            line: JSON-ready, with its ``id``.
            files: Content by the names of :data:`PARTS`; ``confidence`` may be missing.

        Raises:
            FileAccessError: If the disk is full or refuses; then nothing of the frame is left.
        """
        name = str(line["id"])
        try:
            for part in ("confidence", "labels"):
                if part in files:
                    write_bytes(self._path(part, name), files[part])
            append_line(self.folder / LINES, line)
            write_bytes(self._path("images", name), files["images"])
        except FileAccessError:
            self._stale += 1
            with contextlib.suppress(OSError):
                self._unlink(name)
            raise
        self.lines[name] = dict(line)
        self.sizes[name] = sum(map(len, files.values()))
        self.bytes += self.sizes[name]

    def remove(self, name: str) -> None:
        """A frame gives way.

        Raises:
            FileAccessError: If a file cannot be removed.
        """
        try:
            self._unlink(name)
        except OSError as err:
            raise file_error(err, self.folder, "remove a frame from") from err
        self.lines.pop(name, None)
        self.bytes -= self.sizes.pop(name, 0)
        self._stale += 1
        if self._stale > _STALE_LINES + len(self.lines):
            self._write_lines()

    def corrected(self, name: str) -> bool:
        """Whether somebody else wrote the frame's mask, after it was collected."""
        return not is_own_mask(self._path("labels", name))

    @property
    def free_bytes(self) -> int:
        """What is free on the disk for this user.

        Raises:
            FileAccessError: If the disk does not say.
        """
        try:
            return shutil.disk_usage(self.folder).free
        except OSError as err:
            raise file_error(err, self.folder, "look at") from err

    def close(self) -> None:
        """Write the lines anew where some are of frames that are gone, and let go of the folder."""
        if self._stale:
            with contextlib.suppress(FileAccessError):  # a full disk; the next start does it
                self._write_lines()
        self._opened.close()

    def _path(self, part: str, name: str) -> Path:
        return self.folder / part / f"{name}{PARTS[part]}"

    def _unlink(self, name: str) -> None:
        for part in PARTS:  # the picture first
            with contextlib.suppress(FileNotFoundError):
                self._path(part, name).unlink()

    def _write_lines(self) -> None:
        write_text(self.folder / LINES, "".join(map(json_line, self.lines.values())))
        self._stale = 0

    def _bring_in_order(self, spec: ModelSpec) -> None:
        lines = self.folder / LINES
        if not lines.exists():
            write_text(lines, "")  # first of all: it says that the folder is ours
        remove_leftovers(self.folder)
        _say_classes(self.folder / CLASSES, spec)
        try:
            for part in PARTS:
                (self.folder / part).mkdir(exist_ok=True)
            self._read(lines.read_bytes())
            self._remove_incomplete()
        except OSError as err:
            raise file_error(err, self.folder, "write to") from err
        if self._stale:
            self._write_lines()

    def _read(self, content: bytes) -> None:
        for text in content.splitlines():
            line = _line(text)
            if line is None or not self._path("images", line["id"]).is_file():
                self._stale += 1
                continue
            self.lines[line["id"]] = line
            self.sizes[line["id"]] = sum(
                self._path(part, line["id"]).stat().st_size for part in PARTS if self._path(part, line["id"]).is_file()
            )
        self.bytes = sum(self.sizes.values())
        if content and not content.endswith(b"\n"):
            self._stale += 1

    def _remove_incomplete(self) -> None:
        """Remove masks and confidences that we wrote and whose picture was never written, or is gone already."""
        for part in ("labels", "confidence"):
            for path in (self.folder / part).glob("*.png"):
                ours = _ID.fullmatch(path.stem) and not self._path("images", path.stem).exists()
                if ours and is_own_mask(path):
                    path.unlink()


def _line(text: bytes) -> Optional[Dict[str, Any]]:
    """A line's values; None for one that is not whole, or was not written by us."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _ID.fullmatch(str(found.get("id"))) else None


def _check_own(folder: Path) -> None:
    """Refuse a folder that holds something and was not made by collecting: frames replace one another there.

    Raises:
        ConfigError: If it does.
    """
    try:
        there: List[str] = sorted(os.listdir(folder)) if folder.exists() else []
    except OSError as err:
        raise file_error(err, folder, "list") from err
    others = [name for name in there if not name.startswith(".")]
    if others and LINES not in others:
        raise ConfigError(
            f"{folder} holds {others[0]}, and no frames that were collected",
            why="collecting replaces frames by better ones: nothing else should lie there",
            hint="choose a new folder",
        )


def _say_classes(path: Path, spec: ModelSpec) -> None:
    """Write ``classes.json``, or check that frames of the same classes are there.

    Raises:
        ConfigError: If they are of others.
    """
    names = list(spec.class_names)
    if path.exists():
        try:
            known = list(json.loads(path.read_text(encoding="utf-8"))["names"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
            raise ConfigError(f"{path} is no classes file", hint="choose a new folder") from err
        if known != names:
            raise ConfigError(
                f"{path.parent} holds frames of other classes than this network's",
                why=f"{len(known)} classes there, {len(names)} here" if len(known) != len(names) else "other names",
                hint="choose a new folder",
            )
        return
    ids = {str(index): name for index, name in enumerate(names)}
    said = {
        "names": names,
        "palette": [list(colour) for colour in spec.palette],
        "ids": ids,
        "ignore": [spec.ignore_index],
        "absent": names,  # a drive need not show every class
    }
    write_text(path, json.dumps(said, ensure_ascii=False) + "\n")
