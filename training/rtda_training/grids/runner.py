"""Trains and scores every row of a grid, and writes its table after each.

A run is a folder below the grid's. ``scores.json`` there says that it is finished; it is never repeated. ``last.pth``
without it is resumed. A process holds the lock of the folder it works in and passes over those that others hold, so
that several processes may share a grid.
"""

from __future__ import annotations

import csv
import gc
import io
import json
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rtda_deploy.errors import ConfigError, RtdaError, TrainingError
from rtda_deploy.files import writable_folder, write_text
from rtda_deploy.run_folders import FolderBusyError, folder_lock, is_locked
from rtda_training.data.first_look import shared_pictures
from rtda_training.grids.grid import Grid, GridRun
from rtda_training.grids.places import Places
from rtda_training.grids.record import GridRecord
from rtda_training.grids.results import assemble
from rtda_training.grids.table import csv_table, failures, markdown_table, write_grid_page
from rtda_training.labels import class_list
from rtda_training.loop.events import Tell, TrainEvent, TrainResult
from rtda_training.plan import differing_keys
from rtda_training.readers import LabelledSet, Progress, open_labelled, open_unlabelled
from rtda_training.run import train_plan
from rtda_training.run_choice import new_training_folder, processes
from rtda_training.run_folder import is_run, read_record, read_rows
from rtda_training.taken_stages import take_stages

__all__ = ["Evaluated", "grid_folder", "raise_failures", "seconds_per_step", "train_grid", "unfinished"]

_SCORES, _ERROR = "scores.json", "error.json"
_OPEN = ("waiting", "started", "running")  # what a run may be that is neither done nor failed


class Evaluated(Protocol):
    """What scoring a checkpoint gives; ``rtda_export.evaluate`` gives one."""

    @property
    def confusion(self) -> np.ndarray:
        """int64 (C, C): rows are true classes, columns predicted ones."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready scores in percent: ``miou``, ``pixel_accuracy``, ``iou`` by class."""


def grid_folder(grid: Grid, resume: bool) -> Path:
    """A new ``runs/train/<time>-<grid>``, or where ``resume`` is set the newest of this grid."""
    earlier = sorted(path.parent for path in Path("runs/train").glob(f"*-{grid.name}*/results.json"))
    return earlier[-1] if resume and earlier else new_training_folder(grid.name)


def train_grid(
    grid: Grid,
    folder: Path,
    *,
    score: Callable[[Path, LabelledSet], Evaluated],
    train: Callable[[GridRun, Path, bool], TrainResult] | None = None,
    on_event: Tell | None = None,
) -> dict[str, Any]:
    """Train what is not trained yet, score it, and write the tables: ``results.json``, ``table.*``, ``report.html``.

    Args:
        grid: What to measure.
        folder: Of the grid; a run's folder lies below it.
        score: Gives the scores of a checkpoint on the grid's test set.
        train: Given a run, its folder and whether it is resumed there; None: :func:`rtda_training.run.train_plan`.
        on_event: Told of progress.

    Returns:
        The content of ``results.json``.

    Raises:
        ConfigError: If ``torchrun`` started several processes, or the folder holds something else.
        DataError: If a data set cannot be opened; then no folder is made.
    """
    if processes() > 1:
        raise ConfigError("a grid is trained by one process a row", hint="without torchrun; start it once per GPU")
    return _GridTraining(grid, folder, score, train, on_event or (lambda event: None)).run()


def unfinished(results: Mapping[str, Any]) -> list[str]:
    """Labels of the rows that another process works on, or that were stopped."""
    return [row["label"] for row in results["rows"] if any(e["status"] in _OPEN for e in row["seeds"].values())]


def raise_failures(results: Mapping[str, Any], folder: Path) -> None:
    """Raise if a run failed.

    Raises:
        TrainingError: Naming each error and its rows.
    """
    failed = failures(results)
    if failed:
        told = [f"{', '.join(names)}: {error}" for error, names in failed.items()]
        count = sum(len(row["seeds"]) for row in results["rows"])
        raise TrainingError(
            f"{sum(map(len, failed.values()))} of {count} runs failed: {'; '.join(told)}",
            hint=f"each has {_ERROR} in its folder; the same command with --out {folder} tries them again",
        )


class _GridTraining:
    """One process's work on a grid."""

    def __init__(
        self,
        grid: Grid,
        folder: Path,
        score: Callable[[Path, LabelledSet], Evaluated],
        train: Callable[[GridRun, Path, bool], TrainResult] | None,
        tell: Tell,
    ) -> None:
        self._grid = grid
        self._folder = folder
        self._runs = grid.runs()
        self._record = GridRecord(grid.record, Places(grid.path.parent)) if grid.record else None
        self._score = score
        self._train = train or (lambda run, place, resume: train_plan(run.plan, place, resume=resume, on_event=tell))
        self._tell = tell
        self._started = time.time()

    def run(self) -> dict[str, Any]:
        """Everything; the tables are written however it ends."""
        _refuse_other_plans(self._grid, self._runs, self._folder)
        self._announce()
        test = self._open_sets()  # before the folder is made: a wrong address leaves nothing
        writable_folder(self._folder)
        try:
            self._train_all(test)
        finally:
            results = self._write_results()
        return results

    def _announce(self) -> None:
        grid, rows, seeds = self._grid, len(self._grid.rows), len(self._grid.seeds)
        added = len(self._runs) // seeds - rows
        controls = f" and {added} control{'s' * (added > 1)} (control=false leaves them away)" if added else ""
        counted = f"{rows} row{'s' * (rows > 1)}{controls} x {seeds} seed{'s' * (seeds > 1)}"
        self._note(f"grid    {grid.name}: {counted} · {grid.source} -> {grid.target} · scored on {grid.test_address}")
        self._note(f"        {self._folder}/")

    def _open_sets(self) -> LabelledSet:
        """The test set; both domains are opened once before, so that a wrong address does not fail every row."""
        grid = self._grid
        classes = class_list(grid.classes) if grid.classes else None
        open_labelled(grid.source, classes=classes, progress=self._prepare(grid.source))
        open_unlabelled(grid.target, progress=self._prepare(grid.target))
        progress = self._prepare(f"{grid.test_address} (test)")
        test = open_labelled(grid.test_address, split="test", classes=classes, progress=progress)
        for text, split, what in (
            (grid.labelled_target, "train", "are learned from (labelled_target)"),
            (grid.check, "val", "choose among networks (check)"),
        ):
            shared = shared_pictures([open_unlabelled(text, split=split)], test) if text else 0
            if shared:
                told = f"{shared} of the {len(test)} pictures that are scored on {what}: scores on them say too much"
                self._tell(TrainEvent("warning", told))
        return test

    def _train_all(self, test: LabelledSet) -> None:
        """One run after the other; those that another process had are looked at again, in case it was stopped."""
        places = {run.folder: f"{place + 1}/{len(self._runs)}" for place, run in enumerate(self._runs)}
        left, told = list(self._runs), False
        while left:
            passed = []
            for run in left:
                title = f"{places[run.folder]}  {run.row.label}, seed {run.seed}"
                try:
                    with folder_lock(self._folder / run.folder):
                        self._one(run, test, title)
                except FolderBusyError:
                    passed.append(run)
                    if not told:
                        self._note(f"row     {title}: another process is at it")
                else:
                    self._write_results()
            if len(passed) == len(left):
                return
            left, told = passed, True

    def _one(self, run: GridRun, test: LabelledSet, title: str) -> None:
        """Train and score one run; an error is written down and told, and the grid goes on."""
        folder = self._folder / run.folder
        error = folder / _ERROR
        done = _json(folder / _SCORES)
        if done:
            if self._record is not None and not self._recorded(run):  # it was killed before it could write the row
                self._record.add(self._grid.name, run, done)
            self._note(f"row     {title}: done before")
            return
        if self._recorded(run):
            self._note(f"row     {title}: found in {self._grid.record}")
            return
        if error.is_file() and error.stat().st_mtime > self._started:
            self._note(f"row     {title}: failed in another process")
            return
        self._note(f"row     {title}")
        try:
            found = self._train_and_score(run, folder, test)
        except Exception as err:  # whatever breaks one row of a night's work must not end the others
            message = err.message if isinstance(err, RtdaError) else f"{type(err).__name__}: {err}"
            entry = {"error": message, "hint": getattr(err, "hint", ""), "traceback": traceback.format_exc()}
            write_text(error, json.dumps(entry, indent=2) + "\n")
            self._tell(TrainEvent("warning", f"{run.row.label}, seed {run.seed}, failed: {message}"))
            return
        finally:
            _free_memory()
        error.unlink(missing_ok=True)
        self._note(f"row     {title}: mIoU {found['miou']:.1f}")

    def _train_and_score(self, run: GridRun, folder: Path, test: LabelledSet) -> dict[str, Any]:
        self._take_stages(run, folder)
        result = self._train(run, folder, (folder / "last.pth").is_file())
        found = self._score(folder / "last.pth", test)
        scores = found.to_dict()
        values = {
            "format": "rtda.ablation-run/1",
            "row": run.row.label,
            "recipe": run.row.recipe,
            "seed": run.seed,
            "test": self._grid.test_address,
            "best_val_miou": round(100 * result.best_miou, 2),
            "best_at": result.best_at,
            "steps": [stage.steps for stage in run.plan.stages],
            "seconds_per_step": seconds_per_step(read_rows(folder), run.plan.batch_size),
            "scores": scores,
            "confusion": found.confusion.tolist(),
            "plan": run.plan.to_dict(),
            **self._ranked(result, scores, test),
        }
        write_text(folder / _SCORES, json.dumps(values) + "\n")
        if self._record is not None:
            self._record.add(self._grid.name, run, values)
        return scores

    def _take_stages(self, run: GridRun, folder: Path) -> None:
        """Begin a run of several stages with those that another row has trained."""
        if len(run.plan.stages) == 1 or (folder / "last.pth").is_file():
            return
        for other in self._runs:
            place = self._folder / other.folder
            if other is run or other.seed != run.seed or is_locked(place):
                continue
            taken = take_stages(run.plan, folder, place)
            if taken:
                names = ", ".join(stage.name for stage in run.plan.stages[:taken])
                self._note(f"        {names}: as trained for {other.row.label}")
                return

    def _ranked(self, result: TrainResult, last: Mapping[str, Any], test: LabelledSet) -> dict[str, Any]:
        """Which network ranked first without labels, and its scores; nothing of a run that ranks none."""
        if not result.ranking:
            return {}
        chosen = result.ranking["chosen"]
        best = last if chosen == "last" else self._score(result.folder / "best.pth", test).to_dict()
        return {"chosen": chosen, "best_scores": best}

    def _recorded(self, run: GridRun) -> dict[str, Any]:
        """What the grid's record says of a run; empty where it has none."""
        return self._record.find(run, self._grid.test_address) if self._record is not None else {}

    def _write_results(self) -> dict[str, Any]:
        folder = self._folder
        results = assemble(self._grid, self._runs, {run.folder: self._state(run) for run in self._runs})
        write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
        write_text(folder / "table.md", markdown_table(results))
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(csv_table(results))
        write_text(folder / "table.csv", stream.getvalue())
        write_grid_page(results, folder)
        return results

    def _state(self, run: GridRun) -> dict[str, Any]:
        found = _found(self._folder / run.folder)
        return found if "scores" in found else self._recorded(run) or found

    def _note(self, text: str) -> None:
        self._tell(TrainEvent("note", text))

    def _prepare(self, text: str) -> Progress:
        return lambda done, total: self._tell(TrainEvent("prepare", text, done, total))


def _refuse_other_plans(grid: Grid, runs: Sequence[GridRun], folder: Path) -> None:
    """A table whose rows were made with different settings compares nothing; one beside a run takes its page."""
    if is_run(folder):
        raise ConfigError(f"{folder} holds the run of one recipe, not of a grid", hint="choose another --out")
    for run in runs:
        found = _json(folder / run.folder / _SCORES)
        if not found:
            continue
        differ = differing_keys(found["plan"], run.plan) + ["test"] * (found["test"] != grid.test_address)
        if differ:
            raise ConfigError(
                f"{folder / run.folder} was made with another plan; these differ: {', '.join(differ)}",
                hint="use the same grid and flags, or another --out",
            )


def seconds_per_step(rows: Sequence[Mapping[str, Any]], batch_size: int) -> float | None:
    """Median over the log's rows of each stage, mean over all steps; without validation, checkpoints and start."""
    stages: dict[int, list[float]] = {}
    steps: dict[int, int] = {}
    for row in rows:
        index = int(row.get("stage_index", 0))
        steps[index] = max(steps.get(index, 0), int(row["step"]))
        if row.get("pictures_per_s"):
            stages.setdefault(index, []).append(batch_size / float(row["pictures_per_s"]))
    if not stages:
        return None
    total = sum(steps[index] for index in stages)
    return round(sum(statistics.median(values) * steps[index] for index, values in stages.items()) / total, 5)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _found(folder: Path) -> dict[str, Any]:
    """What is known of a run, as :func:`assemble` wants it."""
    scores = _json(folder / _SCORES)
    if scores:
        return scores
    if not folder.is_dir():
        return {}
    if is_locked(folder):
        return {"status": "running"}
    return _json(folder / _ERROR) or ({"status": "started"} if (folder / "last.pth").is_file() else {})


def _json(path: Path) -> dict[str, Any]:
    return read_record(path, "remove it, and the row is trained again")
