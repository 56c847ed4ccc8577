"""Class-balanced labels of the network as it was: the surest share of each class, so that rare classes keep theirs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rtda_training.adapt.components import Labeler
from rtda_training.adapt.context import PseudoLabels, StageContext, StepContext
from rtda_training.adapt.pseudo import ConfidenceHistogram, keep_confident
from rtda_training.adapt.slots import component, number

__all__ = ["BalancedConfig", "BalancedLabeler"]


@dataclasses.dataclass(frozen=True)
class BalancedConfig:
    """Which labels are kept, and how often the network that gives them is renewed.

    Attributes:
        share: Of the pixels that are taken for a class, those that are labelled, the surest first (0.1 in LDBE).
        rounds: The stage's steps in so many equal parts; at the start of each the labelling network becomes the network
            as it then is (2 in LDBE).
    """

    share: float = number(0.1, 0.01, 1.0)
    rounds: int = number(2, 1, 1000)


@component("labeler", "balanced", BalancedConfig)
class BalancedLabeler(Labeler):
    """Labels of a frozen copy of the network, with a threshold for each class.

    A threshold is the quantile of the confidences that the copy gave this class so far, in this round: no pass over all
    pictures is needed before the first step. The copy is in evaluation mode: its batch norms use what they carry.

    Attributes:
        teacher: The frozen copy.

    Source: class-balanced labels: Zou et al., CBST (ECCV 2018), section 4.2; without source pictures and in rounds:
        the published code of LDBE.
    """

    def __init__(self, config: BalancedConfig, stage: StageContext) -> None:
        self._config, self._stage = config, stage
        self.teacher: nn.Module = copy.deepcopy(stage.network).requires_grad_(False).eval()
        self._histogram = ConfidenceHistogram(stage.num_classes)
        self._share: torch.Tensor | None = None

    @torch.no_grad()
    def label(self, context: StepContext) -> PseudoLabels:
        if context.step and self._round(context.step) != self._round(context.step - 1):
            self.teacher.load_state_dict(self._stage.network.state_dict())
            self._histogram = ConfidenceHistogram(self._stage.num_classes)
        with self._stage.fabric.autocast():
            logits = self.teacher(context.target).logits
        confidence, label = logits.float().softmax(dim=1).max(dim=1)
        self._count(label, confidence, context)
        limits = self._histogram.quantile(1.0 - self._config.share)
        limits[limits != limits] = 1.0  # no pixel of it was seen by any process
        kept = keep_confident(label, confidence, limits)
        self._share = context.share((kept == label).float().mean())
        return PseudoLabels(kept, None)

    def _count(self, label: torch.Tensor, confidence: torch.Tensor, context: StepContext) -> None:
        """Add the confidences that all processes see in this step."""
        seen = ConfidenceHistogram(self._stage.num_classes)
        seen.add(label, confidence)
        mean = context.share(torch.from_numpy(seen.counts).double().to(label.device))
        seen.counts = (mean * self._stage.fabric.world_size).round().long().cpu().numpy()
        self._histogram.merge(seen)

    def _round(self, step: int) -> int:
        return step * self._config.rounds // self._stage.steps

    def after_step(self, context: StepContext) -> dict[str, Any]:
        del context
        share, self._share = self._share, None
        return {} if share is None else {"pseudo_share": share}

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": self.teacher.state_dict(), "counts": torch.from_numpy(self._histogram.counts.copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])
        self._histogram.counts = state["counts"].numpy().copy()
