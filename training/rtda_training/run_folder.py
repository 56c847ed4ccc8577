"""The folder of a run: what a training writes there, whether one is there, its plan, and the rows of its log."""

from __future__ import annotations

import contextlib
import json
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtda_deploy import __version__
from rtda_deploy.border import json_values
from rtda_deploy.errors import CheckpointError, ConfigError, DataError, RtdaError
from rtda_deploy.files import file_error, write_text
from rtda_training.plan import PlanConfig, changed_plan, load_plan, plan_from_table, recipe_title
from rtda_training.toml_file import toml_text

__all__ = [
    "CONFIG",
    "RANKING",
    "clear_run",
    "copy_run",
    "git_hash",
    "is_run",
    "is_trained",
    "loss_keys",
    "progress_in",
    "read_record",
    "read_rows",
    "resumed_plan",
    "run_files",
    "save_config",
    "saved_plan",
]

CONFIG, RANKING = "config.toml", "ranking.json"
_CHECKPOINTS = ("last.pth", "best.pth", "stage-*.pth", "translator-*.pth", "candidate-*.pth")
_RECORDS = ("results.csv", "metrics.jsonl", "confusion.json", RANKING, "adapt.json")
_FILES = (*_CHECKPOINTS, CONFIG, *_RECORDS, "report.html", "MODEL_CARD.md", "verify/[0-9].png")
_FOLDERS = ("stages", "tensorboard")
_SHOWN = 3  # differences that are told
_EVERY_ROW = ("stage", "stage_index", "step", "learning_rate", "pictures_per_s", "eta_s", "target_shares")


def is_run(folder: Path) -> bool:
    """Whether a training was started in the folder."""
    return (folder / CONFIG).is_file() or (folder / "last.pth").is_file()


def progress_in(folder: Path) -> str:
    """What a training in the folder has come to, for people; empty where there is nothing that could be lost."""
    found = [path.name for pattern in _CHECKPOINTS for path in sorted(folder.glob(pattern))]
    if found and not (found == ["last.pth"] and _at_its_start(folder / "last.pth")):
        return found[0]
    rows = [row for row in read_rows(folder) if row.get("step")]
    return f"a log of {len(rows)} rows" if rows else ""


def _at_its_start(path: Path) -> bool:
    """Whether the checkpoint was written before the first step."""
    from rtda_training.checkpoint import read_checkpoint

    with contextlib.suppress(RtdaError):  # what cannot be read may be worth something
        state = read_checkpoint(path).training
        return state.get("stage_index") == state.get("step") == 0
    return False


def run_files(folder: Path) -> Iterator[Path]:
    """Every file there that a training writes, or writes anew."""
    for pattern in _FILES:
        yield from folder.glob(pattern)
    for name in _FOLDERS:
        yield from (path for path in (folder / name).rglob("*") if path.is_file())


def clear_run(folder: Path) -> None:
    """Take the run in a folder away, so that nothing of it is mixed with the next one; other files stay.

    Raises:
        FileAccessError: If a file cannot be removed.
    """
    try:
        for pattern in _FILES:
            for path in folder.glob(pattern):
                path.unlink()
        for name in _FOLDERS:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
    except OSError as err:
        raise file_error(err, err.filename or folder, "remove") from err


def copy_run(folder: Path, target: Path) -> None:
    """Copy the checkpoints, tables and pictures of a run, but not its logs, to another folder.

    Raises:
        FileAccessError: If a file cannot be read or written.
    """
    try:
        for pattern in _FILES:
            for path in folder.glob(pattern):
                copied = target / path.relative_to(folder)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copied)
    except OSError as err:
        raise file_error(err, err.filename or target, "copy") from err


def is_trained(folder: Path, plan: PlanConfig) -> bool | None:
    """Whether the run in a folder made the last step of its plan; None: it is of another plan, or of other versions.

    A trained run from which the checkpoint of a stage before the last is missing counts as another.
    """
    import torch

    from rtda_training.checkpoint import read_checkpoint
    from rtda_training.loop.saving import stage_file

    try:
        found = read_checkpoint(folder / "last.pth")
    except RtdaError:
        return None
    state, versions = found.training, {"rtda-deploy": __version__, "torch": torch.__version__}
    if state.get("plan") != plan.to_dict() or found.spec.provenance.get("versions") != versions:
        return None
    trained = bool(state["done"]) and state["stage_index"] == len(plan.stages) - 1
    whole = all(stage_file(folder, stage.name).is_file() for stage in plan.stages[:-1])
    return None if trained and not whole else trained


def save_config(plan: PlanConfig, folder: Path) -> None:
    """Write ``config.toml``: the resolved plan, with the versions and the git commit it is started with.

    Raises:
        FileAccessError: If it cannot be written.
    """
    head = [
        f"# {' '.join(plan.description.split())}" if plan.description else "# A resolved plan.",
        f"# rtda-deploy {__version__}, Python {platform.python_version()}, git {git_hash()}",
        "# Run it again: rtda-deploy train config.toml",
    ]
    write_text(folder / CONFIG, "\n".join(head) + "\n" + toml_text(plan.to_dict()))


def git_hash() -> str:
    """The commit of the working directory's repository; ``none`` outside of one."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return done.stdout.strip() or "none"


def saved_plan(folder: Path) -> PlanConfig:
    """The plan of the run in a folder: of its ``config.toml``, else of ``last.pth``.

    Raises:
        CheckpointError: If there is neither, or what is there is no plan.
    """
    from rtda_training.checkpoint import read_checkpoint

    config = folder / CONFIG
    if config.is_file():
        try:
            return load_plan(str(config))
        except RtdaError as err:
            raise CheckpointError(
                f"the plan of the run in {folder} cannot be read",
                why=err.message,
                hint=f"mend {config}, or remove it where last.pth is there: it holds the plan too",
            ) from err
    state = read_checkpoint(folder / "last.pth").training
    if not isinstance(state.get("plan"), Mapping):
        raise CheckpointError(
            f"{folder / 'last.pth'} holds no training to go on with",
            hint=f"start a new one from its weights: --init {folder / 'last.pth'} --out ANOTHER",
        )
    return plan_from_table(state["plan"])


def resumed_plan(folder: Path, recipe: str = "", overrides: Sequence[str] = (), **fields: str) -> PlanConfig:
    """The plan to go on with in a folder: its own. What was typed beside must say the same.

    Args:
        folder: Of a run.
        recipe: Typed name or path; empty: none was.
        overrides: ``key=value`` texts as typed after ``--set``.
        fields: Fields of ``PlanConfig`` typed as flags; empty ones were not.

    Raises:
        CheckpointError: If it says something else, naming both values.
    """
    plan = saved_plan(folder)
    told = [
        f"recipe {name}, not {plan.name}" for name in ([recipe_title(recipe)[0]] if recipe else []) if name != plan.name
    ]
    try:
        typed = changed_plan(plan, overrides, **fields)
    except ConfigError as err:
        raise ConfigError(err.message, why=f"with the settings of the run in {folder}", hint=err.hint) from err
    theirs, ours = _flat(plan.to_dict()), _flat(typed.to_dict())
    told += [f"{key} {ours.get(key)}, not {theirs.get(key)}" for key in ours if ours[key] != theirs.get(key)]
    if told:
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise CheckpointError(
            f"the run in {folder} was started with another plan than was typed: {'; '.join(told[:_SHOWN])}{more}",
            hint=f"leave these away, the run's own are read from {folder / CONFIG}; or take another --out",
        )
    return plan


def _flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested tables and lists of tables as dotted keys; stages by their names."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                found.update(_flat(entry, f"{prefix}{entry['name']}."))
        else:
            found[prefix + key] = json.dumps(value, ensure_ascii=False)
    return found


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that a run in ``folder`` has logged; none where there is no log."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, RecursionError):  # the last line of a killed run may be half written
            rows.append(json.loads(line))
    return rows


def read_record(path: Path, hint: str) -> dict[str, Any]:
    """The values of a JSON file that a run left; none where it is not there.

    Raises:
        DataError: If it is no JSON, with ``hint`` and the command that removes it.
    """
    if not path.is_file():
        return {}
    fix = f"{hint}: rm {shlex.quote(str(path))}"
    return json_values(path.read_bytes(), str(path), DataError, hint=fix, allow_nan=True) or {}


def loss_keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The numbers that the method itself logs, in the order it does: whatever not every training logs."""
    found = dict.fromkeys(key for row in rows for key in row if key not in _EVERY_ROW and not key.startswith("val_"))
    return list(found)
