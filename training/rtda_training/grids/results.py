"""What a grid's finished runs come to: means and spreads over seeds, gains, and the printed rows beside them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rtda_training.data.address import DataAddress
from rtda_training.grids.grid import Grid, GridRow, GridRun
from rtda_training.grids.paper_tables import PublishedRow
from rtda_training.plan import PlanConfig

__all__ = ["MIOUS", "Difference", "assemble", "differences", "seed_interval"]

MIOUS = ("miou", "miou19", "miou16", "miou13")  # keys of scores, where they fit

# Student's t for 95 %, two-sided, by degrees of freedom: of the mean difference of three seeds and more.
_T95 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
_T95_BEYOND = 2.262  # a little wide above ten seeds


class Difference(NamedTuple):
    """One thing that a measured and a printed row do not share."""

    what: str
    ours: str
    printed: str


def differences(printed: PublishedRow, plan: PlanConfig, test: str) -> list[Difference]:
    """What of the printed row's setting differs from a plan scored on ``test``."""
    source, target, scored = (DataAddress.parse(text).kind for text in (plan.source, plan.target or test, test))
    oracle = not printed.source or all(stage.labelled == "target" for stage in plan.stages)
    ours = (target if oracle else f"{source} -> {target}") + ("" if scored == target else f", scored on {scored}")
    weights = "pretrained weights" if plan.backbone_weights or plan.init else "random weights"
    found = [
        Difference("data", ours, printed.target if oracle else f"{printed.source} -> {printed.target}"),
        Difference("size", plan.size, printed.size or plan.size),
        Difference("network", plan.network, printed.network),
        Difference("backbone", plan.backbone or printed.backbone, printed.backbone),
        Difference("start", weights, "pretrained weights"),
    ]
    return [entry for entry in found if entry.ours != entry.printed]


def assemble(grid: Grid, runs: Sequence[GridRun], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The table as data.

    Args:
        grid: What was asked for.
        runs: Its trainings.
        found: By ``GridRun.folder``: what a finished training's ``scores.json`` holds (``scores`` in percent,
            ``steps``, ``seconds_per_step``, ``pictures``), or ``{"error": …}``, or ``{"status": …}``.

    Returns:
        JSON-ready. ``rows`` in the grid's order, each with ``seeds`` (per seed: status, error, mIoUs), ``iou`` and the
        mIoUs as ``{"mean", "spread", "values"}`` (spread: sample standard deviation over seeds, None for one),
        ``gain`` in points over the baseline, ``over_control`` in points over the row ``control`` (None: ``without``
        says why) and ``of_oracle`` in percent, each over the seeds that both rows have, ``gain_interval`` and
        ``over_control_interval`` (:func:`seed_interval`), ``best_miou`` of the networks that rank first, over the seeds
        that rank any,
        and ``published`` with ``differs`` and ``averages``.
    """
    shown = {run.row.label: run.row for run in runs}  # with the controls, in their places
    rows = [_row(grid, row, [run for run in runs if run.row is row], found) for row in shown.values()]
    by_label = {row["label"]: row for row in rows}
    for key, chosen in (("baseline", grid.baseline_row), ("oracle", grid.oracle_row)):
        against = by_label[chosen.label] if chosen else None
        for row in rows:
            pairs = _common(row, against) if against else []
            if key == "baseline":
                row["gain"] = _gain(row, against)
                row["over_control"] = _gain(row, by_label.get(row["control"]))
                row["gain_interval"] = seed_interval(_differences(row, against))
                row["over_control_interval"] = seed_interval(_differences(row, by_label.get(row["control"])))
            else:
                whole = sum(theirs for _, theirs in pairs)
                row["of_oracle"] = round(100 * sum(ours for ours, _ in pairs) / whole, 1) if whole else None
    return {
        "format": "rtda.ablation/1",
        "name": grid.name,
        "description": grid.description,
        "source": grid.source,
        "target": grid.target,
        "test": grid.test_address,
        "check": grid.check,
        "scored_on": _scored_on(grid, found),
        "seeds": list(grid.seeds),
        "set": [*grid.set, *grid.typed],
        "baseline": grid.baseline_row.label if grid.baseline_row else None,
        "oracle": grid.oracle_row.label if grid.oracle_row else None,
        "classes": next((list(entry["scores"]["iou"]) for entry in found.values() if "scores" in entry), []),
        "rows": rows,
    }


def _row(grid: Grid, row: GridRow, runs: Sequence[GridRun], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    entries = {run.seed: found.get(run.folder, {}) for run in runs}
    done = {seed: entry for seed, entry in entries.items() if "scores" in entry}
    seeds = {}
    for seed, entry in entries.items():
        status = "done" if seed in done else "failed" if "error" in entry else entry.get("status", "waiting")
        seeds[str(seed)] = {"status": status, "error": entry.get("error")}
        seeds[str(seed)].update({key: entry["scores"][key] for key in MIOUS if key in entry.get("scores", {})})
        seeds[str(seed)].update({"chosen": entry["chosen"]} if entry.get("chosen") else {})
    plan = runs[0].plan
    scores = [entry["scores"] for entry in done.values()]
    classes = list(scores[0]["iou"]) if scores else []
    protocols = [key for key in MIOUS if scores and key in scores[0]]
    times = [entry["seconds_per_step"] for entry in done.values() if entry.get("seconds_per_step")]
    return {
        "label": row.label,
        "recipe": row.recipe,
        "set": list(row.set),
        "control": runs[0].control,
        "without": runs[0].without,
        "steps": [stage.steps for stage in plan.stages],
        "seeds": seeds,
        **{key: _spread([entry[key] for entry in scores]) for key in (*protocols, "pixel_accuracy") if scores},
        "best_miou": _spread([entry["best_scores"]["miou"] for entry in done.values() if "best_scores" in entry]),
        "iou": {name: _spread([entry["iou"][name] for entry in scores]) for name in classes},
        "seconds_per_step": round(statistics.fmean(times), 4) if times else None,
        "published": _printed(row.printed, plan, grid.test_address),
    }


def _printed(printed: PublishedRow | None, plan: PlanConfig, test: str) -> dict[str, Any] | None:
    if printed is None:
        return None
    mean = printed.mean()
    return {
        **{key: getattr(printed, key) for key in ("key", "paper", "table", "row", "miou", "protocol", "note")},
        "iou": dict(printed.iou),
        "pixel_accuracy": printed.pixel_accuracy,
        "differs": [entry._asdict() for entry in differences(printed, plan, test)],
        "averages": printed.averages(),
        "mean": None if mean is None else round(mean, 2),
    }


def _scored_on(grid: Grid, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The test set for people, with the split that was taken."""
    text = next((str(entry["scores"]["data"]) for entry in found.values() if entry.get("scores", {}).get("data")), "")
    address = DataAddress.parse(text or grid.test_address)
    return str(address) + ("" if address.split or "list" in address.options else " (test)")


def _spread(values: Iterable[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": round(statistics.fmean(known), 2) if known else None,
        "spread": round(statistics.stdev(known), 2) if len(known) > 1 else None,
        "values": known,
    }


def _gain(row: Mapping[str, Any], against: Mapping[str, Any] | None) -> float | None:
    """Mean difference in points over the seeds that both rows have; None for a row against itself."""
    differ = _differences(row, against)
    return round(statistics.fmean(differ), 2) if differ else None


def _differences(row: Mapping[str, Any], against: Mapping[str, Any] | None) -> list[float]:
    """Points over another row, seed by seed; none of a row against itself."""
    return [ours - theirs for ours, theirs in _common(row, against)] if against and row is not against else []


def seed_interval(differences: Sequence[float]) -> list[float] | None:
    """The 95 % interval of a mean difference over seeds, [low, high]; None for fewer than three.

    Args:
        differences: Of two rows with the same seed, in points. They are taken to be normally distributed (Student's t).
    """
    if len(differences) < 3:
        return None
    half = _T95.get(len(differences) - 1, _T95_BEYOND) * statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return [round(mean - half, 2), round(mean + half, 2)]


def _common(row: Mapping[str, Any], against: Mapping[str, Any]) -> list[tuple[float, float]]:
    """mIoUs of the seeds that both rows have."""
    pairs = []
    for seed, entry in row["seeds"].items():
        ours, theirs = entry.get("miou"), against["seeds"].get(seed, {}).get("miou")
        if ours is not None and theirs is not None:
            pairs.append((ours, theirs))
    return pairs
