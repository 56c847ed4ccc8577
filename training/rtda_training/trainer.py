"""The training loop: stages of a plan on Lightning Fabric, with checkpoints that continue bit by bit on the CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtda_deploy import __version__
from rtda_deploy.errors import CheckpointError, ConfigError, DataError, TrainingError
from rtda_deploy.files import sha256_file, writable_folder, write_bytes
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_training.adapt.batchnorm import reestimate
from rtda_training.adapt.context import StepContext
from rtda_training.adapt.objectives import Objective, build_objectives
from rtda_training.adapt.styles import fourier_transfer
from rtda_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.batches import StepBatches, batches_from, normalise
from rtda_training.hardware import build_fabric, describe
from rtda_training.metrics import Scores
from rtda_training.models import OUTPUT_STRIDE, SIZE_MULTIPLE, BiSeNet, load_backbone_weights
from rtda_training.models.state_dicts import difference
from rtda_training.plan import AugmentConfig, PlanConfig, StageConfig
from rtda_training.readers import LabelledSet, UnlabelledSet, open_labelled, open_unlabelled
from rtda_training.runlog import RunLog
from rtda_training.validate import validate

__all__ = ["VERIFY_PICTURES", "TrainEvent", "TrainResult", "Trainer"]

VERIFY_PICTURES = 8  # target pictures kept beside the checkpoint; the export is verified on them
_BN_PICTURES = 400  # target pictures that batch-norm statistics are averaged over
_LOG_EVERY = 20  # steps
_SOURCE_STREAM, _TARGET_STREAM, _BN_STREAM = 0, 1, 2  # independent random streams of one seed


@dataclass(frozen=True)
class TrainEvent:
    """What the loop tells whoever watches.

    Attributes:
        kind: ``prepare`` (rendering a set), ``note``, ``stage``, ``step``, ``validation``.
        stage: Name of the stage, or of the set being prepared, or the text of the note.
        step: Steps done.
        total: Steps in all.
        values: Losses, rates and scores of the row logged.
    """

    kind: str
    stage: str = ""
    step: int = 0
    total: int = 0
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its folder, the best and the last validation (fractions 0..1), and the seconds it took."""

    folder: Path
    best_miou: float
    best_at: str
    last_miou: float
    seconds: float


class Trainer:
    """Runs a plan in a folder.

    Args:
        plan: What to do.
        folder: Gets ``last.pth``, ``best.pth``, ``stage-<name>.pth``, ``results.csv``, ``metrics.jsonl``, ``verify/``.
        on_event: Told of progress.

    Raises:
        RtdaError: Whatever makes the plan impossible, before any step is made.
    """

    def __init__(self, plan: PlanConfig, folder: Path, on_event: Callable[[TrainEvent], None] | None = None) -> None:
        self.plan = plan
        self.folder = writable_folder(folder)
        self._tell = on_event or (lambda event: None)
        _check_size(plan)
        torch.manual_seed(plan.seed)
        self._fabric = build_fabric(plan.device, plan.precision)
        self.hardware = describe(self._fabric)
        self._workers = plan.workers if plan.workers >= 0 else (4 if self._fabric.device.type == "cuda" else 0)
        self._source = open_labelled(plan.source, progress=self._prepare(plan.source))
        self._target = open_unlabelled(plan.target, progress=self._prepare(plan.target)) if plan.target else None
        self._val = open_labelled(plan.validation, split="val", progress=self._prepare(plan.validation))
        self._same_classes(self._val)
        self._model = self._new_model()
        self._spec = self._new_spec()

    def run(self, resume: Checkpoint | None = None) -> TrainResult:
        """Train all stages; with ``resume``, go on where that checkpoint was written.

        Raises:
            TrainingError: If a loss is not finite.
            CheckpointError: If ``resume`` is of another plan.
        """
        started = time.monotonic()
        state = dict(resume.training) if resume is not None else {}
        if state:
            self._check_resume(state)
            self._model.load_state_dict(dict(resume.weights) if resume is not None else {})
        self._best = dict(state.get("best", {"miou": -1.0, "at": ""}))
        first = int(state.get("stage_index", 0))
        log = RunLog(self.folder, (first, int(state.get("step", 0))))
        self._save_verify_pictures()
        last = float(state.get("last_miou", math.nan))
        try:
            for index in range(first, len(self.plan.stages)):
                if state.get("done") and index == first:
                    state = {}
                    continue
                last = self._run_stage(index, log, state)
                state = {}
        finally:
            log.close()
        return TrainResult(
            self.folder, float(self._best["miou"]), str(self._best["at"]), last, time.monotonic() - started
        )

    # one stage

    def _run_stage(self, index: int, log: RunLog, state: dict[str, Any]) -> float:
        stage = self.plan.stages[index]
        self._tell(TrainEvent("stage", stage.name, total=stage.steps))
        torch.manual_seed(self.plan.seed + index)
        objectives = build_objectives(stage, self._model.num_classes, self._fabric)
        module = self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network, optimizer = self._fabric.setup(module, _optimizer(self._model, stage))
        start = int(state.get("step", 0))
        if state:
            optimizer.load_state_dict(state["optimizer"])
            for objective in objectives:
                objective.load_state_dict(state["objectives"][objective.name])
            torch.set_rng_state(state["torch_rng"])
        source, target = self._streams(stage, start)
        self._model.train()
        clock = _Rate(self.plan.batch_size)
        miou = math.nan
        for step in range(start, stage.steps):
            batches = next(source), next(target) if target else None
            done = step + 1
            row: dict[str, Any] = {"stage": stage.name, "stage_index": index, "step": done}
            row.update(self._step(step, stage, network, optimizer, objectives, *batches))
            row["pictures_per_s"] = clock.tick()
            last_step = done == stage.steps
            if last_step and stage.bn_statistics == "target":
                self._average_target_statistics()
            if last_step or (self.plan.val_every and done % self.plan.val_every == 0):
                scores = self._validate(row)
                miou = scores.miou()
                clock.restart()
            if done % _LOG_EVERY == 0 or last_step or "val_miou" in row:
                _check_finite(row, done)
                log.add(row)
                self._tell(TrainEvent("step", stage.name, done, stage.steps, row))
            if "val_miou" in row:
                self._keep_best(miou, f"{stage.name} @{done}")
                self._tell(TrainEvent("validation", stage.name, done, stage.steps, row))
            if last_step or (self.plan.save_every and done % self.plan.save_every == 0):
                self._save_state(index, done, last_step, miou, optimizer, objectives)
        if len(self.plan.stages) > 1:
            self._save(self.folder / f"stage-{stage.name}.pth", {}, {"miou": miou})
        return miou

    def _step(
        self,
        step: int,
        stage: StageConfig,
        network: Any,
        optimizer: Any,
        objectives: list[Objective],
        source_batch: tuple[Tensor, Tensor],
        target_batch: tuple[Tensor, Tensor] | None,
    ) -> dict[str, float]:
        device = self._fabric.device
        factor = _learning_rate_factor(stage, step)
        for group in optimizer.param_groups:
            group["lr"] = stage.optimizer.learning_rate * factor
        frames = source_batch[0].to(device, non_blocking=True)
        target_frames = None if target_batch is None else target_batch[0].to(device, non_blocking=True)
        if stage.style == "fda" and target_frames is not None and _style_this(self.plan.seed, step, stage):
            frames = _fda(frames, target_frames, stage.fda_beta)
        wants_target = any(objective.needs_target for objective in objectives)
        context = StepContext(
            step=step,
            source=normalise(frames, self.plan.input),
            label=source_batch[1].to(device, non_blocking=True),
            target=normalise(target_frames, self.plan.input) if wants_target and target_frames is not None else None,
            forward=network,
        )
        optimizer.zero_grad()
        losses = {objective.name: objective.network_loss(context) for objective in objectives}
        self._fabric.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
        row: dict[str, float] = {}
        for objective in objectives:
            row.update(objective.play(context, _decay(stage, step)))
        row.update({name: float(loss.detach()) for name, loss in losses.items()})
        row["learning_rate"] = stage.optimizer.learning_rate * factor
        if not all(math.isfinite(value) for value in row.values()):
            _check_finite(row, step + 1)
        return row

    def _streams(
        self, stage: StageConfig, start: int
    ) -> tuple[Iterator[tuple[Tensor, Tensor]], Iterator[tuple[Tensor, Tensor]] | None]:
        labelled = self._labelled(stage)
        source = batches_from(self._batches(labelled, stage.steps, _SOURCE_STREAM), start, self._workers)
        if not stage.trains_on_target:
            return source, None
        target = self._batches(self._need_target(), stage.steps, _TARGET_STREAM)
        return source, batches_from(target, start, self._workers)

    def _batches(
        self, pictures: UnlabelledSet, steps: int, stream: int, augment: AugmentConfig | None = None
    ) -> StepBatches:
        return StepBatches(
            pictures,
            size_hw=self.plan.size_hw,
            batch_size=self.plan.batch_size,
            seed=self.plan.seed,
            stream=stream,
            augment=augment or self.plan.augment,
            interpolation=self.plan.input.interpolation,
            steps=steps,
        )

    def _labelled(self, stage: StageConfig) -> LabelledSet:
        if stage.labelled == "source":
            return self._source
        return self._same_classes(open_labelled(self.plan.target, progress=self._prepare(self.plan.target)))

    def _average_target_statistics(self) -> None:
        target = self._need_target()
        steps = max(1, min(len(target), _BN_PICTURES) // max(2, self.plan.batch_size))
        plain = self._batches(target, steps, _BN_STREAM, AugmentConfig(flip=False))
        batches = (plain[step][0].to(self._fabric.device) for step in range(steps))
        reestimate(self._model, (normalise(frames, self.plan.input) for frames in batches))

    def _validate(self, row: dict[str, Any]) -> Scores:
        scores = validate(
            self._model, self._val, self.plan.size_hw, self.plan.input, max_pictures=self.plan.val_pictures
        )
        row["val_miou"], row["val_pixel_accuracy"] = scores.miou(), scores.pixel_accuracy
        row["val_iou"] = scores.to_dict()["iou"]
        return scores

    # files

    def _keep_best(self, miou: float, at: str) -> None:
        if miou > float(self._best["miou"]):
            self._best = {"miou": miou, "at": at}
            self._save(self.folder / "best.pth", {}, {"miou": miou, "at": at})

    def _save_state(
        self, index: int, step: int, done: bool, miou: float, optimizer: Any, objectives: list[Objective]
    ) -> None:
        state = {
            "plan": self.plan.to_dict(),
            "stage_index": index,
            "step": step,
            "done": done,
            "best": self._best,
            "last_miou": miou,
            "optimizer": optimizer.state_dict(),
            "objectives": {objective.name: objective.state_dict() for objective in objectives},
            "torch_rng": torch.get_rng_state(),
        }
        self._save(self.folder / "last.pth", state, {"miou": miou})

    def _save(self, path: Path, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        scored = {"data": f"{self.plan.validation} (val)", **metrics}
        provenance = {**self._spec.provenance, "metrics": scored}
        weights = {key: value.detach().cpu() for key, value in self._model.state_dict().items()}
        write_checkpoint(path, Checkpoint(self._spec.replace(provenance=provenance), weights, state))

    def _save_verify_pictures(self) -> None:
        cv2 = require("cv2", extra="training", purpose="to store pictures")
        pictures = self._target or self._source
        folder = writable_folder(self.folder / "verify")
        for place in range(min(VERIFY_PICTURES, len(pictures))):
            path = folder / f"{place}.png"
            if not path.exists():
                index = place * len(pictures) // VERIFY_PICTURES if len(pictures) >= VERIFY_PICTURES else place
                encoded, content = cv2.imencode(".png", pictures.frame(index))
                if not encoded:
                    raise DataError(f"cannot encode {pictures.name(index)} as PNG")
                write_bytes(path, content.tobytes())

    # set-up

    def _new_model(self) -> BiSeNet:
        plan = self.plan
        classes = self._source.classes
        model = BiSeNet(plan.backbone, plan.variant, classes.num_classes)
        self._parent = ""
        if plan.backbone_weights:
            report = load_backbone_weights(model, plan.backbone_weights)
            self._tell(
                TrainEvent("note", f"backbone: {report.matched} of {report.total} tensors from {plan.backbone_weights}")
            )
        if plan.init:
            self._load_init(model, plan.init)
        return model.to(self._fabric.device)

    def _load_init(self, model: BiSeNet, path: str) -> None:
        start = read_checkpoint(path)
        if start.spec.class_names != self._source.classes.names:
            raise CheckpointError(
                f"{path} was trained on other classes than {self.plan.source} has",
                hint="start from a checkpoint of the same classes, or leave init away",
            )
        problem = difference(model.state_dict(), start.weights)
        if problem:
            raise CheckpointError(
                f"{path} is of another network than {self.plan.backbone}, {self.plan.variant}: {problem}",
                hint="set backbone and variant to what rtda-deploy inspect shows",
            )
        model.load_state_dict(dict(start.weights))
        self._parent = sha256_file(path)

    def _new_spec(self) -> ModelSpec:
        plan, classes = self.plan, self._source.classes
        provenance: dict[str, Any] = {
            "architecture": {"name": "BiSeNet", "backbone": plan.backbone, "variant": plan.variant},
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

    def _need_target(self) -> UnlabelledSet:
        if self._target is None:
            raise ConfigError("this plan needs a target domain", hint="add --target DATA")
        return self._target

    def _same_classes(self, other: LabelledSet) -> LabelledSet:
        if other.classes.names != self._source.classes.names:
            raise DataError(
                f"{other.address} has other classes than {self._source.address}",
                hint="use sets with the same class names in the same order",
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


class _Rate:
    """Pictures per second since the last tick."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._smooth = 0.0
        self.restart()

    def restart(self) -> None:
        self._last = time.monotonic()

    def tick(self) -> float:
        now = time.monotonic()
        rate = self._batch_size / max(1e-9, now - self._last)
        self._last = now
        self._smooth = rate if not self._smooth else 0.9 * self._smooth + 0.1 * rate
        return round(self._smooth, 2)


def _optimizer(model: BiSeNet, stage: StageConfig) -> torch.optim.Optimizer:
    config = stage.optimizer
    if config.kind == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _decay(stage: StageConfig, step: int) -> float:
    return float((1.0 - step / stage.steps) ** stage.optimizer.power)


def _learning_rate_factor(stage: StageConfig, step: int) -> float:
    warmup = stage.optimizer.warmup_steps
    return _decay(stage, step) * (min(1.0, (step + 1) / warmup) if warmup else 1.0)


def _style_this(seed: int, step: int, stage: StageConfig) -> bool:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return float(torch.rand((), generator=generator)) < stage.fda_probability


def _fda(frames: Tensor, target_frames: Tensor, beta: float) -> Tensor:
    styled = fourier_transfer(frames.float().permute(0, 3, 1, 2), target_frames.float().permute(0, 3, 1, 2), beta)
    return styled.permute(0, 2, 3, 1)


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
    if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
        near = [max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in (width, height)]
        raise ConfigError(
            f"size {plan.size} is no multiple of {SIZE_MULTIPLE} each way",
            hint=f"nearest that works: {near[0]}x{near[1]}",
        )
