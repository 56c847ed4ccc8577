"""``rtda-deploy train GRID.toml``."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Optional, Sequence

from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_next, print_table, warn
from rtda_deploy.cli.terminal.signals import Terminated
from rtda_deploy.cli.train.progress import training_on_screen

if TYPE_CHECKING:
    from rtda_export.parity.scoring import Evaluation
    from rtda_training.grids.grid import GridRun
    from rtda_training.loop.events import TrainEvent, TrainResult
    from rtda_training.readers import LabelledSet

__all__ = ["train_rows"]


def train_rows(
    recipe: str, overrides: Sequence[str], out: Optional[Path], resume: bool, json_: bool, **fields: str
) -> None:
    """Train and score what is not trained yet, and print the table.

    Raises:
        TrainingError: If a row failed, after all others were tried.
    """
    from rtda_training.grids.grid import load_grid
    from rtda_training.grids.runner import grid_folder, raise_failures, train_grid, unfinished
    from rtda_training.grids.table import gain_lines, notes

    grid = load_grid(recipe, overrides, **fields)
    folder = out or grid_folder(grid, resume)
    try:
        with _Screen() as screen:
            results = train_grid(grid, folder, score=_score, train=_train, on_event=screen.show)
    except (KeyboardInterrupt, Terminated):
        print_next(f"rtda-deploy train {_typed_again(recipe, overrides, fields)} --out {shlex.quote(str(folder))}")
        raise
    if json_:
        print_json({**results, "folder": str(folder)})
    else:
        headers, lines = gain_lines(results)
        print_table(headers[:-1], [line[:-1] for line in lines], title=grid.name)
        for text in notes(results):
            print(text)
    note(f"wrote   {folder}/{{table.md,table.csv,results.json,report.html}}")
    if unfinished(results):
        warn(f"not finished by another process yet: {', '.join(unfinished(results))}")
    raise_failures(results, folder)


class _Screen(contextlib.ExitStack):
    """Lines about the grid; bars only while sets are opened, because each training draws its own."""

    _bars: Optional[ProgressLines] = None

    def show(self, event: TrainEvent) -> None:
        if event.kind == "prepare":
            self._bars = self._bars or self.enter_context(ProgressLines())
            self._bars.update(f"prepare {event.stage}", event.step, event.total)
            return
        self.close()
        self._bars = None
        (warn if event.kind == "warning" else note)(event.stage)


def _train(run: GridRun, folder: Path, resume: bool) -> TrainResult:
    from rtda_deploy.cli.candidates import open_candidate
    from rtda_training.run import train_plan

    with training_on_screen() as (on_event, stop):  # bars of its own
        return train_plan(run.plan, folder, resume=resume, on_event=on_event, stop=stop, open_model=open_candidate)


def _score(checkpoint: Path, test: LabelledSet) -> Evaluation:
    from rtda_export.parity.scoring import evaluate

    with ProgressLines() as lines:
        return evaluate(checkpoint, test, progress=lambda done, total: lines.update("eval", done, total))


def _typed_again(recipe: str, overrides: Sequence[str], fields: Mapping[str, str]) -> str:
    """What was typed after ``train``, but for the folder."""
    flags = [word for key, value in fields.items() if value for word in (f"--{key.replace('_', '-')}", value)]
    return " ".join(shlex.quote(word) for word in [recipe, *flags, *(w for text in overrides for w in ("--set", text))])
