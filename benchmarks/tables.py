"""Markdown tables and the forms of figures in them, for pages and terminals alike."""

from __future__ import annotations

import re
import string
from typing import Any, Mapping, Optional, Sequence


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with a line for each row.

    Args:
        columns: What stands in each by its head, ``{"way": "{way}", ">time": "{ms:ms}", ">ratio": "{row:x2}"}``: fields
            of the row as for ``str.format``, and ``row`` itself. A head that begins with ``>`` is aligned to the right.
            Beside Python's own formats there are ``ms`` (milliseconds in three digits), ``x2`` (of a row: its ratio and
            middle half with two places) and ``%2`` (a share in percent).
        rows: What the fields are taken from; a ``|`` in a cell becomes a ``/``. For None stands a dash.
    """
    cells = _Cells()
    lines = [[head.lstrip(">") for head in columns], ["---:" if head[0:1] == ">" else "---" for head in columns]]
    lines += [
        [cells.vformat(form, (), {"row": row, **row}).replace("|", "/") for form in columns.values()] for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class _Cells(string.Formatter):
    def format_field(self, value: Any, spec: str) -> str:
        if value is None:
            return "–"
        if spec == "ms":
            return ms(value)
        if spec[:1] == "x":
            return spread(value, int(spec[1:]))
        return f"{100 * value:.{spec[1:]}f} %" if spec[:1] == "%" else str(format(value, spec))


def ms(value: Optional[float]) -> str:
    """Milliseconds in three digits; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(row: Mapping[str, Any], places: int = 2) -> str:
    """``1.87x (1.76 to 2.03)``: a row's ``ratio`` and its middle half; a dash where the ratio is None."""
    if row["ratio"] is None:
        return "–"
    return f"{row['ratio']:.{places}f}x ({row['low']:.{places}f} to {row['high']:.{places}f})"


def wide(text: str) -> str:
    """A text whose Markdown tables are padded and have no bars, for a terminal."""
    return re.sub(r"(?m)(?:^\|.*$\n?)+", lambda block: _padded(block.group()), text)


def _padded(markdown: str) -> str:
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in markdown.splitlines()]
    right = [mark.endswith(":") for mark in rows.pop(1)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = (
        "  ".join(cell.rjust(width) if side else cell.ljust(width) for cell, width, side in zip(row, widths, right))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines) + "\n" * markdown.endswith("\n")
