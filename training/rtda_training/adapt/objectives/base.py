"""What every objective is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rtda_training.adapt.context import StepContext
from rtda_training.adapt.slots import Component

__all__ = ["Objective"]


class Objective(Component):
    """One term of the loss.

    It may own players, such as a discriminator: they are frozen in ``network_loss`` and trained in ``play``.

    Attributes:
        log_name: What its loss is called in logs; the recipe's name where empty.
    """

    log_name: str = ""

    def network_loss(self, context: StepContext) -> Tensor:
        """Scalar, weighted, with its graph; called with the objective's own players frozen."""
        raise NotImplementedError

    def play(self, context: StepContext, learning_rate_factor: float) -> dict[str, Any]:
        """Train the objective's own players on this step's outputs, detached.

        Gives what to log, as numbers or scalar tensors; a tensor on a GPU is read only when it is logged.
        """
        del context, learning_rate_factor
        return {}
