"""The record of a run: ``results.csv`` for people, ``metrics.jsonl`` for programs, TensorBoard where installed."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.files import file_error, write_text
from rtda_deploy.optional import available
from rtda_training.loop.validate import picture_grid
from rtda_training.models import SegmentationNetwork
from rtda_training.plan import PlanConfig
from rtda_training.readers import LabelledSet, UnlabelledSet
from rtda_training.run_folder import read_rows

__all__ = ["COLUMNS", "CONFUSION", "RunLog"]

CONFUSION = "confusion.json"

COLUMNS = ("stage", "step", "learning_rate", "pictures_per_s", "val_miou", "val_pixel_accuracy")
_UNLISTED = ("stage_index", "eta_s", "val_iou", "target_shares")  # in metrics.jsonl only


class RunLog:
    """Appends rows; on resume, rows past the resumed step are dropped first, so that no step stands twice.

    Args:
        folder: Run folder.
        position: ``(stage index, step)`` that training resumes from; (0, 0) starts a new log.
    """

    def __init__(self, folder: Path, position: tuple[int, int] = (0, 0)) -> None:
        self._csv = folder / "results.csv"
        self._jsonl = folder / "metrics.jsonl"
        self.rows: list[dict[str, Any]] = [row for row in read_rows(folder) if _place(row) <= position]
        self._rewrite()
        self._board = _tensorboard(folder / "tensorboard", position)

    def add(self, row: Mapping[str, Any]) -> None:
        """Log one row. Numbers beyond ``COLUMNS`` get a column of their own, after the step, in order of appearance.

        Raises:
            FileAccessError: If the disk is full.
        """
        grown = self._columns_of([row]).keys() - set(self.columns)
        self.rows.append(dict(row))
        try:
            if grown:
                self._rewrite()
            else:
                with open(self._jsonl, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps(dict(row)) + "\n")
                with open(self._csv, "a", encoding="utf-8", newline="") as stream:
                    csv.DictWriter(stream, self.columns, restval="", extrasaction="ignore").writerow(row)
        except OSError as err:
            raise file_error(err, self._csv, "write") from err
        if self._board is not None:
            for key in self.columns[2:]:
                if row.get(key) is not None:
                    self._board.add_scalar(f"{row['stage']}/{key}", row[key], row["step"])

    def keep_confusion(self, row: Mapping[str, Any], data: LabelledSet, counts: np.ndarray) -> None:
        """Keep the last validation's confusion matrix in ``confusion.json``; rows are true classes."""
        values = {
            "stage": row["stage"],
            "step": row["step"],
            "data": str(data.address),
            "classes": list(data.classes.names),
            "counts": counts.tolist(),
        }
        write_text(self._csv.with_name(CONFUSION), json.dumps(values) + "\n")

    def show(
        self,
        row: Mapping[str, Any],
        network: SegmentationNetwork,
        pictures: UnlabelledSet,
        plan: PlanConfig,
        palette: Sequence[Sequence[int]],
    ) -> None:
        """Put a few pictures, always the same, and their masks on TensorBoard; nothing where it is not installed."""
        if self._board is None:
            return
        try:
            grid = picture_grid(network, pictures, plan.size_hw, plan.input, palette)
        except (DataError, FileAccessError):
            return  # a broken picture is the training's matter, which names it
        self._board.add_image(f"{row['stage']}/pictures", grid, row["step"], dataformats="HWC")

    def close(self) -> None:
        """Flush TensorBoard; safe to call twice."""
        if self._board is not None:
            self._board.close()
            self._board = None

    @staticmethod
    def _columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, None]:
        return dict.fromkeys(key for row in rows for key in row if key not in _UNLISTED)

    def _rewrite(self) -> None:
        write_text(self._jsonl, "".join(json.dumps(row) + "\n" for row in self.rows))
        own = [key for key in self._columns_of(self.rows) if key not in COLUMNS]
        self.columns = [*COLUMNS[:2], *own, *COLUMNS[2:]]
        lines = [",".join(self.columns)]
        lines += [",".join(str(row.get(key, "")) for key in self.columns) for row in self.rows]
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
