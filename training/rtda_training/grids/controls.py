"""The control rows that a grid adds by itself: one training for all rows whose method, silenced, leaves the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from rtda_training.grids.grid import GridRow, GridRun
from rtda_training.plan import PlanConfig, control_key, control_of

__all__ = ["CONTROL", "with_controls"]

CONTROL = "control"  # what stands for the recipe of a row that was added


def with_controls(runs: Sequence[GridRun]) -> list[GridRun]:
    """The runs of a grid, each followed by its control where that is not a run before it.

    Args:
        runs: Of the grid's own rows, seed by seed.

    Returns:
        ``GridRun.control`` of each says which row is its control, ``GridRun.without`` why none is. A row of the grid
        that trains the same is the control, and nothing is added.
    """
    own = {control_key(run.plan): run.row for run in runs}
    found = {id(run): control_of(run.plan) for run in runs}
    keys = {id(run): control_key(control.plan) for run in runs if (control := found[id(run)]).plan is not None}
    rows = _control_rows(runs, own, keys)
    made: list[GridRun] = []
    placed: set[tuple[str, int]] = set()
    for run in runs:
        key, control = keys.get(id(run)), found[id(run)]
        if key is None or control.plan is None:
            made.append(dataclasses.replace(run, without=control.why))
            continue
        row = own.get(key) or rows[key]
        made.append(dataclasses.replace(run, control=row.label))
        if key not in own and (key, run.seed) not in placed:
            placed.add((key, run.seed))
            made.append(_control_run(row, run.seed, control.plan, key))
    return made


def _control_rows(runs: Sequence[GridRun], own: Mapping[str, GridRow], keys: Mapping[int, str]) -> dict[str, GridRow]:
    """The rows to add, by :func:`control_key`; their labels name the rows that they belong to."""
    users: dict[str, list[str]] = {}
    for run in runs:
        key = keys.get(id(run))
        if key is not None and key not in own and run.row.label not in users.setdefault(key, []):
            users[key].append(run.row.label)
    return {key: GridRow(_label(labels), CONTROL) for key, labels in users.items()}


def _label(rows: Sequence[str]) -> str:
    more = len(rows) - 1
    return f"Control of {rows[0]}" + (f" and {more} other{'s' * (more > 1)}" if more else "")


def _control_run(row: GridRow, seed: int, plan: PlanConfig, key: str) -> GridRun:
    """Its folder is named by what is trained, so that it is found again when rows were added to the grid."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:10]
    return GridRun(row, seed, f"{CONTROL}-{digest}-seed{seed}", plan, without="it is a control")
