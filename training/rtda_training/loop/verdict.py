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

__all__ = ["ranking_sentence", "unfinished", "with_verdict"]

_FEW_STEPS = 200  # of a stage: ten rows of its log, two in each fifth
_STILL_FALLS = 0.03  # of the loss, from one fifth of a stage to the next
_LOSS = "seg"  # of labelled pictures; every stage of a network with labels logs it
_ENDS = {1: "st", 2: "nd", 3: "rd"}


def with_verdict(plan: PlanConfig, result: TrainResult) -> TrainResult:
    """The result with its verdict; the run's log is read."""
    sentence = ranking_sentence(result.ranking) if result.ranking else _validated(plan, result)
    stage = plan.stages[-1]
    rows = [row for row in read_rows(result.folder) if row.get("stage") == stage.name]
    missing = unfinished(rows, stage.steps, warm=bool(plan.init) or len(plan.stages) > 1)
    return dataclasses.replace(result, verdict=" ".join(text for text in (sentence, missing) if text))


def ranking_sentence(ranking: Mapping[str, Any], last: str = "last") -> str:
    """What ``ranking.json`` says, for people.

    Args:
        ranking: Its values, with ``source_only``: whether the first candidate is a network that saw no target.
        last: Name of the network that the training ended with.
    """
    names = [entry["name"] for entry in ranking["entries"]]
    first, best, chosen = ranking["first"], names[0], ranking["chosen"]
    of = f"of {len(names)} networks on the target, without labels"
    place = {name: f"{_ordinal(names.index(name) + 1)}" for name in (first, last) if name in names}
    adapted = f"the adapted network (last.pth) is {place[last]}" if last in place and last not in (first, best) else ""
    if best == first:
        text = f"{_capital(_named(best, last))} ranks first {of}: adapting gained nothing that shows"
        if not ranking["source_only"]:
            text = f"{_capital(_named(best, last))} ranks first {of}"
    elif chosen == best:
        sure = _sure(ranking["entries"][0]["beats_first"], first)
        text = f"{_capital(_named(best, last))} ranks first {of}: {sure}; {_named(first, last)} is {place[first]}"
    else:
        sure = _sure(ranking["entries"][0]["beats_first"], first)
        text = f"Not surely better than {_named(first, last)}: {_named(best, last)} ranks first {of}, but only {sure}"
    told = [text, *([adapted] if adapted else [])]
    if not ranking["source_only"]:
        told.append("this run has no source-only network to compare with")
    return "; ".join([*told, f"best.pth is {_named(chosen, last)}"]) + "."


def unfinished(rows: Sequence[Mapping[str, Any]], steps: int, *, warm: bool = False) -> str:
    """A sentence where a stage was too short to know, or its loss still fell; else nothing.

    The means of the loss over the last two fifths of the stage are compared: it still falls where the last one is
    lower by more than 3 % and by more than twice the standard error of their difference.

    Args:
        rows: Of the stage's log.
        steps: Of the stage.
        warm: Whether it started from a trained network; few steps may then be enough.
    """
    key = _LOSS if any(_LOSS in row for row in rows) else next(iter(loss_keys(rows)), _LOSS)
    fifths = [
        [
            float(row[key])
            for row in rows
            if low * steps < 5 * row["step"] <= (low + 1) * steps and math.isfinite(row.get(key, math.nan))
        ]
        for low in (3, 4)
    ]
    if steps < _FEW_STEPS or min(map(len, fifths)) < 2:
        return "" if warm else f"Not finished: {steps} steps."
    before, after = (statistics.fmean(fifth) for fifth in fifths)
    error = math.sqrt(sum(statistics.variance(fifth) / len(fifth) for fifth in fifths))
    if before > 0 and before - after > max(_STILL_FALLS * before, 2 * error):
        return f"Not finished: after {steps} steps the loss still falls, by {100 * (1 - after / before):.0f} % a fifth."
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
    return f"it beats {first} in {100 * shares[most - 1]:.0f} % of the draws on {most} of {len(shares)} measures"


def _named(name: str, last: str) -> str:
    return "the adapted network (last.pth)" if name == last else name


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ordinal(place: int) -> str:
    return f"{place}{_ENDS.get(place if place < 20 else place % 10, 'th')}"
