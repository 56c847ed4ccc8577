"""Folders that differ from machine to machine, as the names that grids and their records write for them."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["Places"]

_DATA, _GRID = "RTDA_DATA", "GRID"


class Places:
    """``$GRID`` is the folder of a grid's file; every other ``$NAME`` is an environment variable.

    Args:
        folder: Of the grid's file.
    """

    def __init__(self, folder: Path) -> None:
        self._grid = str(folder.resolve())

    def known(self, text: str) -> str:
        """``text`` with names replaced by folders; names that nobody set stay."""
        return os.path.expandvars(re.sub(rf"\$(?:{_GRID}\b|{{{_GRID}}})", lambda match: self._grid, text))

    def unknown(self, text: str) -> str:
        """The first name in ``text`` that nobody set; empty: all are."""
        left = re.search(r"\$\{?(\w+)", self.known(text))
        return left[1] if left else ""

    def portable(self, text: str) -> str:
        """``text`` with the folders of ``$RTDA_DATA`` and ``$GRID`` as these names."""
        folders = {_DATA: os.environ.get(_DATA, "").rstrip("/"), _GRID: self._grid}
        for name, folder in sorted(folders.items(), key=lambda item: -len(item[1])):
            if folder:
                text = text.replace(folder, f"${name}")
        return text
