"""The numbers of a run: ``results.csv`` for people, ``metrics.jsonl`` for programs, TensorBoard where installed."""

from __future__ import annotations

import contextlib
import csv
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtda_deploy.files import file_error, write_text
from rtda_deploy.optional import available

__all__ = ["COLUMNS", "RunLog"]

COLUMNS = (
    "stage",
    "step",
    "seg",
    "adv",
    "disc",
    "disc_right",
    "learning_rate",
    "pictures_per_s",
    "val_miou",
    "val_pixel_accuracy",
)


class RunLog:
    """Appends rows; on resume, rows past the resumed step are dropped first, so that no step stands twice.

    Args:
        folder: Run folder.
        position: ``(stage index, step)`` that training resumes from; (0, 0) starts a new log.
    """

    def __init__(self, folder: Path, position: tuple[int, int] = (0, 0)) -> None:
        self._csv = folder / "results.csv"
        self._jsonl = folder / "metrics.jsonl"
        self.rows: list[dict[str, Any]] = [row for row in self._read() if _place(row) <= position]
        self._rewrite()
        self._board = _tensorboard(folder / "tensorboard", position)

    def add(self, row: Mapping[str, Any]) -> None:
        """Log one row; its keys are ``COLUMNS`` (others go to ``metrics.jsonl`` only) and ``stage_index``.

        Raises:
            FileAccessError: If the disk is full.
        """
        self.rows.append(dict(row))
        try:
            with open(self._jsonl, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(dict(row)) + "\n")
            with open(self._csv, "a", encoding="utf-8", newline="") as stream:
                csv.DictWriter(stream, COLUMNS, restval="", extrasaction="ignore").writerow(row)
        except OSError as err:
            raise file_error(err, self._csv, "write") from err
        if self._board is not None:
            for key in COLUMNS[2:]:
                if row.get(key) is not None:
                    self._board.add_scalar(f"{row['stage']}/{key}", row[key], row["step"])

    def close(self) -> None:
        """Flush TensorBoard; safe to call twice."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _read(self) -> list[dict[str, Any]]:
        if not self._jsonl.exists():
            return []
        rows = []
        for line in self._jsonl.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed run may be half written
                rows.append(json.loads(line))
        return rows

    def _rewrite(self) -> None:
        write_text(self._jsonl, "".join(json.dumps(row) + "\n" for row in self.rows))
        lines = [",".join(COLUMNS)]
        lines += [",".join(str(row.get(key, "")) for key in COLUMNS) for row in self.rows]
        write_text(self._csv, "\n".join(lines) + "\n")


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    return int(row.get("stage_index", 0)), int(row.get("step", 0))


def _tensorboard(folder: Path, position: tuple[int, int]) -> Any:
    if not available("tensorboard"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside its protobuf are not the user's matter
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder), purge_step=position[1] or None)
