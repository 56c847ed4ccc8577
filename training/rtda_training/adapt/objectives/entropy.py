"""Entropy minimisation on the target: MinEnt's, or FDA's robust one."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from rtda_training.adapt.components import TARGET_FORWARD, Objective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.objectives.advent import self_information
from rtda_training.adapt.slots import choice, component, number

__all__ = ["Entropy", "EntropyConfig"]

_CHARBONNIER = 1e-8  # added to the squared entropy, as in FDA's code: keeps the gradient finite at 0


@dataclasses.dataclass(frozen=True)
class EntropyConfig:
    """The numbers are MinEnt's. FDA's code has form robust, eta 2, weight 0.005, start_step 50 000 (in its recipe 0).

    Attributes:
        form: ``plain``: mean over the pixels of their entropy e; ``robust``: mean of (e^2 + 1e-8)^eta.
        weight: Of the term.
        eta: Of the robust form; above 0.5, unsure pixels weigh more than sure ones.
        start_step: The first step with this term.
    """

    form: str = choice("plain", "robust")
    weight: float = number(0.001, 0.0, 10.0)
    eta: float = number(2.0, 0.0, 10.0)
    start_step: int = number(0, 0, 1e9)


@component("objectives", "entropy", EntropyConfig)
class Entropy(Objective):
    """Makes the network sure of the target's pixels; 1 is the entropy of a uniform softmax, for any number of classes.

    The penalty of the robust form is taken of each pixel, then averaged. FDA's formula sums over pictures and leaves
    open whether the penalty sees a pixel or a whole map; its reason, that sure regions must not outweigh unsure ones,
    holds only per pixel.

    Source: Vu et al., ADVENT (CVPR 2019), section 3; Yang and Soatto, FDA (CVPR 2020), section 3.
    """

    needs_target = True

    def __init__(self, config: EntropyConfig, stage: StageContext) -> None:
        self._config = config

    @classmethod
    def silenced(cls, config: EntropyConfig) -> tuple[str, Any]:
        if config.start_step:  # the target is not passed through the network from the first step on
            return cls.key, dataclasses.replace(config, weight=0.0)
        return TARGET_FORWARD

    def network_loss(self, context: StepContext) -> Tensor:
        config = self._config
        if context.step < config.start_step:
            # The target need not pass through the network for this; a leaf of its own has no gradient to give.
            return torch.zeros((), device=context.source_frames.device, requires_grad=True)
        entropy = self_information(context.target_output().logits).sum(dim=1)  # (N, H, W)
        if config.form == "robust":
            entropy = (entropy.square() + _CHARBONNIER) ** config.eta
        return config.weight * entropy.mean()
