"""The base class of every kind of stage."""

from __future__ import annotations

from typing import Any

from rtda_training.adapt.context import StageContext
from rtda_training.adapt.slots import Component
from rtda_training.plan import PlanConfig, StageConfig

__all__ = ["StageRun", "decay"]


class StageRun(Component):
    """One stage while it runs. The trainer owns the loop, the log, validation and checkpoints.

    Attributes:
        trains_network: Whether the network changes, so that validating it makes sense.
    """

    trains_network: bool = True

    def __init__(self, config: Any, stage: StageContext, plan: PlanConfig, stage_config: StageConfig) -> None:
        raise NotImplementedError

    def begin(self, step: int) -> None:
        """Prepare for ``step`` as the next one; where there is a state, it has been loaded before."""
        raise NotImplementedError

    def step(self, step: int) -> dict[str, Any]:
        """Do one step; gives what to log, as numbers or scalar tensors."""
        raise NotImplementedError

    def finish(self) -> None:
        """Called once after the last step, before the network is validated and saved."""

    def close(self) -> None:
        """Release what the stage holds; called however it ends."""


def decay(stage_config: StageConfig, step: int) -> float:
    """The factor ``(1 - step / steps) ** power`` on every learning rate."""
    return float((1.0 - step / stage_config.steps) ** stage_config.optimizer.power)
