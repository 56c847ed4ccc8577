"""A mean teacher: its weights are the running mean of the network's."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rtda_training.adapt.components import Labeler
from rtda_training.adapt.context import PseudoLabels, StageContext, StepContext
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
        threshold: Confidence from which on a label is used.
        weighting: ``fraction``: every pixel counts, weighted by the share of confident ones in the whole batch (DACS);
            ``pixel``: only confident ones count.
        ignore_top: Share of the height, from above, that does not count.
        ignore_bottom: The same from below, such as the car's own bonnet.
        deploy: The stage leaves the teacher and not the network.
    """

    momentum: float = number(0.99, 0.0, 1.0)
    norm: str = choice("running", "batch")
    threshold: float = number(0.968, 0.0, 1.0)
    weighting: str = choice("fraction", "pixel")
    ignore_top: float = number(0.0, 0.0, 0.9)
    ignore_bottom: float = number(0.0, 0.0, 0.9)
    deploy: bool = False


@component("labeler", "ema", EmaConfig)
class EmaLabeler(Labeler):
    """Labels of a mean teacher on the very pictures of the step.

    Batch-norm statistics are averaged with the parameters: a teacher that keeps those of the start is broken silently,
    and BiSeNet has batch norms everywhere.

    Source: Tarvainen and Valpola, Mean Teacher (NeurIPS 2017); Tranheden et al., DACS (WACV 2021).
    """

    def __init__(self, config: EmaConfig, stage: StageContext) -> None:
        self._config = config
        self._stage = stage
        self.teacher = copy.deepcopy(stage.network).requires_grad_(False)
        _set_norms(self.teacher, config.norm)
        self._share: Tensor | None = None

    @torch.no_grad()
    def label(self, context: StepContext) -> PseudoLabels:
        config = self._config
        with self._stage.fabric.autocast():
            logits = self.teacher(context.target).logits
        confidence, label = logits.float().softmax(dim=1).max(dim=1)
        confident = confidence >= config.threshold
        self._share = context.share(confident.float().mean())
        rows = _ignored_rows(label, config.ignore_top, config.ignore_bottom)
        if config.weighting == "pixel":
            return PseudoLabels(torch.where(confident & ~rows, label, torch.full_like(label, IGNORE_INDEX)), None)
        weight = torch.where(rows, torch.zeros_like(confidence), self._share.expand_as(confidence))
        return PseudoLabels(label, weight)

    def after_step(self, context: StepContext) -> dict[str, Any]:
        momentum = min(1.0 - 1.0 / (context.step + 1), self._config.momentum)
        average_into(self.teacher, self._stage.network, momentum)
        share, self._share = self._share, None
        return {} if share is None else {"pseudo_share": share}

    def finish(self, network: nn.Module) -> None:
        if self._config.deploy:
            network.load_state_dict(self.teacher.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": self.teacher.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])


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


def _ignored_rows(label: Tensor, top: float, bottom: float) -> Tensor:
    """bool, shaped as ``label`` (N, H, W)."""
    height = label.shape[1]
    row = torch.arange(height, device=label.device)
    ignored = (row < round(top * height)) | (row >= height - round(bottom * height))
    return ignored[None, :, None].expand_as(label)
