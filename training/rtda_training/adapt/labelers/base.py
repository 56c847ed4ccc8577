"""What every labeler is."""

from __future__ import annotations

from typing import Any

from torch import nn

from rtda_training.adapt.context import PseudoLabels, StepContext
from rtda_training.adapt.slots import Component
from rtda_training.readers import UnlabelledSet

__all__ = ["Labeler"]


class Labeler(Component):
    """Labels the target batch of each step. No label of the target set is ever read: its type has none."""

    needs_target = True

    def prepare(self, target: UnlabelledSet) -> UnlabelledSet:
        """Work before the first step (skipped where it is already done); gives the set that target batches come from.

        A labeler that writes labels to disk gives a ``LabelledSet`` of the same pictures with *its* labels; they
        arrive as ``StepContext.target_label``, cropped and flipped as their pictures are.
        """
        return target

    def label(self, context: StepContext) -> PseudoLabels:
        """Labels of ``context.target_frames``; no gradient."""
        raise NotImplementedError

    def after_step(self, context: StepContext) -> dict[str, Any]:
        """Called after the network's step; gives what to log, as numbers or scalar tensors."""
        del context
        return {}

    def finish(self, network: nn.Module) -> None:
        """Called after the last step; may change the network that the stage leaves."""
        del network
