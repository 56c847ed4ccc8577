"""The steps of one stage: between them it logs, validates, saves, and looks whether it is to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from rtda_deploy.errors import DataError, TrainingError
from rtda_training.loop.collapse_watch import TargetGlance
from rtda_training.loop.diagnostics import Diagnostics, Finding
from rtda_training.loop.events import StopRequest, Tell, TrainEvent, TrainingStopped
from rtda_training.loop.pace import Pace
from rtda_training.loop.runlog import RunLog
from rtda_training.loop.saving import RunCheckpoints
from rtda_training.loop.start import PlanSets
from rtda_training.loop.validate import validate
from rtda_training.metrics import ConfusionMatrix, Scores
from rtda_training.models import SegmentationNetwork
from rtda_training.plan import PlanConfig
from rtda_training.stages import StageRun

__all__ = ["StageLoop", "TrainingParts"]

_LOG_EVERY = 20  # steps


@dataclass(frozen=True)
class TrainingParts:
    """What all stages of a training share.

    Attributes:
        plan: What is done.
        folder: The run's.
        fabric: Devices and processes.
        model: The network, not wrapped.
        sets: The plan's data.
        checkpoints: Where it is saved.
        stop: Looked at after each step.
        tell: Told of progress.
    """

    plan: PlanConfig
    folder: Path
    fabric: Fabric
    model: SegmentationNetwork
    sets: PlanSets
    checkpoints: RunCheckpoints
    stop: StopRequest
    tell: Tell


class StageLoop:
    """Runs one stage.

    Args:
        parts: What it shares with the others.
        index: Its place in the plan.
        log: What is recorded; None in all processes but the first.
    """

    def __init__(self, parts: TrainingParts, index: int, log: RunLog | None) -> None:
        self._parts = parts
        self._index = index
        self._stage = parts.plan.stages[index]
        self._log = log
        self._diagnostics = Diagnostics(self._stage, log.rows if log is not None else (), parts.sets.classes.names)
        watched = not parts.plan.source and log is not None
        self._glance = TargetGlance(parts.sets.camera, parts.plan, parts.fabric) if watched else None

    def run(self, run: StageRun, start: int, miou: float) -> float:
        """Make the steps from ``start`` on; ``run`` has begun.

        Args:
            run: The stage's work.
            start: Steps that are done.
            miou: Of the last validation before.

        Returns:
            mIoU of the last validation, 0..1.

        Raises:
            TrainingStopped: If the stop was asked for; ``last.pth`` holds the step it names.
            TrainingError: If a loss is not finite.
            DataError: If nothing that is validated on is labelled.
        """
        stage = self._stage
        self._look_at_start(start)
        self._warn(self._diagnostics.labels(self._parts.folder / "stages" / stage.name))
        self._parts.fabric.barrier()
        later = sum(after.steps for after in self._parts.plan.stages[self._index + 1 :])
        pace = Pace(self._parts.plan.batch_size, stage.steps - start, later)
        self._parts.stop.stepping = True
        try:
            for step in range(start, stage.steps):
                miou = self._step(run, step, pace, miou)
        finally:
            self._parts.stop.stepping = False
        return miou

    def _look_at_start(self, start: int) -> None:
        """Log what the network answers before the first step of the plan: a collapse is told against it."""
        if self._glance is None or self._index or start or (self._log is not None and self._log.rows):
            return
        row = {"stage": self._stage.name, "stage_index": 0, "step": 0, **self._glance.of(self._parts.model)}
        self._diagnostics.see(row)
        if self._log is not None:
            self._log.add(row)

    def _step(self, run: StageRun, step: int, pace: Pace, miou: float) -> float:
        stage, done = self._stage, step + 1
        last = done == stage.steps
        saves = last or _is_every(self._parts.plan.save_every, done)
        validates = self._parts.sets.val is not None and (last or _is_every(self._parts.plan.val_every, done))
        values = run.step(step)
        logs = last or validates or done % _LOG_EVERY == 0
        stops = (logs or self._stops_alone()) and self._stops_everywhere()
        row: dict[str, Any] = {"stage": stage.name, "stage_index": self._index, "step": done}
        wanted = logs or saves or stops or self._parts.fabric.device.type == "cpu"
        row.update(self._numbers(values, done, wanted=wanted))
        row.update(pace.tick())
        if last:
            run.finish()
        if logs and self._glance is not None:
            row.update(self._glance.of(self._parts.model))
        if validates and run.trains_network and (last or not stops):
            scores = self._validate(row, None if last else self._stops_alone)
            stops, miou = (True, miou) if scores is None else (stops, scores.miou())
            pace.restart()
        self._record(row, pace, logged=logs or stops)
        if "val_miou" in row:
            self._parts.checkpoints.keep_best(miou, stage.name, done)
            self._parts.tell(TrainEvent("validation", stage.name, done, stage.steps, row))
        if last and run.trains_network and len(self._parts.plan.stages) > 1:
            self._parts.checkpoints.save_stage(stage.name, miou)
            self._parts.fabric.barrier()  # the next stage may read it
        if saves or stops:
            self._parts.checkpoints.save_state(self._index, done, last, miou, run)
        if stops and not (last and self._index + 1 == len(self._parts.plan.stages)):
            raise TrainingStopped(stage.name, done, self._parts.folder / "last.pth")
        return miou

    def _record(self, row: Mapping[str, Any], pace: Pace, *, logged: bool) -> None:
        if logged and self._log is not None:
            self._log.add(row)
            self._warn(self._diagnostics.see(row))
        if logged or pace.early():
            self._parts.tell(TrainEvent("step", self._stage.name, row["step"], self._stage.steps, row))
        expected = pace.expectation()
        if expected:
            self._parts.tell(TrainEvent("note", expected))

    def _warn(self, warnings: Iterable[Finding]) -> None:
        for warning in warnings:
            self._parts.tell(TrainEvent("warning", f"{warning.stage}: {warning.text}", warning.step))

    def _numbers(self, values: Mapping[str, Any], step: int, *, wanted: bool) -> dict[str, float]:
        """Losses as floats, averaged over processes; none where they are not wanted, so that a GPU need not wait."""
        if not wanted:
            return {}
        names = sorted(values)
        found = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        if self._parts.fabric.world_size > 1:
            found = self._parts.fabric.all_reduce(found.to(self._parts.fabric.device), reduce_op="mean").cpu()  # type: ignore[union-attr]
        row = dict(zip(names, found.tolist(), strict=True))
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{', '.join(bad)} is not a finite number at step {step}; last.pth holds the last good checkpoint",
                hint="lower the rate (--set optimizer.learning_rate=…), add warm-up, or use --set precision=fp32",
            )
        return {name: row[name] for name in values}

    def _stops_alone(self) -> bool:
        """Whether this process was asked to stop, and is the only one: it may at once."""
        return self._parts.stop.asked and self._parts.fabric.world_size == 1

    def _stops_everywhere(self) -> bool:
        """Whether any process was asked to stop; all call it at the same step."""
        if self._parts.fabric.world_size == 1:
            return self._parts.stop.asked
        flag = torch.tensor(float(self._parts.stop.asked), device=self._parts.fabric.device)
        return bool(self._parts.fabric.all_reduce(flag, reduce_op="sum") > 0)  # type: ignore[operator]

    def _validate(self, row: dict[str, Any], stop: Callable[[], bool] | None) -> Scores | None:
        """Score the network, add that to the row, and keep its confusion; None where it was given up."""
        plan, val = self._parts.plan, self._parts.sets.val
        assert val is not None
        confusion = ConfusionMatrix(self._parts.model.num_classes)
        scores = validate(
            self._parts.model,
            val,
            plan.size_hw,
            plan.input,
            max_pictures=plan.val_pictures,
            confusion=confusion,
            progress=lambda done, total: self._parts.tell(TrainEvent("validating", row["stage"], done, total)),
            stop=stop,
        )
        if scores is None:
            return None
        if not scores.pixels:
            raise DataError(
                f"none of the {plan.val_pictures or len(val)} pictures of {val.address} that were validated on has a"
                " labelled pixel",
                hint="take more of them: --set val_pictures=0 is all",
            )
        row["val_miou"], row["val_pixel_accuracy"] = scores.miou(), scores.pixel_accuracy
        row["val_iou"] = scores.to_dict()["iou"]
        if self._log is not None:
            self._log.keep_confusion(row, val, confusion.counts)
            sets = self._parts.sets
            self._log.show(row, self._parts.model, sets.camera, plan, sets.classes.palette)
        return scores


def _is_every(period: int, done: int) -> bool:
    return bool(period) and done % period == 0
