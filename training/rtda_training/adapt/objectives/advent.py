"""ADVENT's adversary: as RTDA's, on maps of self-information instead of probability."""

from __future__ import annotations

import dataclasses
import math

from torch import Tensor
from torch.nn import functional

from rtda_training.adapt.objectives.adversarial import Adversarial, AdversarialConfig
from rtda_training.adapt.slots import choice, component, number
from rtda_training.models import DISCRIMINATORS

__all__ = ["Advent", "AdventConfig", "self_information"]


@dataclasses.dataclass(frozen=True)
class AdventConfig(AdversarialConfig):
    """The adversary of ``adversarial`` with ADVENT's numbers."""

    discriminator: str = choice("fcd", *(name for name in DISCRIMINATORS if name != "fcd"))
    sees: str = choice("self-information")
    weight: float = number(0.001, 0.0, 10.0)


@component("objectives", "advent", AdventConfig)
class Advent(Adversarial):
    """The discriminator sees how unsure the network is, so fooling it makes the target's maps as sure as the source's.

    Source: Vu et al., ADVENT (CVPR 2019), section 3.
    """

    log_name = "advent"

    def view(self, logits: Tensor) -> Tensor:
        return self_information(logits)


def self_information(logits: Tensor) -> Tensor:
    """``-p log2(p) / log2(C)`` of each class: float32 (N, C, H, W) in 0..1; its sum over C is the entropy in 0..1.

    Both ends are safe: where ``p`` underflows to 0 its logarithm is still finite, so value and gradient are 0.
    """
    log_p = functional.log_softmax(logits.float(), dim=1)
    return -log_p.exp() * log_p / math.log(max(2, logits.shape[1]))
