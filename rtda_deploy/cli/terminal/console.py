"""How the command line speaks: errors, notes, tables, JSON, bars, and what to type next.

A terminal gets rich tables and bars; a pipe gets plain lines, no colour, no bars, and a line of progress now and then.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import sys
import time
from types import TracebackType
from typing import Any, Dict, Iterable, List, Optional, Sequence, Type

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from rtda_deploy.cli.terminal.visible import raw, visible
from rtda_deploy.errors import RtdaError

__all__ = [
    "LiveLine",
    "ProgressLines",
    "clock_text",
    "note",
    "print_csv",
    "print_error",
    "print_json",
    "print_next",
    "print_table",
    "size_text",
    "warn",
]

_PIPE_WIDTH = 200  # a pipe has no width of its own; tables must not be cut
_GAP = 2  # between two columns of a table
_PLAIN_EVERY_S = 5.0
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # JSON may spell them out
_LEFT_WIDTH, _LEAST_BAR = len("00:00 left"), 4  # characters of a bar's line


def _console(stderr: bool) -> Console:
    stream = raw(sys.stderr if stderr else sys.stdout)  # rich writes colours; texts go through _shown()
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def _shown(text: str) -> str:
    """Text of whatever origin, as rich may print it: no markup of its own, control characters written out."""
    return escape(visible(text))


def print_error(err: RtdaError) -> None:
    """``error`` what happened, ``why``, ``fix``; on stderr, without a traceback."""
    console = _console(stderr=True)
    console.print(f"[bold red]error[/]  {_indented(err.message)}")
    if err.why:
        console.print(f"[bold]why[/]    {_indented(err.why)}")
    if err.hint:
        console.print(f"[bold green]fix[/]    {_indented(err.hint)}")


def _indented(text: str) -> str:
    """Later lines indented, so that text from a file cannot pass for a line of ours such as ``fix``."""
    return _shown(text).replace("\n", "\n       ")


def note(text: str) -> None:
    """One line for people, on stderr."""
    _console(stderr=True).print(_shown(text))


def warn(text: str) -> None:
    """One line that should not be missed, on stderr."""
    _console(stderr=True).print(f"[yellow]![/] {_shown(text)}")


def print_next(*commands: str) -> None:
    """What to type next, on stderr."""
    console = _console(stderr=True)
    for place, command in enumerate(commands):
        console.print(f"[bold]{'next' if place == 0 else '    '}[/]    {_shown(command)}")


def print_json(values: Any) -> None:
    """One JSON object on one line of stdout; numbers that JSON does not know become null."""
    plain = (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"
    text = json.dumps(_finite(values), ensure_ascii=plain)
    print(_UNSEEN.sub(lambda found: f"\\u{ord(found.group()):04x}", text), flush=True)


def print_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Comma-separated values on stdout; numbers with four places after the point."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """A table on stdout; columns of numbers are right-aligned. What is too wide is folded, never cut."""
    cells = [[_cell(value) for value in row] for row in rows]
    console = _console(stderr=False)
    lines = [list(headers), *cells]
    width = sum(max(cell_len(visible(row[place])) for row in lines) + _GAP for place in range(len(headers))) - _GAP
    folds = width > console.width
    table = Table(box=None, title=title or None, title_justify="left", pad_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        numeric = bool(cells) and all(_is_number(row[place]) for row in cells)
        fixed = not folds and not _wraps(place, headers)
        table.add_column(
            _shown(header),
            justify="right" if numeric else "left",
            no_wrap=fixed,
            overflow="fold" if folds else "ellipsis",
        )
    for row in cells:
        table.add_row(*(_shown(value) for value in row))
    console.print(table)


def size_text(count: int) -> str:
    """Bytes for people: ``49.8 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def clock_text(seconds: float) -> str:
    """Seconds for people: ``0:41``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressLines:
    """Several bars on a terminal; on a pipe, a line when something starts and one every five seconds."""

    def __init__(self) -> None:
        self._bars: Optional[Progress] = None
        self._tasks: Dict[str, TaskID] = {}
        self._told: Dict[str, float] = {}
        self._started: Dict[str, float] = {}

    def __enter__(self) -> ProgressLines:
        console = _console(stderr=True)
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True)),
                _Left(table_column=Column(no_wrap=True, min_width=_LEFT_WIDTH)),
            )
            self._bars = Progress(*columns, console=console, transient=False)
            self._bars.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def update(self, name: str, done: float, total: float, detail: str = "", left_s: Optional[float] = None) -> None:
        """Say how far ``name`` is; ``left_s``: seconds left, where somebody knows better than the pace so far."""
        if self._bars is None:
            self._plain(name, done, total, detail, left_s)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(_shown(name), total=total, detail="", left_s=None)
        taken = len(name) + 2 * len(f"{total:.0f}") + 1 + _LEFT_WIDTH + _LEAST_BAR + 4  # and four spaces
        room = max(0, self._bars.console.width - taken)
        shown = detail if len(detail) <= room else detail[: max(0, room - 1)] + "…"  # two lines a bar would flicker
        self._bars.update(self._tasks[name], completed=done, total=total, detail=_shown(shown), left_s=left_s)

    def say(self, text: str) -> None:
        """A line among the bars."""
        if self._bars is None:
            note(text)
        else:
            self._bars.console.print(_shown(text))

    def _plain(self, name: str, done: float, total: float, detail: str, left_s: Optional[float]) -> None:
        now = time.monotonic()
        self._started.setdefault(name, now)
        if done < total and now - self._told.get(name, -math.inf) < _PLAIN_EVERY_S:
            return
        if self._told.get(name) == math.inf:
            return
        self._told[name] = math.inf if done >= total else now
        left = (now - self._started[name]) * (total - done) / done if done else 0.0
        left = left if left_s is None else left_s
        rest = f"  {clock_text(left)} left" if left >= 1 and done < total else ""
        note(f"{name}  {done:.0f}/{total:.0f}  {detail}{rest}")


class _Left(ProgressColumn):
    """Time left: as told, else by the pace so far."""

    def render(self, task: Task) -> Text:
        told = task.fields.get("left_s")
        left = task.time_remaining if told is None else told
        return Text(f"{clock_text(left)} left" if left and not task.finished else "")


class LiveLine:
    """One line on stderr that is written over; on a pipe each text is a line of its own."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        if not self.terminal:
            note(text)
            return
        width = shutil.get_terminal_size().columns
        raw(sys.stderr).write("\r\x1b[2K" + visible(text, line=True)[: width - 1])
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            raw(sys.stderr).write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False

    def end(self) -> None:
        """Leave the last text standing and go to the next line."""
        if self._shown:
            sys.stderr.write("\n")
            self._shown = False


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}"
    return visible(str(value), line=True)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).replace("-", "", 1).replace("%", "").strip().isdigit()


def _wraps(place: int, headers: Sequence[str]) -> bool:
    """The last column of a table of words may wrap; numbers and names never do."""
    return place > 0 and place == len(headers) - 1


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        items: List[Any] = [_finite(value) for value in values]
        return items
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values
