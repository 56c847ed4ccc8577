"""Training: the stages of a plan on Lightning Fabric, with checkpoints that continue bit by bit on the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtda_deploy.errors import CheckpointError, ConfigError, RtdaError
from rtda_deploy.files import remove_leftovers, writable_folder
from rtda_training.adapt.context import OpenModel, StageContext
from rtda_training.adapt.slots import components
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.loop.cards import add_cards
from rtda_training.loop.choosing import held_back
from rtda_training.loop.events import StopRequest, Tell, TrainEvent, TrainResult
from rtda_training.loop.hardware import build_fabric, describe, memory_kept
from rtda_training.loop.run_ranking import contenders_of, rank_run, write_chosen
from rtda_training.loop.runlog import RunLog
from rtda_training.loop.saving import RunCheckpoints, save_verify_pictures, stage_file
from rtda_training.loop.source_norms import add_source_norms, source_norms
from rtda_training.loop.stage_loop import StageLoop, TrainingParts
from rtda_training.loop.start import PlanSets, check_size, start_network, start_spec
from rtda_training.loop.verdict import with_verdict
from rtda_training.models import SegmentationNetwork
from rtda_training.plan import PlanConfig, differing_keys
from rtda_training.readers import UnlabelledSet, open_unlabelled
from rtda_training.run_folder import RANKING
from rtda_training.stages import StageRun
from rtda_training.stages.base import norm_batches
from rtda_training.stages.first_norms import measure_norms
from rtda_training.stages.norm_shift import NormInputs

__all__ = ["Trainer"]


class Trainer:
    """Runs a plan in a folder.

    Args:
        plan: What to do.
        folder: Gets ``last.pth``, ``best.pth``, ``stage-<name>.pth``, ``results.csv``, ``metrics.jsonl``, ``verify/``,
            and where networks are ranked ``candidate-<stage>-<what>.pth`` and ``ranking.json``.
        on_event: Told of progress.
        stop: Ends a running training with a checkpoint where it is asked: :meth:`run` then saves and raises. The step
            that is being done is finished; a validation is given up, but for the last of a stage. Several processes
            look at it every twenty steps, together.
        open_model: Opens a teacher that is no checkpoint; what it gives is used in its ``with`` block.

    Raises:
        RtdaError: Whatever makes the plan impossible, before any step is made.
    """

    def __init__(
        self,
        plan: PlanConfig,
        folder: Path,
        on_event: Tell | None = None,
        stop: StopRequest | None = None,
        open_model: OpenModel | None = None,
    ) -> None:
        self.plan = plan
        self.folder = Path(folder)
        check_size(plan)
        torch.manual_seed(plan.seed)
        self._fabric = build_fabric(plan.device, plan.precision)
        _check_processes(plan, self._fabric.world_size)
        self._first = self._fabric.is_global_zero
        self._tell: Tell = on_event if on_event and self._first else (lambda event: None)
        with self._fabric.rank_zero_first(local=True):  # what is to be rendered or cached is made once
            if self._first:
                writable_folder(self.folder)
            self._sets = PlanSets(plan, self._tell)
        classes = self._sets.classes
        for stage in plan.stages:
            for key, found in stage.used().items():
                found.preflight(stage.settings[key], classes)
        self._open_model = open_model
        self._model = start_network(plan, classes, self._tell).to(self._fabric.device)
        spec = start_spec(plan, classes, self._model)
        self._checkpoints = RunCheckpoints(plan, self.folder, self._model, spec, writes=self._first)
        self._parts = TrainingParts(
            plan=plan,
            folder=self.folder,
            fabric=self._fabric,
            model=self._model,
            sets=self._sets,
            checkpoints=self._checkpoints,
            stop=stop or StopRequest(),
            tell=self._tell,
        )

    def run(self, resume: Checkpoint | None = None) -> TrainResult:
        """Train all stages; with ``resume``, go on where that checkpoint was written.

        Raises:
            TrainingStopped: If ``stop`` was asked; ``last.pth`` holds the step it names.
            TrainingError: If a loss is not finite.
            CheckpointError: If ``resume`` is of another plan.
            DataError: If too many pictures cannot be used.
        """
        started = time.monotonic()
        state = dict(resume.training) if resume is not None else {}
        if state:
            self._check_resume(state)
            self._checkpoints.best = dict(state["best"])
        self._tell_start(state)
        if self._first:
            remove_leftovers(self.folder)
            save_verify_pictures(self.folder, self._camera_pictures())
            if not self._finished_before(state):
                (self.folder / RANKING).unlink(missing_ok=True)  # of networks that are about to change
        position = int(state.get("stage_index", 0)), int(state.get("step", 0))
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(memory_kept(self._fabric.device))
                log = stack.enter_context(contextlib.closing(RunLog(self.folder, position))) if self._first else None
                last = self._stages(resume, state, log)
                ranking = self._rank() if self._first else None
                if self._first:
                    if self._sets.source is not None:
                        add_source_norms(self.plan, self.folder, self._sets.source, self._fabric.device)
                    add_cards(self.plan, self.folder, self._sets, lambda text: self._tell(TrainEvent("note", text)))
        except BaseException:
            self._checkpoints.remove_start()
            raise
        best = self._checkpoints.best
        miou = float(best["miou"]) if best["at"] else math.nan
        seconds = time.monotonic() - started
        return with_verdict(self.plan, TrainResult(self.folder, miou, str(best["at"]), last, seconds, ranking))

    def _stages(self, resume: Checkpoint | None, state: Mapping[str, Any], log: RunLog | None) -> float:
        """Every stage from that of ``state`` on; gives the mIoU of the last validation."""
        first, miou = int(state.get("stage_index", 0)), float(state.get("last_miou", math.nan))
        for index in range(first, len(self.plan.stages)):
            own_state: Mapping[str, Any] = state if index == first else {}
            if resume is not None and index == first:
                self._model.load_state_dict(dict(resume.weights))
                if state.get("done"):
                    continue
            else:
                self._load_start(index)
            miou = self._stage(index, own_state, log, miou)
        return miou

    def _stage(self, index: int, state: Mapping[str, Any], log: RunLog | None, miou: float) -> float:
        plan, stage = self.plan, self.plan.stages[index]
        self._tell(TrainEvent("stage", stage.name, total=stage.steps))
        torch.manual_seed(plan.seed + index)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        kind = components("kind")[stage.kind]
        run: StageRun = kind(stage.settings[stage.kind], self._context(index), plan, stage)  # type: ignore[call-arg, assignment]
        start = int(state.get("step", 0))
        if state:
            run.load_state_dict(state["run"])
        loop = StageLoop(self._parts, index, log)
        try:
            run.begin(start)
            if state:  # after everything that builds a network: each draws its random start
                torch.set_rng_state(state["torch_rng"])
            elif index == 0:
                self._checkpoints.save_start(miou, run)
            return loop.run(run, start, miou)
        finally:
            run.close()

    def _rank(self) -> dict[str, Any] | None:
        """Choose ``best.pth`` among the networks of the run; None where they are not or cannot be ranked."""
        plan, device = self.plan, self._fabric.device
        if not plan.ranks:
            if plan.val and dataclasses.replace(plan, val="").ranks:
                why = "--val names labelled pictures, which choose before a ranking without labels"
                self._tell(TrainEvent("note", f"not ranked, best.pth is the best on {plan.val}: {why}"))
            return None
        assert self._sets.target is not None  # a plan without one does not rank
        try:
            footage = held_back(self._camera_pictures())
            source = self._source_norms if plan.check and self._sets.source is not None else None
            networks = contenders_of(
                plan, self.folder, self._target_batches, device, labels=bool(plan.check), source=source
            )
            networks = networks.behind_the_last() if plan.check else networks
            tell = partial(self._progress, "ranking")
            found = rank_run(networks, footage, self.folder, device, tell, labelled=self._sets.check)
        except RtdaError as err:
            best = ", best.pth is the best on val" * (self.folder / "best.pth").is_file()
            again = "; resumed, the run ranks again" * bool(plan.check)
            self._tell(TrainEvent("warning" if plan.check else "note", f"not ranked{best}: {err.message}{again}"))
            return None
        write_chosen(networks, found, self.folder)
        return found

    def _context(self, index: int) -> StageContext:
        plan, stage, fabric = self.plan, self.plan.stages[index], self._fabric
        size = plan.batch_size // fabric.world_size
        source = self._sets.source
        if stage.labelled == "target":
            with fabric.rank_zero_first(local=True):
                source = self._sets.target_with_labels()
        return StageContext(
            num_classes=self._model.num_classes,
            fabric=fabric,
            network=self._model,
            size_hw=plan.size_hw,
            batch_size=size,
            first_place=size * fabric.global_rank,
            seed=(plan.seed, index),
            steps=stage.steps,
            folder=self.folder / "stages" / stage.name,
            run_folder=self.folder,
            normalise=lambda frames: normalise(frames, plan.input),
            finished=self._finished,
            classes=self._sets.classes,
            source=source,
            target=self._sets.target,
            tell=lambda text: self._tell(TrainEvent("note", text)),
            labelled_target=self._sets.labelled_target,
            keep=partial(self._checkpoints.save_candidate, stage.name),
            as_stored=self._as_stored,
            open_model=self._open_model,
        )

    def _load_start(self, index: int) -> None:
        """Put the weights into the network that a stage starts from."""
        stage = self.plan.stages[index]
        if stage.start == "scratch":
            torch.manual_seed(self.plan.seed)
            self._model.load_state_dict(start_network(self.plan, self._sets.classes).state_dict())
        elif stage.start != "previous":
            self._model.load_state_dict(dict(read_checkpoint(stage_file(self.folder, stage.start)).weights))

        if (index == 0 or stage.start == "scratch") and self.plan.measures_norms and not self.plan.init:
            backbone, normalised = self._model.backbone, partial(normalise, contract=self.plan.input)
            assert self._sets.source is not None  # a plan without one measures no norms
            count = measure_norms(backbone, self._sets.source, self.plan, normalised)
            self._tell(TrainEvent("note", f"backbone: batch norms measured on {count} pictures of the source"))

    def _target_batches(self) -> Iterator[Tensor]:
        """Target pictures that batch-norm statistics are averaged over."""
        assert self._sets.target is not None
        contract = partial(normalise, contract=self.plan.input)
        return norm_batches(self._sets.target, self.plan, contract, self._fabric.device)

    def _source_norms(self, checkpoint: Checkpoint) -> NormInputs:
        assert self._sets.source is not None
        return source_norms(checkpoint, self._sets.source, self.plan, self._fabric.device)

    def _progress(self, kind: str, name: str, done: int, total: int) -> None:
        self._tell(TrainEvent(kind, name, done, total))

    def _finished(self, name: str) -> SegmentationNetwork:
        model = model_from_checkpoint(read_checkpoint(stage_file(self.folder, name)))
        return model.requires_grad_(False).to(self._fabric.device)

    def _camera_pictures(self) -> UnlabelledSet:
        """The domain that is adapted to, as a camera gives it and not as it is cached for training."""
        return self._as_stored(self._sets.camera)

    def _as_stored(self, pictures: UnlabelledSet) -> UnlabelledSet:
        return open_unlabelled(str(pictures.address)) if self.plan.cache else pictures

    def _tell_start(self, state: Mapping[str, Any]) -> None:
        values = {
            "plan": self.plan,
            "folder": self.folder,
            "hardware": describe(self._fabric),
            "resumed": state.get("step"),
            "finished": self._finished_before(state),
        }
        self._tell(TrainEvent("start", values=values))

    def _finished_before(self, state: Mapping[str, Any]) -> bool:
        return bool(state.get("done")) and state.get("stage_index") == len(self.plan.stages) - 1

    def _check_resume(self, state: Mapping[str, Any]) -> None:
        differ = differing_keys(state["plan"], self.plan)
        if differ:
            raise CheckpointError(
                f"the run in {self.folder} was started with another plan; these differ: {', '.join(differ)}",
                hint="use the same recipe and flags, or another --out",
            )


def _check_processes(plan: PlanConfig, processes: int) -> None:
    if plan.batch_size % processes:
        raise ConfigError(
            f"batch_size {plan.batch_size} cannot be shared evenly by {processes} processes",
            hint=f"batch_size counts all pictures of a step: take a multiple of {processes}",
        )
