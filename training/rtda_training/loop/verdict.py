"""What a training came to, in a sentence: source-only, adapted, ranked best; and whether it had made steps enough."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rtda_deploy.report import short
from rtda_training.loop.events import TrainResult
from rtda_training.plan import PlanConfig
from rtda_training.run_folder import loss_keys, read_rows

__all__ = ["ranking_sentence", "unfinished", "unfinished_run", "with_verdict"]

_FEW_STEPS = 200  # of a network: ten rows of its log, two in each fifth
_STILL_FALLS = 0.03  # of the loss, from one fifth of a stage to the next
_LOSS = "seg"  # of labelled pictures; every stage of a network with labels logs it
_GLANCE = "target_entropy"  # logged beside the losses of a plan without a source, and none
_ENDS = {1: "st", 2: "nd", 3: "rd"}


def with_verdict(plan: PlanConfig, result: TrainResult) -> TrainResult:
    """The result with its verdict; the run's log is read."""
    sentence = ranking_sentence(result.ranking) if result.ranking else _validated(plan, result)
    missing = unfinished_run(plan, read_rows(result.folder))
    return dataclasses.replace(result, verdict=" ".join(text for text in (sentence, missing) if text))


def unfinished_run(plan: PlanConfig, rows: Sequence[Mapping[str, Any]]) -> str:
    """:func:`unfinished` of a plan's last stage, from the run's log."""
    stage = plan.stages[-1]
    own = [row for row in rows if row.get("stage") == stage.name]
    before = sum(other.steps for other in plan.stages[:-1] if other.kind == stage.kind)
    return unfinished(own, stage.steps, before=None if plan.init else before)


def ranking_sentence(ranking: Mapping[str, Any], last: str = "last") -> str:
    """What ``ranking.json`` says, for people.

    Args:
        ranking: Its values, with ``source_only``: whether the first candidate is a network that saw no target.
        last: Name of the network that the training ended with.
    """
    names = [entry["name"] for entry in ranking["entries"]]
    first, best = ranking["first"], names[0]
    beats = _sure(ranking["entries"][0]["beats_first"], first)
    if ranking.get("by_labels"):  # runs of earlier versions do not say it: their labels changed no place
        frames = f"labelled frames of the target ({short(ranking['labelled'])})"
        text = f"of {len(names)} networks, by {frames}: {ranking['verdict']}"
    elif best == first:
        gained = ": no other ranks before it" if ranking["source_only"] else ""
        text = f"{_named(best, last)} ranks first of {len(names)} networks on the target, without labels{gained}"
    elif ranking["chosen"] == best:
        text = f"{_named(best, last)} ranks first of {len(names)} networks on the target, without labels, and {beats}"
    else:
        text = (
            f"no better than {first} for sure: of {len(names)} networks {_named(best, last)} ranks first on the target,"
            f" without labels, but only {beats}"
        )
    places = [
        f"{_named(name, last)} is {_ordinal(names.index(name) + 1)}" for name in (last, first) if name in names[1:]
    ]
    told = [text, *dict.fromkeys(places)]
    if not ranking["source_only"] and not ranking.get("by_labels"):
        told.append("there is no source-only network in this run to compare with")
    sentence = "; ".join(told)
    chosen = "the last network" if ranking["chosen"] == last else ranking["chosen"]
    return f"{sentence[:1].upper()}{sentence[1:]}; best.pth is {chosen}."


def unfinished(rows: Sequence[Mapping[str, Any]], steps: int, *, before: int | None = 0) -> str:
    """A sentence where a network made too few steps to know, or its loss still fell; else nothing.

    The means of the loss over the last two fifths of the stage are compared: it still falls where the last one is
    lower by more than 3 % and by more than twice the standard error of their difference.

    Args:
        rows: Of the stage's log.
        steps: Of the stage.
        before: Steps that the network made before it; None: it started from a trained one, of which nothing is known.
    """
    keys = [key for key in loss_keys(rows) if key != _GLANCE]
    key = _LOSS if any(_LOSS in row for row in rows) else next(iter(keys), _LOSS)
    fifths = [
        [
            float(row[key])
            for row in rows
            if low * steps < 5 * row["step"] <= (low + 1) * steps and math.isfinite(row.get(key, math.nan))
        ]
        for low in (3, 4)
    ]
    if before is not None and steps + before < _FEW_STEPS:
        return f"Not finished: {steps + before} steps."
    if min(map(len, fifths)) < 2:
        return ""
    fourth, fifth = (statistics.fmean(part) for part in fifths)
    error = math.sqrt(sum(statistics.variance(part) / len(part) for part in fifths))
    if fourth > 0 and fourth - fifth > max(_STILL_FALLS * fourth, 2 * error):
        return f"Not finished: after {steps} steps the loss still falls, by {100 * (1 - fifth / fourth):.0f} % a fifth."
    return ""


def _validated(plan: PlanConfig, result: TrainResult) -> str:
    if math.isnan(result.last_miou):
        return ""
    data = f"{short(plan.validation)} (val)"
    ends = f"The network ends with {100 * result.last_miou:.1f} mIoU on {data}"
    best = f"; best.pth, the best there, has {100 * result.best_miou:.1f} ({result.best_at})"
    adapts = plan.target and plan.validation == plan.source and any(stage.uses_target for stage in plan.stages)
    warns = ", which says little about the target" if adapts else ""
    return f"{ends}{warns}{best if result.best_miou > result.last_miou else ''}."


def _sure(beats_first: Mapping[str, float], first: str) -> str:
    shares = sorted(beats_first.values(), reverse=True)
    most = len(shares) // 2 + 1
    return f"beats {first} in {100 * shares[most - 1]:.0f} % of the draws on {most} of {len(shares)} measures"


def _named(name: str, last: str) -> str:
    return f"the adapted network ({name}.pth)" if name == last else name


def _ordinal(place: int) -> str:
    return f"{place}{_ENDS.get(place if place < 20 else place % 10, 'th')}"
