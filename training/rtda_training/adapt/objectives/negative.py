"""Negative learning: what a target pixel is surely not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor

from rtda_training.adapt.components import TARGET_FORWARD, Objective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.slots import component, number

__all__ = ["Negative", "NegativeConfig", "ranks"]


@dataclasses.dataclass(frozen=True)
class NegativeConfig:
    """Which class a pixel is pushed away from.

    Attributes:
        weight: Of the term.
        middle: Place of that class among all, by probability, as a share of their number: 0.5 is the middle one.
        spread: How far the place may lie from there, as a share too; it is drawn for each step (3 of 19 in LDBE).
    """

    weight: float = number(1.0, 0.0, 10.0)
    middle: float = number(0.5, 0.0, 1.0)
    spread: float = number(0.16, 0.0, 0.5)


@component("objectives", "negative", NegativeConfig)
class Negative(Objective):
    """``-log(1 - p)`` of each pixel's k-th likeliest class, never of the likeliest; at the network's output stride.

    A network that is unsure between two classes is mostly right that it is none of the others: this can be learned from
    pixels that no label is given to.

    Source: the published code of LDBE; negative learning: Kim et al., NLNL (ICCV 2019).
    """

    needs_target = True

    def __init__(self, config: NegativeConfig, stage: StageContext) -> None:
        self._config = config
        self._ranks = ranks(stage.num_classes, config)

    @classmethod
    def silenced(cls, config: Any) -> tuple[str, Any]:
        del config
        return TARGET_FORWARD

    def network_loss(self, context: StepContext) -> Tensor:
        rank = int(context.rng("negative").choice(self._ranks))
        probabilities = context.target_output().coarse.float().softmax(dim=1)  # (N, C, h, w)
        chosen = probabilities.detach().argsort(dim=1, descending=True)[:, rank : rank + 1]
        unlikely = probabilities.gather(1, chosen)
        loss: Tensor = -(1.0 - unlikely).clamp_min(1e-6).log().mean()
        return self._config.weight * loss


def ranks(num_classes: int, config: NegativeConfig) -> list[int]:
    """The places that may be drawn, 0 for the likeliest class, which never may."""
    middle, spread = math.floor(config.middle * num_classes), round(config.spread * num_classes)
    low, high = max(1, middle - spread), min(num_classes - 1, middle + spread)
    return list(range(min(low, max(1, high)), max(high, low) + 1)) if num_classes > 1 else [0]
