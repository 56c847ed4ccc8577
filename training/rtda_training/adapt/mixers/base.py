"""What every mixer is."""

from __future__ import annotations

from rtda_training.adapt.context import MixedBatch, StepContext
from rtda_training.adapt.slots import Component

__all__ = ["Mixer"]


class Mixer(Component):
    """Makes one batch of the source batch with its labels and the target batch with its pseudo labels."""

    needs_target = True
    requires = ("labeler",)

    def mix(self, context: StepContext) -> MixedBatch:
        """The mixed batch; no gradient."""
        raise NotImplementedError
