"""Which folder a training writes to, what of it may be there already, and who else may not write there meanwhile."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import ConfigError
from rtda_deploy.folder_lock import folder_lock
from rtda_deploy.overwriting import refuse_overwriting

if TYPE_CHECKING:
    from rtda_training.plan import PlanConfig

__all__ = ["Training", "chosen_training", "refuse_finished", "refuse_reading_and_writing", "working_in"]

_RUNS = Path("runs/train")


class Training(NamedTuple):
    """What to train and where; ``resume``: as the run that the folder holds."""

    plan: PlanConfig
    folder: Path
    resume: bool


def chosen_training(
    recipe: str, overrides: Sequence[str], out: Optional[Path], resume: bool, force: bool, **typed: str
) -> Training:
    """What was asked for, from the folder's own plan where it is resumed.

    Raises:
        ConfigError: If there is neither a recipe nor a run, or both ``--resume`` and ``--force``.
        CheckpointError: If what was typed contradicts the run.
    """
    from rtda_deploy.cli.terminal.console import note
    from rtda_deploy.cli.train.progress import is_first_process, load_plan_here, run_folder
    from rtda_training.run_folder import progress_in, resumed_plan

    if resume and force:
        raise ConfigError("--resume goes on with a run, --force throws it away", hint="take one of them")
    found = _run_to_resume(recipe, out) if resume else None
    if found is not None:
        plan = resumed_plan(found, recipe, overrides, **typed)
        kept = progress_in(found)
        if kept.endswith(".pth") and not (found / "last.pth").is_file():
            raise ConfigError(
                f"{found} holds {kept} but no last.pth to go on with: starting again would write over it",
                hint=f"start from it: --init {shlex.quote(str(found / kept))} --out ANOTHER",
            )
        if not (found / "last.pth").is_file() and is_first_process():
            note(f"no checkpoint in {found} yet: its own plan starts again, from step 0")
        return Training(plan, found, True)
    if not recipe:
        raise ConfigError(
            f"there is no run to resume in {out or _RUNS}",
            hint="name its folder with --out; or start one: rtda-deploy train --list shows the recipes",
        )
    plan = load_plan_here(recipe, overrides, **typed)
    folder = out or run_folder("train", plan.name)
    if resume and is_first_process():
        note(f"nothing to resume, starting anew in {folder}")
    return Training(plan, folder, False)


def _run_to_resume(recipe: str, out: Optional[Path]) -> Optional[Path]:
    """``out`` where it holds a run, else the newest run of the recipe (of any, where none was typed)."""
    from rtda_deploy.errors import RtdaError
    from rtda_training.plan import recipe_title
    from rtda_training.run_folder import is_run, saved_plan

    if out is not None:
        return out if is_run(out) else None
    wanted = recipe_title(recipe)[0] if recipe else ""
    for folder in sorted(_RUNS.glob("*"), reverse=True):
        with contextlib.suppress(RtdaError):
            if is_run(folder) and (not wanted or saved_plan(folder).name == wanted):
                return folder
    return None


def refuse_finished(folder: Path) -> None:
    """Check that no run is lost by writing into the folder.

    Raises:
        ConfigError: If one would be; it says how to go on with it.
    """
    from rtda_training.run_folder import progress_in

    found = progress_in(folder)
    if found:
        raise ConfigError(
            f"{folder} holds a run ({found}), which a new one would overwrite",
            hint=f"go on with it: rtda-deploy train --resume auto --out {shlex.quote(str(folder))}"
            "   (or another --out; --force throws it away)",
        )


def refuse_reading_and_writing(training: Training, recipe: str, force: bool) -> None:
    """Check that nothing the training reads is a file that it writes, or takes away.

    Raises:
        ConfigError: If something is.
    """
    from rtda_deploy.cli.outputs import data_inputs
    from rtda_training.run_folder import run_files

    plan = training.plan
    inputs: Dict[str, str] = {recipe: "the recipe"} if recipe and not training.resume else {}
    for what, path in (("--init", plan.init), ("--backbone-weights", plan.backbone_weights)):
        if path:
            inputs[path] = what
    for what, address in (("--source", plan.source), ("--target", plan.target), ("--val", plan.val)):
        inputs.update(dict.fromkeys(data_inputs(address), what))
    refuse_overwriting([("the run" + " (--force)" * force, path) for path in run_files(training.folder)], inputs)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; where nothing was written in it in the end, it goes again.

    Raises:
        FolderBusyError: If another process writes there.
    """
    made = _missing(folder)
    try:
        with folder_lock(folder):
            yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it holds something
                path.rmdir()


def _missing(folder: Path) -> Tuple[Path, ...]:
    """The folder and those above it that are not there yet, the deepest first."""
    return tuple(path for path in (folder, *folder.parents) if not path.exists())
