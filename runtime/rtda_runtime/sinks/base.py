"""What every sink promises, and the file of one that is complete or nothing."""

from __future__ import annotations

import abc
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, ContextManager, Mapping, Optional, Type, TypeVar

from rtda_deploy.errors import FileAccessError
from rtda_deploy.files import atomic_path, file_error
from rtda_runtime.result import Result

__all__ = ["FileInProgress", "Sink"]

_log = logging.getLogger(__name__)

_Self = TypeVar("_Self", bound="Sink")


class Sink(abc.ABC):
    """Something that takes results: a video file, a folder of masks, viewers.

    In a pipeline each sink has a thread of its own, which makes every call of :meth:`write` and the last one of
    :meth:`close`. An exception of :meth:`write` stops this sink alone; the pipeline tells of it and goes on.

    Attributes:
        note: What to tell a person once it is open, such as where to look. It may hold a token: not for logs.
        name: What its thread (``rtda-<name>``), statistics and messages call it.
        keeps: Nothing may be lost: under the policy ``every`` the pipeline waits for it. False: it takes the newest
            result when it is ready for one, and the others are counted as its own drops.
        finishes: Closing it takes a moment longer, for which a run that came to its end by itself waits.
        after_shadow: Beside a shadow (``Pipeline.open(..., shadow=)``) it gets the results that the shadow looked at,
            with the shadow's mask as ``result.compared``. False: each result, when the pipeline has it.
        nice: How far its thread gives way to the others, on Linux: 0 (not at all) to 19, as of :func:`give_way`.
    """

    name: str = "sink"
    keeps: bool = False
    finishes: bool = False
    after_shadow: bool = False
    nice: int = 0
    note: str = ""

    def wants(self, result: Result) -> bool:  # most sinks take all
        """Whether it takes this result; asked on the pipeline's own thread, must not wait."""
        return True

    @abc.abstractmethod
    def write(self, result: Result) -> Mapping[str, float]:
        """Take one result; gives the milliseconds spent per stage, such as ``overlay`` and ``encode``."""

    def on_state(self, state: str, sentence: str) -> None:  # noqa: B027, most sinks need not know
        """Told, from the reader's thread, when the source becomes ``live``, ``stale`` or ``lost``; must not wait."""

    def details(self) -> Mapping[str, Any]:
        """JSON-ready figures of its own, which stand beside its statistics; called from any thread."""
        return {}

    @abc.abstractmethod
    def close(self) -> None:
        """Finish what is being written. Calling it again does nothing."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class FileInProgress:
    """A file that a sink writes under a temporary name, until it is complete or given up.

    Args:
        path: Its name; replaced by :meth:`complete` if it exists.

    Attributes:
        temporary: Where it is written.
        ended: Whether it is complete or given up.

    Raises:
        FileAccessError: If it cannot be written; then nothing is left under ``path``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended = False
        self._writing: ContextManager[Path] = atomic_path(path)
        self.temporary = self._writing.__enter__()

    def complete(self) -> None:
        """Give it its name."""
        self.ended = True
        self._writing.__exit__(None, None, None)

    def failed(self, err: OSError) -> FileAccessError:
        """Give it up for this error; gives the one to raise."""
        error = file_error(err, self.path, "write")
        self._give_up(error)
        return error

    def give_up_empty(self, what_was_not_done: str) -> None:
        """Give it up because no frame was there to be ``written`` or ``recorded``; only a warning tells."""
        _log.warning("no frame was %s, so there is no %s", what_was_not_done, self.path)
        self._give_up(FileAccessError("no frame", hint="nothing was recorded: let it run until a first frame is there"))

    def _give_up(self, error: FileAccessError) -> None:
        """Remove the temporary file."""
        if self.ended:
            return
        self.ended = True
        try:
            self._writing.__exit__(type(error), error, None)
        except FileAccessError as same:
            if same is not error:
                raise
