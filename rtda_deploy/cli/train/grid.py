"""``rtda-deploy train GRID.toml``: trains and scores every row of a grid, and writes its table after each.

A run is a folder below the grid's. ``scores.json`` there says that it is finished; it is never repeated. ``last.pth``
without it is gone on with. While a process works on a run it holds a lock on ``.lock``; others pass it over, so that
several may share a grid.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
import os
import shlex
import statistics
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence

from rtda_deploy.cli.terminal.signals import Terminated
from rtda_deploy.errors import ConfigError, DataError, RtdaError, TrainingError
from rtda_deploy.files import writable_folder, write_text
from rtda_deploy.folder_lock import FolderBusyError, folder_lock, is_locked

if TYPE_CHECKING:
    from rtda_export.parity.scoring import Evaluation
    from rtda_training.grids.grid import Grid, GridRun
    from rtda_training.readers import LabelledSet

__all__ = ["is_grid", "train_grid"]

_SCORES, _ERROR = "scores.json", "error.json"
_OPEN = ("waiting", "started", "running")  # what a run may be that is neither done nor failed


def is_grid(recipe: str) -> bool:
    """Whether what was typed after ``train`` is a grid."""
    from rtda_deploy.cli.train.progress import require_training

    require_training()
    from rtda_training.grids.grid import is_grid

    return is_grid(recipe)


def train_grid(
    recipe: str, overrides: Sequence[str], out: Optional[Path], resume: str, json_: bool, **fields: str
) -> None:
    """Train what is not trained yet, score it, print the table.

    Raises:
        TrainingError: If a row failed, after all others were tried.
    """
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, print_table, warn
    from rtda_training.grids.grid import load_grid
    from rtda_training.grids.table import failures, gain_lines, notes

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a grid is trained by one process a row", hint="without torchrun; start it once per GPU")
    grid = load_grid(recipe, overrides, **fields)
    runs = grid.runs()
    folder = out or _folder_of(grid, resume)
    _refuse_other_plans(grid, runs, folder)
    rows, seeds = len(grid.rows), len(grid.seeds)
    counted = f"{rows} row{'s' * (rows > 1)} x {seeds} seed{'s' * (seeds > 1)}"
    note(f"grid    {grid.name}: {counted} · {grid.source} -> {grid.target} · scored on {grid.test_address}")
    note(f"        {folder}/")
    started = time.time()
    test = _open_sets(grid)  # before the folder is made: a wrong address leaves nothing
    writable_folder(folder)
    try:
        _train_all(grid, runs, folder, test, started)
    except (KeyboardInterrupt, Terminated):
        print_next(f"rtda-deploy train {_typed_again(recipe, overrides, fields)} --out {shlex.quote(str(folder))}")
        raise
    finally:
        results = write_results(grid, runs, folder)
    if json_:
        print_json({**results, "folder": str(folder)})
    else:
        headers, lines = gain_lines(results)
        print_table(headers[:-1], [line[:-1] for line in lines], title=grid.name)
        for text in notes(results):
            print(text)
    note(f"wrote   {folder}/{{table.md,table.csv,results.json,report.html}}")
    unfinished = [row["label"] for row in results["rows"] if any(e["status"] in _OPEN for e in row["seeds"].values())]
    if unfinished:
        warn(f"not finished by another process yet: {', '.join(unfinished)}")
    failed = failures(results)
    if failed:
        told = [f"{', '.join(names)}: {error}" for error, names in failed.items()]
        raise TrainingError(
            f"{sum(map(len, failed.values()))} of {len(runs)} runs failed: {'; '.join(told)}",
            hint=f"each has {_ERROR} in its folder; the same command with --out {folder} tries them again",
        )


def _typed_again(recipe: str, overrides: Sequence[str], fields: Mapping[str, str]) -> str:
    """What was typed after ``train``, but for the folder."""
    flags = [word for key, value in fields.items() if value for word in (f"--{key.replace('_', '-')}", value)]
    return " ".join(shlex.quote(word) for word in [recipe, *flags, *(w for text in overrides for w in ("--set", text))])


def _train_all(grid: Grid, runs: Sequence[GridRun], folder: Path, test: LabelledSet, started: float) -> None:
    """One run after the other; those that another process had are looked at again, in case it was stopped."""
    from rtda_deploy.cli.terminal.console import note

    places = {run.folder: f"{place + 1}/{len(runs)}" for place, run in enumerate(runs)}
    left, told = list(runs), False
    while left:
        passed = []
        for run in left:
            title = f"{places[run.folder]}  {run.row.label}, seed {run.seed}"
            with _locked(folder / run.folder) as mine:
                if mine:
                    _one(run, folder / run.folder, grid.test_address, test, title, started)
            if mine:
                write_results(grid, runs, folder)
                continue
            passed.append(run)
            if not told:
                note(f"row     {title}: another process is at it")
        if len(passed) == len(left):
            return
        left, told = passed, True


def write_results(grid: Grid, runs: Sequence[GridRun], folder: Path) -> Dict[str, Any]:
    """Write ``results.json``, ``table.md``, ``table.csv`` and ``report.html`` of what there is; gives the first."""
    from rtda_training.grids.results import assemble
    from rtda_training.grids.table import csv_table, markdown_table

    results = assemble(grid, runs, {run.folder: _found(folder / run.folder) for run in runs})
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(folder / "table.md", markdown_table(results))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(csv_table(results))
    write_text(folder / "table.csv", stream.getvalue())
    _write_page(results, folder)
    return results


def _folder_of(grid: Grid, resume: str) -> Path:
    from rtda_deploy.cli.train.progress import run_folder

    earlier = sorted(path.parent for path in Path("runs/train").glob(f"*-{grid.name}*/results.json"))
    return earlier[-1] if resume and earlier else run_folder("train", grid.name)


def _open_sets(grid: Grid) -> LabelledSet:
    """The test set; both domains are opened once before, so that a wrong address does not fail every row."""
    from rtda_deploy.cli.terminal.console import ProgressLines
    from rtda_training.labels import class_list
    from rtda_training.readers import open_labelled, open_unlabelled

    classes = class_list(grid.classes) if grid.classes else None
    with ProgressLines() as lines:
        open_labelled(grid.source, classes=classes, progress=lambda d, t: lines.update(f"prepare {grid.source}", d, t))
        open_unlabelled(grid.target, progress=lambda d, t: lines.update(f"prepare {grid.target}", d, t))
        name = f"prepare {grid.test_address} (test)"
        return open_labelled(
            grid.test_address, split="test", classes=classes, progress=lambda d, t: lines.update(name, d, t)
        )


def _refuse_other_plans(grid: Grid, runs: Sequence[GridRun], folder: Path) -> None:
    """A table whose rows were made with different settings compares nothing; one beside a run takes its page."""
    from rtda_training.run_folder import is_run

    if is_run(folder):
        raise ConfigError(f"{folder} holds the run of one recipe, not of a grid", hint="choose another --out")
    for run in runs:
        found = _json(folder / run.folder / _SCORES)
        if not found:
            continue
        theirs = {**found["plan"], "test": found["test"]}
        ours = {**run.plan.to_dict(), "test": grid.test_address}
        differ = sorted(key for key in ours if theirs.get(key) != ours[key])
        if differ:
            raise ConfigError(
                f"{folder / run.folder} was made with another plan; these differ: {', '.join(differ)}",
                hint="use the same grid and flags, or another --out",
            )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process may work in the folder; the lock ends with the process, however that ends."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(folder))
        except FolderBusyError:
            yield False
            return
        yield True


def _one(run: GridRun, folder: Path, address: str, test: LabelledSet, title: str, started: float) -> None:
    """Train and score one run; an error is written down and told, and the grid goes on."""
    from rtda_deploy.cli.terminal.console import note, warn

    error = folder / _ERROR
    if (folder / _SCORES).is_file():
        note(f"row     {title}: done before")
        return
    if error.is_file() and error.stat().st_mtime > started:
        note(f"row     {title}: failed in another process")
        return
    note(f"row     {title}")
    try:
        found = _train_and_score(run, folder, address, test)
    except Exception as err:  # whatever breaks one row of a night's work must not end the others
        message = err.message if isinstance(err, RtdaError) else f"{type(err).__name__}: {err}"
        entry = {"error": message, "hint": getattr(err, "hint", ""), "traceback": traceback.format_exc()}
        write_text(error, json.dumps(entry, indent=2) + "\n")
        warn(f"{run.row.label}, seed {run.seed}, failed: {message}")
        return
    finally:
        _free_memory()
    error.unlink(missing_ok=True)
    note(f"row     {title}: mIoU {100 * found.scores.miou():.1f}")


def _train_and_score(run: GridRun, folder: Path, address: str, test: LabelledSet) -> Evaluation:
    from rtda_deploy.cli.terminal.console import ProgressLines
    from rtda_deploy.cli.train.progress import run_plan
    from rtda_export.parity.scoring import evaluate
    from rtda_training.loop.runlog import read_rows

    result = run_plan(run.plan, folder, resume=(folder / "last.pth").is_file())
    with ProgressLines() as lines:
        found = evaluate(folder / "last.pth", test, progress=lambda done, total: lines.update("eval", done, total))
    rows = read_rows(folder)
    values = {
        "format": "rtda.ablation-run/1",
        "row": run.row.label,
        "recipe": run.row.recipe,
        "seed": run.seed,
        "test": address,
        "best_val_miou": round(100 * result.best_miou, 2),
        "best_at": result.best_at,
        "steps": [stage.steps for stage in run.plan.stages],
        "seconds_per_step": _seconds_per_step(rows, run.plan.batch_size),
        "scores": found.to_dict(),
        "confusion": found.confusion.tolist(),
        "plan": run.plan.to_dict(),
    }
    write_text(folder / _SCORES, json.dumps(values) + "\n")
    return found


def _seconds_per_step(rows: Sequence[Mapping[str, Any]], batch_size: int) -> Optional[float]:
    """Median over the log's rows of each stage, mean over all steps; without validation, checkpoints and start."""
    stages: Dict[int, List[float]] = {}
    steps: Dict[int, int] = {}
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


def _found(folder: Path) -> Dict[str, Any]:
    scores = _json(folder / _SCORES)
    if scores:
        return scores
    if not folder.is_dir():
        return {}
    if is_locked(folder):
        return {"status": "running"}
    return _json(folder / _ERROR) or ({"status": "started"} if (folder / "last.pth").is_file() else {})


def _json(path: Path) -> Dict[str, Any]:
    if not path.is_file():
        return {}
    from rtda_deploy.border import json_values

    hint = f"take it away, and the row is trained again: rm {shlex.quote(str(path))}"
    found: Dict[str, Any] = json_values(path.read_bytes(), str(path), DataError, hint=hint, allow_nan=True)
    return found


def _write_page(results: Mapping[str, Any], folder: Path) -> None:
    from rtda_deploy.report import ReportPage
    from rtda_training.grids.table import gain_lines, heat_lines, notes, shown_mious

    page = ReportPage(f"Ablation: {results['name']}", f"{results['source']} -> {results['target']}")
    if results["description"]:
        page.text(results["description"])
    key, heading = shown_mious(results)[0]
    known = [row for row in results["rows"] if row.get(key, {}).get("mean") is not None]
    if known:
        page.bars(
            [row["label"] for row in known],
            [row[key]["mean"] for row in known],
            unit="%",
            caption=f"{heading} on {results['scored_on']}, mean over seeds",
        )
    page.heading("Gain and cost")
    page.table(*gain_lines(results))
    page.heading("IoU per class")
    columns, names, values = heat_lines(results)
    page.matrix(names, values, columns, normalise=False, caption="Percent, means over seeds; below, as printed.")
    page.heading("Notes")
    for text in notes(results):
        page.text(text)
    page.data(results)
    page.save(folder / "report.html")
