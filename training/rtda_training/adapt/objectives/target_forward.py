"""Target pictures through the network, and nothing learned from them: what a control has in a method's place."""

from __future__ import annotations

import torch
from torch import Tensor

from rtda_training.adapt.components import Objective
from rtda_training.adapt.context import StepContext
from rtda_training.adapt.slots import component

__all__ = ["TargetForward"]


@component("objectives", "target-forward")
class TargetForward(Objective):
    """The target batch's forward, with a loss of 0.

    Batch norms in training mode average the target's statistics into their running ones, which is a gain of its own.
    A method that makes this forward has to be measured against a training that makes it too: with weight 0, an
    adversary, an entropy term or a term on pseudo labels leaves the same network, bit by bit.

    Source: controls of docs/results/adaptation.md; running statistics of Ioffe and Szegedy (ICML 2015), section 3.1.
    """

    needs_target = True

    def network_loss(self, context: StepContext) -> Tensor:
        context.target_output()
        return torch.zeros((), device=context.source_frames.device, requires_grad=True)
