"""Stages that another run trained already are taken over instead of being trained again.

A method and its control, or two methods that start from one source-only stage, share their first stages to the bit: a
stage draws from ``(seed, its place in the plan)`` alone. What the later stages do does not reach back.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtda_deploy import __version__
from rtda_deploy.errors import RtdaError
from rtda_deploy.files import file_error, writable_folder, write_text
from rtda_training.plan import PlanConfig
from rtda_training.plan.loading import plan_from_table
from rtda_training.run_folder import read_rows

__all__ = ["same_stages", "take_stages"]

_NAMES = ("name", "description", "stages")  # keys of a plan that do not say how a stage is trained
_METRICS = "metrics.jsonl"


def same_stages(plan: PlanConfig, other: PlanConfig) -> int:
    """How many of the first stages of both plans train the same network, to the bit on a CPU."""
    ours, theirs = plan.to_dict(), other.to_dict()
    if any(ours[key] != theirs.get(key) for key in ours if key not in _NAMES):
        return 0
    count = 0
    for one, two in zip(ours["stages"], theirs["stages"], strict=False):
        if one != two:
            break
        count += 1
    return count


def take_stages(plan: PlanConfig, folder: Path, other: Path) -> int:
    """Begin a run with the first stages of another one, where they are the same and finished.

    Args:
        plan: Of the new run; its last stage is never taken.
        folder: The new run's; gets the stages' checkpoints, their log, and a ``last.pth`` that training goes on from.
        other: Folder of the other run.

    Returns:
        How many stages were taken; 0: none, and nothing was written. That is so where ``folder`` has a ``last.pth``,
        where the other run is of other versions, and where the best validation of the shared stages was in the midst
        of one, because no checkpoint of that moment is there.

    Raises:
        FileAccessError: If a file cannot be written.
    """
    import torch

    from rtda_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
    from rtda_training.loop.saving import candidate_files, stage_file

    if (folder / "last.pth").is_file() or not (other / "last.pth").is_file():
        return 0
    try:
        found = read_checkpoint(other / "last.pth")
        theirs = plan_from_table(found.training.get("plan", {}))
    except RtdaError:
        return 0
    if found.spec.provenance.get("versions") != {"rtda-deploy": __version__, "torch": torch.__version__}:
        return 0
    count = min(same_stages(plan, theirs), len(plan.stages) - 1)
    names = [stage.name for stage in plan.stages[:count]]
    if not count or not all(stage_file(other, name).is_file() for name in names):
        return 0
    rows = [row for row in read_rows(other) if int(row.get("stage_index", 0)) < count]
    best = _best(plan, rows)
    if best is None:
        return 0
    last = read_checkpoint(stage_file(other, names[-1]))
    state = {
        "plan": plan.to_dict(),
        "stage_index": count - 1,
        "step": plan.stages[count - 1].steps,
        "done": True,
        "best": {key: best[key] for key in ("miou", "at")},
        "last_miou": _last_miou(rows),
        "run": {},
        "torch_rng": torch.get_rng_state(),
    }
    writable_folder(folder)
    write_text(folder / _METRICS, "".join(json.dumps(row) + "\n" for row in rows))
    try:
        for name in names:
            shutil.copy2(stage_file(other, name), stage_file(folder, name))
            for path in candidate_files(other, name):
                shutil.copy2(path, folder / path.name)
        if best["stage"]:
            shutil.copy2(stage_file(other, best["stage"]), folder / "best.pth")
    except OSError as err:
        raise file_error(err, err.filename or folder, "copy") from err
    write_checkpoint(folder / "last.pth", Checkpoint(last.spec, last.weights, state))
    return count


def _best(plan: PlanConfig, rows: list[dict[str, Any]]) -> Mapping[str, Any] | None:
    """The best validation of rows, as a run keeps it, and the stage that ended with it; None if none ended so."""
    scored = [row for row in rows if "val_miou" in row]
    if not scored:
        return {"miou": -1.0, "at": "", "stage": ""}
    top = max(scored, key=lambda row: float(row["val_miou"]))
    stage = plan.stages[int(top.get("stage_index", 0))]
    if int(top["step"]) != stage.steps:
        return None
    return {"miou": float(top["val_miou"]), "at": f"{stage.name} @{top['step']}", "stage": stage.name}


def _last_miou(rows: list[dict[str, Any]]) -> float:
    return next((float(row["val_miou"]) for row in reversed(rows) if "val_miou" in row), math.nan)
