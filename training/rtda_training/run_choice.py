"""Which folder a training writes to, whether it goes on with a run there, and what it must not destroy."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.overwriting import refuse_overwriting
from rtda_deploy.run_folders import new_run_folder
from rtda_training.plan import PlanConfig, load_plan, recipe_title
from rtda_training.readers import files_read
from rtda_training.run_folder import is_run, progress_in, resumed_plan, run_files, saved_plan

__all__ = [
    "Chosen",
    "choose_run",
    "is_first_process",
    "new_training_folder",
    "processes",
    "recipe_for",
    "refuse_losses",
]

_RECOMMENDED = "recommended"  # the recipe for two domains where none is named
_FEW_LABELS = "few-labels"  # and where some frames of the target are labelled
_RUNS = Path("runs/train")


class Chosen(NamedTuple):
    """What to train and where.

    Attributes:
        plan: What to do.
        folder: Where.
        resume: Whether it goes on with the run that the folder holds.
        note: What to tell about the choice; may be empty.
    """

    plan: PlanConfig
    folder: Path
    resume: bool
    note: str = ""


def recipe_for(labelled_target: str) -> str:
    """The recipe for two domains where none is named: without labels of the target, and with a few."""
    return _FEW_LABELS if labelled_target else _RECOMMENDED


def choose_run(
    recipe: str, overrides: Sequence[str], out: Path | None, resume: bool, force: bool, **typed: str
) -> Chosen:
    """The plan and the folder that were asked for; both of an earlier run where that is resumed.

    Args:
        recipe: Name or path; may be empty where a run is resumed, and where a source is given with labelled target
            frames (``few-labels``) or with a target alone (``recommended``).
        overrides: ``key=value`` texts.
        out: The folder; None: a new one, or that of the newest run of the recipe.
        resume: Go on with the run there.
        force: An earlier run there may be thrown away.
        typed: Fields of ``PlanConfig``; empty ones were not given.

    Raises:
        ConfigError: If there is neither a recipe nor a run, or both ``resume`` and ``force``.
        CheckpointError: If what was given contradicts the run.
    """
    if resume and force:
        raise ConfigError("--resume goes on with a run, --force throws it away", hint="take one of them")
    found = _run_to_resume(recipe, out) if resume else None
    if found is not None:
        plan = resumed_plan(found, recipe, overrides, **typed)
        return Chosen(plan, found, True, _without_checkpoint(found))
    chosen = ""
    if not recipe and not resume:
        if not (typed.get("source") and (typed.get("target") or typed.get("labelled_target"))):
            fix = f"--source DATA --target DATA takes {_RECOMMENDED}; rtda-deploy train --list shows the others"
            raise ConfigError("no recipe was named", hint=fix)
        recipe = recipe_for(typed.get("labelled_target", ""))
        chosen = f"no recipe was named: {recipe}"
    if not recipe:
        raise ConfigError(
            f"there is no run to resume in {out or _RUNS}",
            hint="name its folder with --out; or start one: rtda-deploy train --list shows the recipes",
        )
    plan = load_plan(recipe, overrides, **typed)
    folder = out or new_training_folder(plan.name)
    return Chosen(plan, folder, False, f"nothing to resume, starting anew in {folder}" if resume else chosen)


def _without_checkpoint(folder: Path) -> str:
    """What to tell where the run to resume has no ``last.pth``; refused where it has another checkpoint."""
    if (folder / "last.pth").is_file():
        return ""
    kept = progress_in(folder)
    if kept.endswith(".pth"):
        raise ConfigError(
            f"{folder} holds {kept} but no last.pth to go on with: starting again would write over it",
            hint=f"start from it: --init {shlex.quote(str(folder / kept))} --out ANOTHER",
        )
    return f"no checkpoint in {folder} yet: its own plan starts again, from step 0"


def _run_to_resume(recipe: str, out: Path | None) -> Path | None:
    """``out`` where it holds a run, else the newest run of the recipe (of any, where none was typed)."""
    if out is not None:
        return out if is_run(out) else None
    wanted = recipe_title(recipe)[0] if recipe else ""
    for folder in sorted(_RUNS.glob("*"), reverse=True):
        with contextlib.suppress(RtdaError):
            if is_run(folder) and (not wanted or saved_plan(folder).name == wanted):
                return folder
    return None


def refuse_losses(chosen: Chosen, recipe: str, force: bool) -> None:
    """Check that no finished run is lost, and that nothing the training reads is written over or removed.

    Raises:
        ConfigError: If something would be.
    """
    found = "" if chosen.resume or force else progress_in(chosen.folder)
    if found:
        raise ConfigError(
            f"{chosen.folder} holds a run ({found}), which a new one would overwrite",
            hint=f"go on with it: rtda-deploy train --resume auto --out {shlex.quote(str(chosen.folder))}"
            "   (or another --out; --force throws it away)",
        )
    plan = chosen.plan
    inputs: dict[str, str] = {recipe: "the recipe"} if recipe and not chosen.resume else {}
    for what, path in (("--init", plan.init), ("--backbone-weights", plan.backbone_weights)):
        if path:
            inputs[path] = what
    sets = (
        ("--source", plan.source),
        ("--target", plan.target),
        ("--labelled-target", plan.labelled_target),
        ("--val", plan.val),
        ("--check", plan.check),
    )
    for what, address in sets:
        inputs.update(dict.fromkeys(files_read(address), what))
    for stage in plan.stages:
        for key, component in stage.used().items():
            inputs.update((str(path), f"what {key} reads") for path in component.files_read(stage.settings[key]))
    refuse_overwriting([("the run" + " (--force)" * force, path) for path in run_files(chosen.folder)], inputs)


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that ``torchrun`` started: the one that writes and tells."""
    return processes() == 1 or os.environ.get("RANK", "0") == "0"


def new_training_folder(name: str) -> Path:
    """A new ``runs/train/<time>-<name>``.

    Raises:
        ConfigError: In one of several processes, because each would choose its own.
    """
    if processes() > 1:
        raise ConfigError(
            f"torchrun started {processes()} processes, and each would choose a run folder of its own",
            hint="name one for all of them: --out DIR",
        )
    return new_run_folder("train", name)


def processes() -> int:
    """How many processes ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
