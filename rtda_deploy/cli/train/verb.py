"""``rtda-deploy train``."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional

import typer

from rtda_deploy.cli.terminal.signals import Terminated, stops_in_order

if TYPE_CHECKING:
    from rtda_deploy.cli.train.folder import Training
    from rtda_training.trainer import TrainResult

__all__ = ["train"]


@stops_in_order()
def train(
    recipe: str = typer.Argument(
        "", help="A recipe (training/recipes) or a grid of recipes (ablations/toytown): a name or a TOML file."
    ),
    source: str = typer.Option("", help="Labelled domain, kind:path?key=value."),
    target: str = typer.Option("", help="Unlabelled domain, kind:path?key=value."),
    val: str = typer.Option("", help="Labelled set that best.pth is chosen on (default: the source's val split)."),
    set_: Optional[List[str]] = typer.Option(None, "--set", help="Change a setting: key=value. May be repeated."),
    init: str = typer.Option("", help="Checkpoint to start from."),
    backbone_weights: str = typer.Option("", help="ImageNet file for the backbone (.pth or .safetensors)."),
    out: Optional[Path] = typer.Option(None, help="Run folder (default: runs/train/<time>-<recipe>)."),
    resume: str = typer.Option(
        "", help="'auto': go on with the run in --out, or the newest of this recipe, with its own settings."
    ),
    force: bool = typer.Option(False, "--force", help="Throw an earlier run in --out away."),
    list_: bool = typer.Option(False, "--list", help="Name the recipes, with a sentence each."),
    json_: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Train a network, or adapt one to a domain without labels.

    Ctrl-C saves what was done; rtda-deploy train --resume auto --out DIR goes on.

    Example: rtda-deploy train fda-light --set steps=500
    """
    from rtda_deploy.cli.terminal.console import note
    from rtda_deploy.cli.train.progress import is_first_process
    from rtda_deploy.errors import ConfigError

    if list_:
        from rtda_deploy.cli.train.recipes import list_recipes

        list_recipes(json_=json_)
        return
    if resume not in ("", "auto"):
        raise ConfigError(f"--resume {resume} is unknown", hint="--resume auto, with --out DIR for a certain run")
    if not (recipe or resume):
        raise ConfigError(
            "no recipe was named", hint="rtda-deploy train --list shows them   (source-only is the plainest)"
        )
    if is_first_process():
        note(f"train   {recipe or 'the run in ' + str(out or 'runs/train')}: loading torch, looking at the data")
    typed = {"source": source, "target": target, "val": val, "init": init, "backbone_weights": backbone_weights}
    from rtda_deploy.cli.train.grid import is_grid, train_grid

    if recipe and is_grid(recipe):
        if force:
            raise ConfigError("--force is for one run; a grid never repeats a finished row", hint="another --out")
        train_grid(recipe, set_ or [], out, resume, json_, **typed)
        return
    from rtda_deploy.cli.train.folder import chosen_training

    training = chosen_training(recipe, set_ or [], out, bool(resume), force, **typed)
    result = _trained(training, recipe, force)
    if is_first_process():
        _tell(training.folder, result, json_)


def _trained(training: Training, recipe: str, force: bool) -> TrainResult:
    """Train in the folder that only this process may write to; how to go on is said wherever it is broken off."""
    from rtda_deploy.cli.terminal.console import print_next
    from rtda_deploy.cli.train.folder import refuse_finished, refuse_reading_and_writing, working_in
    from rtda_deploy.cli.train.progress import is_first_process, require_training, run_plan

    require_training()
    from rtda_training.run_folder import is_run

    plan, folder, resume = training
    first = is_first_process()
    try:
        with working_in(folder) if first else contextlib.nullcontext():
            if first:
                if not (resume or force):
                    refuse_finished(folder)
                refuse_reading_and_writing(training, recipe, force)
            return run_plan(plan, folder, resume=resume, clear=not resume and is_run(folder))
    except (KeyboardInterrupt, Terminated):
        if first and is_run(folder):
            print_next(f"rtda-deploy train --resume auto --out {shlex.quote(str(folder))}")
        raise


def _tell(folder: Path, result: TrainResult, json_: bool) -> None:
    from rtda_deploy.cli.terminal.console import note, print_json, print_next

    if json_:
        values: Dict[str, object] = {
            "folder": str(result.folder),
            "best_miou": round(100 * result.best_miou, 2),
            "best_at": result.best_at,
            "last_miou": round(100 * result.last_miou, 2),
            "seconds": round(result.seconds, 1),
        }
        print_json(values)
    else:
        print(folder / "last.pth")
    note(f"done    in {result.seconds:.0f} s · best val mIoU {100 * result.best_miou:.1f} ({result.best_at})")
    note(f"wrote   {folder}/{{last.pth,best.pth,config.toml,results.csv,report.html}}")
    print_next(f"rtda-deploy export {shlex.quote(str(folder / 'last.pth'))}")
