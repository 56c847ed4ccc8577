"""The unit of work: a few kB that say which frames to label, and what each is called. It holds no pixels."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Dict, Tuple

__all__ = ["UNIT_FRAMES", "Unit"]

UNIT_FRAMES = 200  # the most of a unit; names and numbers of so many are about 5 kB


@dataclasses.dataclass(frozen=True)
class Unit:
    """Some frames of one folder of pictures or of one recording.

    Attributes:
        id: 16 hexadecimal digits; changes with the model, the options, the file and the frames.
        kind: ``pictures``, ``video`` or ``bag``.
        path: The folder, or the recording's file or folder; absolute.
        topic: Of a bag, where one was typed; else empty.
        files: Of pictures: their paths below ``path``.
        numbers: Of a recording: the numbers of its frames, ascending.
        folder: What goes before each name, with a slash at its end, or empty.
        names: One for each frame.
    """

    id: str
    kind: str
    path: str
    topic: str
    files: Tuple[str, ...]
    numbers: Tuple[int, ...]
    folder: str
    names: Tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def mask_names(self) -> Tuple[str, ...]:
        """What the frames' masks are called, without a suffix."""
        return tuple(self.folder + name for name in self.names)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what is empty is left out."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}

    @classmethod
    def of(cls, values: Dict[str, Any]) -> Unit:
        """The unit of :meth:`to_dict`'s values, which a stranger may have written.

        Raises:
            Exception: Whatever shows that it is none, such as a mask outside of the output folder; read in a block of
                :func:`rtda_deploy.border.parsing`.
        """
        given = {"topic": "", "folder": "", "files": (), "numbers": (), **values}
        tuples = {key: tuple(given[key]) for key in ("files", "numbers", "names")}
        found = cls(**{**given, **tuples})
        if not re.fullmatch("[0-9a-f]{16}", found.id):
            raise ValueError(f"a unit is called {found.id!r}, which is not 16 hexadecimal digits")
        if len(found.names) != len(found.files or found.numbers):
            raise ValueError(f"unit {found.id} has not one name for each frame")
        for name in found.mask_names():
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"the mask {name} would lie outside of the folder")
        return found
