"""The frames of a unit, decoded on a thread of its own while the network works on those before."""

from __future__ import annotations

import contextlib
import queue
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Union

import numpy as np

from rtda_deploy.border import parsing
from rtda_deploy.errors import FileAccessError, RtdaError, SourceError
from rtda_runtime.fleet.units import Unit
from rtda_runtime.sources.footage.address import FootageAddress
from rtda_runtime.sources.footage.base import Recording
from rtda_runtime.sources.footage.kinds import open_footage
from rtda_runtime.sources.pictures import read_picture
from rtda_runtime.threads.named import NamedThread

__all__ = ["FrameReader", "UnitFrame"]

_AHEAD = 4  # frames that wait for the network
_STEP_S = 0.2  # a thread that nobody reads from notices so soon


class UnitFrame(NamedTuple):
    """One frame of a unit.

    Attributes:
        key: What its mask is called.
        image: uint8 (H, W, 3) BGR; None: it cannot be decoded.
        file: Where it was read from.
        why: Where it cannot be decoded.
    """

    key: str
    image: Optional[np.ndarray]
    file: str
    why: str = ""


class FrameReader:
    """Reads units; the recording that was read last stays indexed for the next unit of it."""

    def __init__(self) -> None:
        self._last: Optional[Recording] = None
        self._last_of: Any = None

    def frames(self, unit: Unit) -> Iterator[UnitFrame]:
        """Every frame of a unit, in order; one that is damaged comes without an image.

        Raises:
            FileAccessError: If a file is gone that was there when the plan was made.
        """
        return _ahead(self._pictures(unit) if unit.kind == "pictures" else self._recorded(unit))

    def _pictures(self, unit: Unit) -> Iterator[UnitFrame]:
        for name, key in zip(unit.files, unit.mask_names()):
            path = Path(unit.path) / name
            try:
                yield UnitFrame(key, read_picture(path), str(path))
            except (SourceError, FileAccessError) as err:
                _must_exist(path, err)
                yield UnitFrame(key, None, str(path), err.message)

    def _recorded(self, unit: Unit) -> Iterator[UnitFrame]:
        keys: Dict[int, str] = dict(zip(unit.numbers, unit.mask_names()))
        why = "cannot be decoded"
        try:
            with parsing(SourceError, f"{unit.path} cannot be read on", hint="does a player show it to its end?"):
                for frame in self._opened(unit).frames(unit.numbers):
                    yield UnitFrame(keys.pop(frame.number), frame.image, unit.path)
        except (SourceError, FileAccessError) as err:
            _must_exist(Path(unit.path), err)
            why = err.message
        for key in keys.values():
            yield UnitFrame(key, None, unit.path, why)

    def _opened(self, unit: Unit) -> Recording:
        wanted = unit.kind, unit.path, unit.topic
        if self._last is None or self._last_of != wanted:
            found: List[Recording] = open_footage(FootageAddress(unit.kind, unit.path, unit.topic or None))
            self._last, self._last_of = found[0], wanted
        return self._last


def _must_exist(path: Path, err: RtdaError) -> None:
    """A damaged file is skipped; one that is gone is no matter of the file."""
    if not path.exists():
        raise FileAccessError(
            f"{path} is not there any more",
            why="it was when the plan was made",
            hint="is the disk still mounted? Run the same command again with --retry",
        ) from err


_Item = Union[UnitFrame, BaseException, None]


def _ahead(frames: Iterator[UnitFrame]) -> Iterator[UnitFrame]:
    """The same frames, a few of them read ahead. A reader that is left early ends its thread."""
    items: queue.Queue[_Item] = queue.Queue(_AHEAD)
    left: List[bool] = []

    def put(item: _Item) -> bool:
        while not left:
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=_STEP_S)
                return True
        return False

    def read() -> None:
        try:
            for frame in frames:
                if not put(frame):
                    return
            put(None)
        except BaseException as err:  # it is raised where the frames are used
            put(err)

    thread = NamedThread("rtda-decode", read)
    thread.start()
    try:
        while True:
            item = items.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.append(True)
        thread.join()
