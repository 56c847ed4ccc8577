"""Cross-entropy on pictures mixed of both domains."""

from __future__ import annotations

from torch import Tensor

from rtda_training.adapt.context import StepContext
from rtda_training.adapt.objectives.pseudo import LabelledTerm, LabelledTermConfig
from rtda_training.adapt.slots import component

__all__ = ["Mixed"]


@component("objectives", "mixed", LabelledTermConfig)
class Mixed(LabelledTerm):
    """Cross-entropy on the mixer's batch against its labels: the source's true ones, the target's pseudo ones.

    Source: Tranheden et al., DACS (WACV 2021), section 3; weight 1 there.
    """

    requires = ("mixer", "labeler")

    def network_loss(self, context: StepContext) -> Tensor:
        return self._cross_entropy(context.mixed_output(), context.mixed(), context)
