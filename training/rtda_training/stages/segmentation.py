"""Training the segmentation network: one step of batches, style, forwards, objectives, players."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Labeler, Mixer, Objective, Sampler, Style
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.objectives.target_labels import TargetLabels, labelled_batch_size
from rtda_training.adapt.slots import Component, component
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.stages.base import (
    LABELLED_STREAM,
    SOURCE_STREAM,
    TARGET_STREAM,
    DeviceBatch,
    StageRun,
    Stream,
    decay,
    norm_batches,
)

__all__ = ["SegmentationStage", "mix_statistics", "reestimate"]


@component("kind", "segmentation")
class SegmentationStage(StageRun):
    """The network learns from the labelled domain and from what the stage's components make of the other."""

    def __init__(self, config: Any, stage: StageContext, plan: PlanConfig, stage_config: StageConfig) -> None:
        del config
        self._plan, self._stage_config, self._stage = plan, stage_config, stage
        self._network = stage.network
        self._parts: dict[str, Component] = {
            key: found(stage_config.settings[key], stage)
            for key, found in stage_config.used().items()
            if found.slot != "kind"
        }
        self._objectives = [cast(Objective, self._parts[key]) for key in stage_config.objectives]
        self._sampler = cast("Sampler | None", self._slot("sampler"))
        self._style = cast("Style | None", self._slot("style"))
        self._labeler = cast("Labeler | None", self._slot("labeler"))
        self._mixer = cast("Mixer | None", self._slot("mixer"))
        self._source: Stream | None = None
        self._target: Stream | None = None
        empty = torch.empty((0, *stage.size_hw), device=stage.fabric.device)
        self._nothing = DeviceBatch(empty[..., None].expand(-1, -1, -1, 3), empty.long())  # of a plan without a source
        self._frozen = _set_training(self._network, stage_config.batch_norm, stage)
        self._forward, self._optimizer = stage.fabric.setup(self._network, _optimizer(self._network, stage_config))

    def begin(self, step: int) -> None:
        plan, stage = self._plan, self._stage
        labelled = stage.source
        self._source = self._target = None
        if labelled is not None:
            order = self._sampler.order(labelled, (plan.seed, SOURCE_STREAM)) if self._sampler else None
            self._source = Stream(labelled, plan, stage, step, SOURCE_STREAM, order)
        if self._stage_config.trains_on_target:
            assert stage.target is not None
            pictures = self._labeler.prepare(stage.target) if self._labeler else stage.target
            self._target = Stream(pictures, plan, stage, step, TARGET_STREAM)
        self._labelled = self._labelled_stream(step)

    def _labelled_stream(self, step: int) -> Stream | None:
        """Target frames that people labelled, as many a step as their objective says."""
        if not self._stage_config.trains_on_target_labels:
            return None
        stage = self._stage
        assert stage.labelled_target is not None
        share = self._stage_config.settings[TargetLabels.key].share
        count = labelled_batch_size(share, self._plan.batch_size, stage.fabric.world_size)
        return Stream(stage.labelled_target, self._plan, stage, step, LABELLED_STREAM, batch_size=count)

    def step(self, step: int) -> dict[str, Any]:
        context = self._context(step)
        factor = decay(self._stage_config, step)
        rate = self._stage_config.optimizer.learning_rate * factor * _warm_up(self._stage_config, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        self._optimizer.zero_grad()
        losses = {
            objective.log_name or objective.key: objective.network_loss(context) for objective in self._objectives
        }
        self._stage.fabric.backward(torch.stack(list(losses.values())).sum())
        self._optimizer.step()
        row: dict[str, Any] = {name: loss.detach() for name, loss in losses.items()}
        for objective in self._objectives:
            for name, value in objective.play(context, factor).items():
                row[f"{objective.key}_{name}" if name in row else name] = value  # two adversaries side by side
        if self._labeler is not None:
            row.update(self._labeler.after_step(context))
        row["learning_rate"] = rate
        return row

    def finish(self) -> None:
        if self._labeler is not None:
            self._labeler.finish(self._network)
        if self._stage_config.bn_statistics != "running":
            self._stage.keep("unmixed", self._network)
            self._average_target_statistics()

    def close(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        parts = {key: part.state_dict() for key, part in self._parts.items()}
        return {"optimizer": self._optimizer.state_dict(), "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        for key, part in self._parts.items():
            part.load_state_dict(state["parts"][key])

    def _slot(self, slot: str) -> Component | None:
        return next((part for part in self._parts.values() if part.slot == slot), None)

    def _context(self, step: int) -> StepContext:
        stage = self._stage
        source = self._source.next() if self._source is not None else self._nothing
        assert source.labels is not None
        target = self._target.next() if self._target is not None else None
        labelled = self._labelled.next() if self._labelled is not None else None
        context = StepContext(
            step=step,
            source_frames=source.frames,
            label=source.labels,
            target_frames=None if target is None else target.frames,
            target_label=None if target is None else target.labels,
            labelled_frames=None if labelled is None else labelled.frames,
            labelled_label=None if labelled is None else labelled.labels,
            forward=self._forward,
            normalise=stage.normalise,
            labeler=self._labeler,
            mixer=self._mixer,
            seed=stage.seed,
            first_place=stage.first_place,
            share=self._share,
        )
        if self._style is not None:
            context.source_frames = self._style.apply(context)
        return context

    def _share(self, value: Tensor) -> Tensor:
        if self._stage.fabric.world_size == 1:
            return value
        return cast(Tensor, self._stage.fabric.all_reduce(value.detach().clone(), reduce_op="mean"))

    def _average_target_statistics(self) -> None:
        target = self._stage.target
        assert target is not None
        pictures = norm_batches(target, self._plan, self._stage.normalise, self._stage.fabric.device)
        mixed = self._stage_config.bn_statistics == "mixed"
        mix_statistics(self._network, pictures, self._stage_config.bn_share if mixed else 1.0)


def _optimizer(network: nn.Module, stage_config: StageConfig) -> torch.optim.Optimizer:
    config = stage_config.optimizer
    backbone = {id(parameter) for parameter in network.backbone.parameters()}  # type: ignore[union-attr]
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in backbone], "rate_factor": 1.0},
        {"params": [p for p in parameters if id(p) not in backbone], "rate_factor": config.head_factor},
    ]
    rate, weight_decay = config.learning_rate, config.weight_decay
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=weight_decay, fused=True)


def _warm_up(stage_config: StageConfig, step: int) -> float:
    warmup = stage_config.optimizer.warmup_steps
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _set_training(network: nn.Module, batch_norm: str, stage: StageContext) -> list[nn.Parameter]:
    """Training mode, batch norms as asked; gives the parameters frozen for this stage."""
    network.train()
    if batch_norm == "train":
        return []
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if batch_norm == "sync":
        if stage.fabric.device.type != "cuda":
            raise ConfigError("batch_norm = sync needs GPUs", hint='set batch_norm to "train" or "fixed"')
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return []
    frozen = [parameter for norm in norms for parameter in norm.parameters()]
    for norm in norms:
        norm.eval()
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of every batch norm by their plain average over ``batches``; weights stay.

    A network that saw both domains in turn carries statistics of both; the robot meets only the target. No label is
    needed.

    Args:
        model: Changed in place; left in the mode it was in.
        batches: float32 (N, 3, H, W) normalised target pictures, N at least 2.

    Returns:
        The number of batches averaged.

    Source: AdaBN (Li et al., 2018); cumulative averaging as in UBNA (Klingner et al., arXiv 2011.08502).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative moving average
    model.train()
    count = 0
    for pictures in batches:
        model(pictures)
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)
    return count


def mix_statistics(model: nn.Module, batches: Iterable[Tensor], share: float) -> int:
    """Move the running statistics of every batch norm towards their average over ``batches``; weights stay.

    Args:
        model: Changed in place; left in the mode it was in.
        batches: As :func:`reestimate` takes them.
        share: How far: 1 is :func:`reestimate`, 0 leaves the statistics as they are.

    Returns:
        The number of batches averaged.

    Source: alpha-BN (You et al., arXiv 2110.04065), section 3: means and variances are mixed alike.
    """
    before = {name: value.clone() for name, value in model.named_buffers() if "running_" in name}
    count = reestimate(model, batches)
    for name, value in model.named_buffers():
        if name in before:
            value.copy_(before[name].lerp(value, share))
    return count
