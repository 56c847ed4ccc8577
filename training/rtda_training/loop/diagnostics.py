"""Warnings about a training that goes wrong in a known way, with the setting to change.

They are a function of the logged rows alone, so that the screen and the report show the same ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rtda_training.loop.collapse_watch import CollapseWatch
from rtda_training.loop.discriminator_watch import DiscriminatorWatch
from rtda_training.plan import PlanConfig, StageConfig

__all__ = ["Diagnostics", "Finding", "warnings_of"]

_SPAN = 200  # steps that a state must last
_FALLEN = 0.5  # of the best val mIoU
_WORTH_FALLING = 0.05  # a best mIoU below this is noise
_LITTLE = 0.05  # share of the target's pixels that get a label


class Finding(NamedTuple):
    """One warning: stage, step, kind, what it is and what to do.

    Kinds are ``stuck``, ``certain``, ``fallen``, ``coverage``, ``few-classes``, and ``vanished <class>``.
    """

    stage: str
    step: int
    kind: str
    text: str


class Diagnostics:
    """Diagnoses one stage from its logged rows.

    Args:
        stage: Its settings; the advice names their keys and values.
        rows: What was logged before, of earlier stages and of this one before a resume; they give no warning.
        classes: Names of the network's classes.
    """

    def __init__(self, stage: StageConfig, rows: Iterable[Mapping[str, Any]] = (), classes: Sequence[str] = ()) -> None:
        self._stage = stage
        self._told: set[str] = set()
        self._since: dict[str, int] = {}
        self._discriminator = DiscriminatorWatch(stage)
        self._collapse = CollapseWatch(stage, classes)
        self._best = -math.inf
        for row in rows:
            self._collapse.see(row)
            if row.get("stage") == stage.name:
                self.see(row)
            elif stage.start != "scratch" and row.get("val_miou") is not None:
                self._best = max(self._best, float(row["val_miou"]))

    def see(self, row: Mapping[str, Any]) -> list[Finding]:
        """Warnings that a logged row gives rise to; each kind is given once a stage."""
        step = int(row["step"])
        found = {**self._discriminator.see(row), **self._coverage(row, step), **self._fall(row, step)}
        found.update(self._collapse.see(row))
        return self._new(found, step)

    def labels(self, folder: Path) -> list[Finding]:
        """Warnings about the labels that a labeler wrote before the stage; ``folder``: the stage's."""
        try:
            record = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
            share = float(record["share"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []
        if share >= _LITTLE:
            return []
        settings = record.get("settings", {})
        key = "quantile" if settings.get("select") == "class-balanced" else "threshold"
        advice = f"lower offline.{key} (now {settings.get(key)}), or train the labelling stage for longer"
        return self._new({"coverage": f"only {100 * share:.1f} % of the target's pixels have a label: {advice}"}, 0)

    def _new(self, found: Mapping[str, str], step: int) -> list[Finding]:
        fresh = [Finding(self._stage.name, step, kind, text) for kind, text in found.items() if kind not in self._told]
        self._told.update(found)
        return fresh

    def _coverage(self, row: Mapping[str, Any], step: int) -> dict[str, str]:
        share = row.get("pseudo_share")
        threshold = getattr(self._stage.settings.get(self._stage.labeler), "threshold", None)
        if share is None or step <= _SPAN or not self._held("coverage", share < _LITTLE, step):
            return {}
        now = "" if threshold is None else f" (now {threshold:g})"
        return {
            "coverage": f"only {100 * share:.1f} % of the target's pixels are labelled with confidence, for {_SPAN}"
            f" steps: lower {self._stage.labeler}.threshold{now}, or start from a stage that learned the source"
        }

    def _fall(self, row: Mapping[str, Any], step: int) -> dict[str, str]:
        miou = row.get("val_miou")
        if miou is None or math.isnan(miou):
            return {}
        best, self._best = self._best, max(self._best, miou)
        # A network that ends with the target's batch-norm statistics gives up some of the source on purpose.
        expected = self._stage.bn_statistics != "running" and step == self._stage.steps
        if best < _WORTH_FALLING or miou > _FALLEN * best or expected:
            return {}
        key = next((f"{key}.weight" for key, table in self._stage.settings.items() if hasattr(table, "weight")), "")
        return {
            "fallen": f"val mIoU fell to {100 * miou:.1f} from {100 * best:.1f} (best.pth keeps the best): lower"
            f" optimizer.learning_rate (now {self._stage.optimizer.learning_rate:g})" + (f" or {key}" if key else "")
        }

    def _held(self, kind: str, holds: bool, step: int) -> bool:
        """Whether it has held in every row of the last ``_SPAN`` steps."""
        if not holds:
            self._since.pop(kind, None)
            return False
        return step - self._since.setdefault(kind, step) >= _SPAN


def warnings_of(
    plan: PlanConfig, rows: Sequence[Mapping[str, Any]], folder: Path, classes: Sequence[str] = ()
) -> list[Finding]:
    """All warnings of a run from its log; ``folder``: the run's; ``classes``: names of the network's."""
    found: list[Finding] = []
    for index, stage in enumerate(plan.stages):
        before = [row for row in rows if int(row.get("stage_index", 0)) < index]
        diagnostics = Diagnostics(stage, before, classes)
        found += diagnostics.labels(folder / "stages" / stage.name)
        for row in rows:
            if row.get("stage") == stage.name:
                found += diagnostics.see(row)
    return found
