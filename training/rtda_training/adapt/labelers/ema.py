"""A mean teacher: its weights are the running mean of the network's."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rtda_training.adapt.components import Labeler
from rtda_training.adapt.context import PseudoLabels, StageContext, StepContext
from rtda_training.adapt.labelers.priors import ClassPriors
from rtda_training.adapt.slots import choice, component, number
from rtda_training.labels import IGNORE_INDEX

__all__ = ["EmaConfig", "EmaLabeler", "average_into"]


@dataclasses.dataclass(frozen=True)
class EmaConfig:
    """The teacher, and which of its labels are used.

    Attributes:
        momentum: What the teacher keeps of itself each step (0.99 DACS, 0.999 DAFormer); less in the first steps.
        norm: Batch norms of the teacher use its averaged ``running`` statistics, or those of the ``batch``, as the
            published codes do.
        threshold: Confidence from which on a label is used; 0: every label.
        relative: ``threshold`` is a share of the network's mean confidence on the source batch of the step (0.9 in
            AdaMatch), so that a young network is not asked for what it has nowhere.
        weighting: ``fraction``: every pixel counts, weighted by the share of confident ones in the whole batch (DACS);
            ``pixel``: only confident ones count, and 1; ``soft``: confident ones count by their confidence.
        ramp: Share of the stage's steps in which the weight of the labels rises from 0 to 1 along half a cosine (0.5
            in AdaMatch).
        align: How far the classes' shares in the teacher's answers are drawn to those of the source's labels (1:
            AdaMatch's alignment of distributions; 0: not at all).
        ignore_top: Share of the height, from above, that does not count.
        ignore_bottom: The same from below, such as the car's own bonnet.
        teach: ``class``: the likeliest class of each pixel, as in the papers; ``probabilities``: those of all classes,
            so that a small class of which the teacher is half sure is not taught away.
        deploy: The stage leaves the teacher and not the network.
    """

    momentum: float = number(0.99, 0.0, 1.0)
    norm: str = choice("running", "batch")
    threshold: float = number(0.968, 0.0, 1.0)
    relative: bool = False
    weighting: str = choice("fraction", "pixel", "soft")
    ramp: float = number(0.0, 0.0, 1.0)
    align: float = number(0.0, 0.0, 1.0)
    ignore_top: float = number(0.0, 0.0, 0.9)
    ignore_bottom: float = number(0.0, 0.0, 0.9)
    deploy: bool = False
    teach: str = choice("class", "probabilities")


@component("labeler", "ema", EmaConfig)
class EmaLabeler(Labeler):
    """Labels of a mean teacher on the very pictures of the step.

    Batch-norm statistics are averaged with the parameters: a teacher that keeps those of the start is broken silently,
    and BiSeNet has batch norms everywhere.

    Source: Tarvainen and Valpola, Mean Teacher (NeurIPS 2017); Tranheden et al., DACS (WACV 2021); relative threshold
    and ramp: Berthelot et al., AdaMatch (ICLR 2022), sections 3.2 to 3.4.
    """

    @classmethod
    def needs_source(cls, config: EmaConfig) -> bool:
        return config.relative or config.align > 0

    def __init__(self, config: EmaConfig, stage: StageContext) -> None:
        self._config = config
        self._stage = stage
        self.teacher = copy.deepcopy(stage.network).requires_grad_(False)
        _set_norms(self.teacher, config.norm)
        self._share: Tensor | None = None
        self._priors = ClassPriors(stage.num_classes, config.align) if config.align else None

    @torch.no_grad()
    def label(self, context: StepContext) -> PseudoLabels:
        config = self._config
        with self._stage.fabric.autocast():
            logits = self.teacher(context.target).logits
        probabilities = logits.float().softmax(dim=1)
        if self._priors is not None:
            probabilities = self._priors.align(probabilities, context.label, context.share)
        confidence, label = probabilities.max(dim=1)
        confident = confidence >= self._limit(context)
        self._share = context.share(confident.float().mean())
        counted = ~_ignored_rows(label, config.ignore_top, config.ignore_bottom)
        if config.weighting == "fraction":
            weight = torch.where(counted, self._share, torch.zeros_like(confidence))
        else:
            label = torch.where(confident & counted, label, torch.full_like(label, IGNORE_INDEX))
            weight = confidence if config.weighting == "soft" else torch.ones_like(confidence)
        soft = probabilities if config.teach == "probabilities" else None
        if config.weighting == "pixel" and not config.ramp:
            return PseudoLabels(label, None, soft)
        return PseudoLabels(label, weight * _ramped(context.step, config.ramp * self._stage.steps), soft)

    def _limit(self, context: StepContext) -> float | Tensor:
        """The confidence that a label needs; of all processes together where it is relative."""
        if not self._config.relative:
            return self._config.threshold
        with torch.enable_grad():  # the supervised term shares this forward, and may come after
            logits = context.source_output().logits
        confidence = logits.detach().float().softmax(dim=1).amax(dim=1)
        return self._config.threshold * context.share(confidence.mean())

    def after_step(self, context: StepContext) -> dict[str, Any]:
        momentum = min(1.0 - 1.0 / (context.step + 1), self._config.momentum)
        average_into(self.teacher, self._stage.network, momentum)
        share, self._share = self._share, None
        return {} if share is None else {"pseudo_share": share}

    def finish(self, network: nn.Module) -> None:
        if self._config.deploy:
            self._stage.keep("student", network)
            network.load_state_dict(self.teacher.state_dict())
        else:
            self._stage.keep("teacher", self.teacher)

    def state_dict(self) -> dict[str, Any]:
        priors = {} if self._priors is None else {"priors": self._priors.state_dict()}
        return {"teacher": self.teacher.state_dict(), **priors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])
        if self._priors is not None:
            self._priors.load_state_dict(state["priors"])


@torch.no_grad()
def average_into(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``teacher = momentum * teacher + (1 - momentum) * student``, for parameters and floating buffers alike.

    Buffers of whole numbers (batch norms count their batches) are copied.
    """
    mine, theirs = teacher.state_dict(keep_vars=True), student.state_dict(keep_vars=True)
    for name, value in mine.items():
        if value.is_floating_point():
            value.lerp_(theirs[name].to(value.dtype), 1.0 - momentum)
        else:
            value.copy_(theirs[name])


def _set_norms(teacher: nn.Module, norm: str) -> None:
    """Evaluation mode; with ``batch``, batch norms use the batch's statistics and leave the averaged ones alone."""
    teacher.eval()
    if norm == "batch":
        for module in teacher.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
                module.track_running_stats = False  # else a forward would change the statistics


def _ramped(step: int, steps: float) -> float:
    """From 0 at the first step to 1 at ``steps``, along half a cosine; 1 where there is no ramp."""
    return 0.5 - 0.5 * math.cos(math.pi * step / steps) if step < steps else 1.0


def _ignored_rows(label: Tensor, top: float, bottom: float) -> Tensor:
    """bool, shaped as ``label`` (N, H, W)."""
    height = label.shape[1]
    row = torch.arange(height, device=label.device)
    ignored = (row < round(top * height)) | (row >= height - round(bottom * height))
    return ignored[None, :, None].expand_as(label)
