"""The training loop: stages of a plan on Lightning Fabric, with checkpoints that continue bit by bit on the CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from rtda_deploy import __version__
from rtda_deploy.errors import CheckpointError, ConfigError, DataError, TrainingError
from rtda_deploy.files import remove_leftovers, sha256_file, writable_folder, write_bytes
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.slots import components
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.data.first_look import first_look, shared_pictures
from rtda_training.data.pixel_cache import cached, cached_size
from rtda_training.labels import class_list
from rtda_training.loop.diagnostics import Finding, Watch
from rtda_training.loop.events import TrainEvent, TrainResult
from rtda_training.loop.hardware import build_fabric, describe, memory_kept
from rtda_training.loop.pace import Pace
from rtda_training.loop.runlog import RunLog
from rtda_training.loop.samples import usable_frame
from rtda_training.loop.stopping import StopRequest, TrainingStopped
from rtda_training.loop.validate import validate
from rtda_training.metrics import ConfusionMatrix, Scores
from rtda_training.models import OUTPUT_STRIDE, SegmentationNetwork, build_network, load_backbone_weights, network_class
from rtda_training.models.state_dicts import difference, refuse_broken_numbers
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.readers import LabelledSet, UnlabelledSet, open_labelled, open_unlabelled
from rtda_training.stages import StageRun

__all__ = ["VERIFY_PICTURES", "Trainer"]

VERIFY_PICTURES = 8  # target pictures kept beside the checkpoint; the export is verified on them
_LOG_EVERY = 20  # steps


_Set = TypeVar("_Set", bound=UnlabelledSet)


class Trainer:
    """Runs a plan in a folder.

    Args:
        plan: What to do.
        folder: Gets ``last.pth``, ``best.pth``, ``stage-<name>.pth``, ``results.csv``, ``metrics.jsonl``, ``verify/``.
        on_event: Told of progress.
        stop: Ends a running training with a checkpoint where it is asked: :meth:`run` then saves and raises. The step
            that is being done is finished; a validation is given up, but for the last of a stage. Several processes
            look at it every twenty steps, together.

    Raises:
        RtdaError: Whatever makes the plan impossible, before any step is made.
    """

    def __init__(
        self,
        plan: PlanConfig,
        folder: Path,
        on_event: Callable[[TrainEvent], None] | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self.plan = plan
        self.folder = Path(folder)
        _check_size(plan)
        torch.manual_seed(plan.seed)
        self._fabric = build_fabric(plan.device, plan.precision)
        _check_processes(plan, self._fabric.world_size)
        self._stop = stop or StopRequest()
        self._tell = on_event if on_event and self._fabric.is_global_zero else (lambda event: None)
        with self._fabric.rank_zero_first(local=True):  # what is to be rendered or cached is made once
            if self._fabric.is_global_zero:
                writable_folder(self.folder)
            self._source = self._open(plan.source)
            self._target = self._open_target(plan.target) if plan.target else None
            self._val = self._open(plan.validation, split="val")
        self._same_classes(self._val)
        self._warn_of_own_pictures()
        self._model = self._new_model()
        self._spec = self._new_spec()

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
        self._tell_start(state)
        self._best = dict(state.get("best", {"miou": -1.0, "at": ""}))
        first = int(state.get("stage_index", 0))
        if self._fabric.is_global_zero:
            remove_leftovers(self.folder)
        log = RunLog(self.folder, (first, int(state.get("step", 0)))) if self._fabric.is_global_zero else None
        self._save_verify_pictures()
        last = float(state.get("last_miou", math.nan))
        self._only_the_start = False
        try:
            with memory_kept(self._fabric.device):
                for index in range(first, len(self.plan.stages)):
                    if resume is not None and index == first:
                        self._model.load_state_dict(dict(resume.weights))
                        if state.get("done"):
                            continue
                        last = self._run_stage(index, log, state, last)
                    else:
                        self._load_start(self.plan.stages[index])
                        last = self._run_stage(index, log, {}, last)
        except BaseException:
            if self._only_the_start:  # nothing was learnt: another training may take the folder
                (self.folder / "last.pth").unlink(missing_ok=True)
            raise
        finally:
            if log is not None:
                log.close()
        return TrainResult(
            self.folder, float(self._best["miou"]), str(self._best["at"]), last, time.monotonic() - started
        )

    # one stage

    def _run_stage(self, index: int, log: RunLog | None, state: dict[str, Any], miou: float) -> float:
        stage = self.plan.stages[index]
        self._tell(TrainEvent("stage", stage.name, total=stage.steps))
        torch.manual_seed(self.plan.seed + index)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        kind = components("kind")[stage.kind]
        run: StageRun = kind(stage.settings[stage.kind], self._stage_context(index), self.plan, stage)  # type: ignore[call-arg, assignment]
        start = int(state.get("step", 0))
        if state:
            run.load_state_dict(state["run"])
        watch = Watch(stage, log.rows if log is not None else ())
        run.begin(start)
        if state:  # after everything that builds a network: each draws its random start
            torch.set_rng_state(state["torch_rng"])
        elif index == 0:  # so that a run killed before its next save goes on from here, whatever else it wrote by then
            self._save_state(index, 0, False, miou, run)
            self._only_the_start = self._fabric.is_global_zero
        self._warn(watch.labels(self.folder / "stages" / stage.name))
        self._fabric.barrier()
        later = sum(after.steps for after in self.plan.stages[index + 1 :])
        pace = Pace(self.plan.batch_size, stage.steps - start, later)
        try:
            self._stop.stepping = True
            for step in range(start, stage.steps):
                done = step + 1
                last_step = done == stage.steps
                saves = last_step or (self.plan.save_every and done % self.plan.save_every == 0)
                validates = last_step or (self.plan.val_every and done % self.plan.val_every == 0)
                values = run.step(step)
                logs = last_step or validates or done % _LOG_EVERY == 0
                stops = (logs or self._stops_alone()) and self._stops_everywhere()
                row: dict[str, Any] = {"stage": stage.name, "stage_index": index, "step": done}
                wanted = logs or saves or stops or self._fabric.device.type == "cpu"
                row.update(self._numbers(values, done, wanted=wanted))
                row.update(pace.tick())
                if last_step:
                    run.finish()
                if validates and run.trains_network and (last_step or not stops):
                    scores = self._validate(row, log, None if last_step else self._stops_alone)
                    stops, miou = (True, miou) if scores is None else (stops, scores.miou())
                    pace.restart()
                if (logs or stops) and log is not None:
                    log.add(row)
                    self._warn(watch.see(row))
                if logs or stops or pace.early():
                    self._tell(TrainEvent("step", stage.name, done, stage.steps, row))
                self._expect(pace)
                if "val_miou" in row:
                    self._keep_best(miou, f"{stage.name} @{done}")
                    self._tell(TrainEvent("validation", stage.name, done, stage.steps, row))
                if last_step and run.trains_network and len(self.plan.stages) > 1:
                    self._save(self._stage_file(stage.name), {}, {"miou": miou})
                    self._fabric.barrier()  # the next stage may read it
                if saves or stops:
                    self._save_state(index, done, last_step, miou, run)
                if stops and not (last_step and index + 1 == len(self.plan.stages)):
                    raise TrainingStopped(stage.name, done, self.folder / "last.pth")
        finally:
            self._stop.stepping = False
            run.close()
        return miou

    def _numbers(self, values: Mapping[str, Any], step: int, *, wanted: bool) -> dict[str, float]:
        """Losses as floats, averaged over processes; nothing where nobody asks, so that a GPU need not wait.

        Raises:
            TrainingError: If one is not finite.
        """
        if not wanted:
            return {}
        names = sorted(values)
        found = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        if self._fabric.world_size > 1:
            found = self._fabric.all_reduce(found.to(self._fabric.device), reduce_op="mean").cpu()  # type: ignore[union-attr]
        row = dict(zip(names, found.tolist(), strict=True))
        _check_finite(row, step)
        return {name: row[name] for name in values}

    def _stage_context(self, index: int) -> StageContext:
        plan, stage, fabric = self.plan, self.plan.stages[index], self._fabric
        size = plan.batch_size // fabric.world_size
        source = self._source
        if stage.labelled == "target":
            with fabric.rank_zero_first(local=True):
                source = self._open(plan.target)
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
            source=self._same_classes(source),
            target=self._target,
            tell=lambda text: self._tell(TrainEvent("note", text)),
        )

    def _load_start(self, stage: StageConfig) -> None:
        """Put the weights into the network that a stage starts from."""
        if stage.start == "scratch":
            torch.manual_seed(self.plan.seed)
            self._model.load_state_dict(self._new_model(quiet=True).state_dict())
        elif stage.start != "previous":
            self._model.load_state_dict(dict(read_checkpoint(self._stage_file(stage.start)).weights))

    def _stage_file(self, name: str) -> Path:
        return self.folder / f"stage-{name}.pth"

    def _finished(self, name: str) -> SegmentationNetwork:
        model = model_from_checkpoint(read_checkpoint(self._stage_file(name)))
        return model.requires_grad_(False).to(self._fabric.device)

    def _open(self, text: str, split: str = "train") -> LabelledSet:
        asked: dict[str, Any] = {"classes": class_list(self.plan.classes)} if self.plan.classes else {}
        found = open_labelled(text, split=split, progress=self._prepare(text), **asked)
        first_look(
            found,
            to_train=split == "train",
            progress=self._prepare(f"{text} (first look)"),
            tell=lambda text: self._tell(TrainEvent("warning", text)),
        )
        self._say_left_out(found)
        return self._cached(found) if split == "train" else found

    def _open_target(self, text: str) -> UnlabelledSet:
        found = open_unlabelled(text, progress=self._prepare(text))
        self._say_left_out(found)
        return self._cached(found)

    def _say_left_out(self, pictures: UnlabelledSet) -> None:
        for why, paths in pictures.left_out().items():
            self._tell(TrainEvent("note", f"left out of {pictures.address}: {why}: {len(paths)}"))

    def _warn_of_own_pictures(self) -> None:
        labelled = {stage.labelled for stage in self.plan.stages}
        trained = [data for data in (self._source, self._target) if data is not None]
        own = shared_pictures(
            [data for name, data in zip(("source", "target"), trained) if name in labelled], self._val
        )
        if own:
            text = f"{own} of the {len(self._val)} pictures it validates on are trained on: name others with --val DATA"
            self._tell(TrainEvent("warning", text))

    def _cached(self, pictures: _Set) -> _Set:
        """The set with its pixels from the cache, if the plan says so."""
        plan = self.plan
        if not plan.cache:
            return pictures
        return cached(
            pictures,
            cached_size(plan.size_hw, plan.augment.scale_max),
            plan.input.interpolation,
            progress=self._prepare(f"{pictures.address} (cache)"),
            tell=lambda text: self._tell(TrainEvent("note", text)),
        )

    def _warn(self, warnings: Iterable[Finding]) -> None:
        for warning in warnings:
            self._tell(TrainEvent("warning", f"{warning.stage}: {warning.text}", warning.step))

    def _expect(self, pace: Pace) -> None:
        text = pace.expectation()
        if text:
            self._tell(TrainEvent("note", text))

    def _tell_start(self, state: Mapping[str, Any]) -> None:
        finished = bool(state.get("done")) and state.get("stage_index") == len(self.plan.stages) - 1
        values = {
            "plan": self.plan,
            "folder": self.folder,
            "hardware": describe(self._fabric),
            "resumed": state.get("step"),
            "finished": finished,
        }
        self._tell(TrainEvent("start", values=values))

    def _stops_alone(self) -> bool:
        """Whether this process was asked to stop, and is the only one: it may at once."""
        return self._stop.asked and self._fabric.world_size == 1

    def _stops_everywhere(self) -> bool:
        """Whether any process was asked to stop; all call it at the same step."""
        if self._fabric.world_size == 1:
            return self._stop.asked
        flag = torch.tensor(float(self._stop.asked), device=self._fabric.device)
        return bool(self._fabric.all_reduce(flag, reduce_op="sum") > 0)  # type: ignore[operator]

    def _validate(self, row: dict[str, Any], log: RunLog | None, stop: Callable[[], bool] | None) -> Scores | None:
        confusion = ConfusionMatrix(self._model.num_classes)
        scores = validate(
            self._model,
            self._val,
            self.plan.size_hw,
            self.plan.input,
            max_pictures=self.plan.val_pictures,
            confusion=confusion,
            progress=lambda done, total: self._tell(TrainEvent("validating", row["stage"], done, total)),
            stop=stop,
        )
        if scores is None:
            return None
        if not scores.pixels:
            raise DataError(
                f"none of the {self.plan.val_pictures or len(self._val)} pictures of {self._val.address} that were"
                " validated on has a labelled pixel",
                hint="take more of them: --set val_pictures=0 is all",
            )
        row["val_miou"], row["val_pixel_accuracy"] = scores.miou(), scores.pixel_accuracy
        row["val_iou"] = scores.to_dict()["iou"]
        if log is not None:
            log.keep_confusion(row, self._val, confusion.counts)
            log.show(row, self._model, self._target or self._source, self.plan, self._spec.palette)
        return scores

    # files

    def _keep_best(self, miou: float, at: str) -> None:
        if miou > float(self._best["miou"]) and self._fabric.is_global_zero:
            self._best = {"miou": miou, "at": at}
            self._save(self.folder / "best.pth", {}, {"miou": miou, "at": at})

    def _save_state(self, index: int, step: int, done: bool, miou: float, run: StageRun) -> None:
        if not self._fabric.is_global_zero:
            return
        state = {
            "plan": self.plan.to_dict(),
            "stage_index": index,
            "step": step,
            "done": done,
            "best": self._best,
            "last_miou": miou,
            "run": run.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        self._save(self.folder / "last.pth", state, {} if math.isnan(miou) else {"miou": miou})

    def _save(self, path: Path, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        if not self._fabric.is_global_zero:
            return
        self._only_the_start = False
        scored = {"data": f"{self.plan.validation} (val)", **metrics}
        provenance = {**self._spec.provenance, "metrics": scored}
        weights = {key: value.detach().cpu() for key, value in self._model.state_dict().items()}
        write_checkpoint(path, Checkpoint(self._spec.replace(provenance=provenance), weights, state))

    def _save_verify_pictures(self) -> None:
        if not self._fabric.is_global_zero:
            return
        cv2 = require("cv2", extra="training", purpose="to store pictures")
        pictures: UnlabelledSet = self._target or self._source
        if self.plan.cache:  # the export is verified on what a camera gives, not on what is kept for training
            pictures = open_unlabelled(str(pictures.address))
        folder = writable_folder(self.folder / "verify")
        for place in range(min(VERIFY_PICTURES, len(pictures))):
            path = folder / f"{place}.png"
            if not path.exists():
                index = place * len(pictures) // VERIFY_PICTURES if len(pictures) >= VERIFY_PICTURES else place
                encoded, content = cv2.imencode(".png", usable_frame(pictures, index))
                if not encoded:
                    raise DataError(
                        f"cannot encode {pictures.name(index)} as PNG",
                        hint="memory may be short (free -h); run it again",
                    )
                write_bytes(path, content.tobytes())

    # set-up

    def _new_model(self, *, quiet: bool = False) -> SegmentationNetwork:
        plan = self.plan
        model = build_network(plan.network, plan.backbone, plan.variant, self._source.classes.num_classes)
        self._parent = ""
        if plan.backbone_weights:
            report = load_backbone_weights(model, plan.backbone_weights)
            if not quiet:
                found = f"{report.matched} of {report.total} tensors from {plan.backbone_weights}"
                self._tell(TrainEvent("note", f"backbone: {found}"))
        if plan.init:
            self._load_init(model, plan.init)
        return model.to(self._fabric.device)

    def _load_init(self, model: SegmentationNetwork, path: str) -> None:
        start = read_checkpoint(path)
        if start.spec.class_names != self._source.classes.names:
            raise CheckpointError(
                f"{path} was trained on other classes than {self.plan.source} has",
                hint="start from a checkpoint of the same classes, or leave init away",
            )
        problem = difference(model.state_dict(), start.weights)
        if problem:
            raise CheckpointError(
                f"{path} is of another network than {' '.join(map(str, model.architecture.values()))}: {problem}",
                hint="set network, backbone and variant to what rtda-deploy inspect shows",
            )
        refuse_broken_numbers(start.weights, path)
        model.load_state_dict(dict(start.weights))
        self._parent = sha256_file(path)

    def _new_spec(self) -> ModelSpec:
        plan, classes = self.plan, self._source.classes
        provenance: dict[str, Any] = {
            "architecture": self._model.architecture,
            "recipe": plan.name,
            "domains": {"source": plan.source, "target": plan.target},
            "versions": {"rtda-deploy": __version__, "torch": torch.__version__},
            "seed": plan.seed,
        }
        if self._parent:
            provenance["parent_sha256"] = self._parent
        return ModelSpec(
            size_hw=plan.size_hw,
            class_names=classes.names,
            palette=classes.palette,
            channel_order=plan.input.channel_order,
            pixel_scale=plan.input.pixel_scale,
            mean=plan.input.mean,
            std=plan.input.std,
            interpolation=plan.input.interpolation,
            output_stride=OUTPUT_STRIDE,
            provenance=provenance,
        )

    def _same_classes(self, other: LabelledSet) -> LabelledSet:
        if other.classes.names != self._source.classes.names:
            raise DataError(
                f"{other.address} has other classes than {self._source.address}",
                hint="join both to one list: --set classes=camvid (or cityscapes)",
            )
        return other

    def _check_resume(self, state: Mapping[str, Any]) -> None:
        theirs, ours = dict(state["plan"]), self.plan.to_dict()
        differ = sorted(key for key in ours if theirs.get(key) != ours[key])
        if differ:
            raise CheckpointError(
                f"the run in {self.folder} was started with another plan; these differ: {', '.join(differ)}",
                hint="use the same recipe and flags, or another --out",
            )

    def _prepare(self, text: str) -> Callable[[int, int], None]:
        return lambda done, total: self._tell(TrainEvent("prepare", text, done, total))


def _check_finite(row: Mapping[str, Any], step: int) -> None:
    floats = {name: value for name, value in row.items() if isinstance(value, float) and not name.startswith("val_")}
    bad = [name for name, value in floats.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"{', '.join(bad)} is not a finite number at step {step}; last.pth holds the last good checkpoint",
            hint="lower the rate (--set optimizer.learning_rate=…), add warm-up, or use --set precision=fp32",
        )


def _check_size(plan: PlanConfig) -> None:
    height, width = plan.size_hw
    multiple = network_class(plan.network).SIZE_MULTIPLE
    if height % multiple or width % multiple:
        near = [max(1, round(side / multiple)) * multiple for side in (width, height)]
        raise ConfigError(
            f"size {plan.size} is no multiple of {multiple} each way",
            hint=f"nearest that works: {near[0]}x{near[1]}",
        )


def _check_processes(plan: PlanConfig, processes: int) -> None:
    if plan.batch_size % processes:
        raise ConfigError(
            f"batch_size {plan.batch_size} cannot be shared evenly by {processes} processes",
            hint=f"batch_size counts all pictures of a step: take a multiple of {processes}",
        )
