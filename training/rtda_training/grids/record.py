"""Finished rows of grids in a CSV file that is kept where run folders are not: in a repository, on another machine.

A grid with ``record = "rows.csv"`` appends each run that it finishes, and trains no run that stands there already. A
row is found by its plan, seed and test set, whatever it is called. Folders of this machine are written by their names
(:class:`rtda_training.grids.places.Places`), so that a record is good where data lie elsewhere.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtda_deploy.border import parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import file_error, read_text
from rtda_training.grids.grid import GridRun
from rtda_training.grids.places import Places
from rtda_training.loop.hardware import cpu_name
from rtda_training.plan import differing_keys
from rtda_training.run_folder import git_hash

__all__ = ["GridRecord"]

_COLUMNS = ("grid", "row", "recipe", "seed", "size", "batch", "steps", "commit", "cpu", "seconds_per_step")
_FIGURES = ("miou", "best_miou", "pixel_accuracy")  # percent; of last.pth, best.pth, last.pth
_WHOLE = ("test", "best_at", "scores", "plan")  # what a table is made of again
_CHOSEN = "chosen"  # the candidate that best.pth is, where a ranking chose it; absent in records of earlier versions
_LABELS = ("name", "description")  # keys of a plan that change no training


class GridRecord:
    """The CSV of one path.

    Args:
        path: Where; made with the first row.
        places: Folders of this machine.

    Raises:
        DataError: If it is no record, with the line.
        FileAccessError: If it cannot be read.
    """

    def __init__(self, path: str | Path, places: Places) -> None:
        self.path = Path(path)
        self._places = places
        self._read()

    def find(self, run: GridRun, test: str) -> dict[str, Any]:
        """What a run's ``scores.json`` would hold; empty where it is not there.

        Args:
            run: Of a grid.
            test: Address that it is scored on.
        """
        for entry in self._read():
            if entry["seed"] != run.seed or entry["test"] != test:
                continue
            if not set(differing_keys(entry["plan"], run.plan)) - set(_LABELS):
                return dict(entry)
        return {}

    def add(self, grid: str, run: GridRun, entry: Mapping[str, Any]) -> None:
        """Append a finished run; processes that share a record take turns.

        Args:
            grid: The grid's name.
            run: Of it.
            entry: What its ``scores.json`` holds.

        Raises:
            FileAccessError: If it cannot be written.
        """
        scores = {key: value for key, value in entry["scores"].items() if key != "model"}  # a path of this machine
        whole = {**entry, "scores": scores}
        values = {
            "grid": grid,
            "row": run.row.label,
            "recipe": run.row.recipe,
            "seed": run.seed,
            "size": run.plan.size,
            "batch": run.plan.batch_size,
            "steps": " + ".join(str(steps) for steps in entry["steps"]),
            "commit": git_hash(),
            "cpu": cpu_name(),
            "seconds_per_step": entry["seconds_per_step"],
            "miou": scores["miou"],
            "best_miou": entry.get("best_scores", {}).get("miou", ""),
            "pixel_accuracy": scores["pixel_accuracy"],
            **{key: self._places.portable(json.dumps(whole[key])) for key in _WHOLE if key in whole},
            _CHOSEN: entry.get(_CHOSEN, ""),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
                _append(file, values)
        except OSError as err:
            raise file_error(err, self.path, "write") from err

    def _text(self) -> str:
        """What the file holds, without a row that another process is writing; empty where there is none yet."""
        if not self.path.is_file():
            return ""
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                return read_text(self.path, what="record") if file.seek(0, os.SEEK_END) else ""
        except OSError as err:
            raise file_error(err, self.path, "read") from err

    def _read(self) -> list[dict[str, Any]]:
        text = self._text()
        made = []
        reader = csv.DictReader(io.StringIO(text))
        hint = "mend it, or name another file: --set record=rows.csv"
        for row in reader:
            with parsing(DataError, f"{self.path}, line {reader.line_num}, is no row of a grid's record", hint=hint):
                whole = {key: json.loads(self._places.known(row[key])) for key in _WHOLE if row[key]}
                made.append(
                    {
                        **whole,
                        "row": row["row"],
                        "recipe": row["recipe"],
                        "seed": int(row["seed"]),
                        "steps": [int(steps) for steps in row["steps"].split(" + ")],
                        "seconds_per_step": float(row["seconds_per_step"]) if row["seconds_per_step"] else None,
                        "plan": whole["plan"],
                        "test": whole["test"],
                        "scores": whole["scores"],
                        **({"best_scores": {"miou": float(row["best_miou"])}} if row["best_miou"] else {}),
                        **({_CHOSEN: row[_CHOSEN]} if row.get(_CHOSEN) else {}),
                    }
                )
        return made


def _append(file: io.FileIO, values: Mapping[str, Any]) -> None:
    """Write a row, and before the first one the head: whole, or where the disk is full not at all.

    A file that has a head already gets the columns that it names.
    """
    file.seek(0)
    head = file.readline().decode().strip().split(",")
    end = file.seek(0, os.SEEK_END)
    columns = head if end else [*_COLUMNS, *_FIGURES, *_WHOLE, _CHOSEN]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    if not end:
        writer.writeheader()
    writer.writerow(values)
    try:
        left = text.getvalue().encode()
        while left:
            left = left[file.write(left) :]
    except OSError:
        os.ftruncate(file.fileno(), end)
        raise
