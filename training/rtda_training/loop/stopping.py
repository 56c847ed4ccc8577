"""How a training is stopped so that nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = ["StopRequest", "TrainingStopped"]


class TrainingStopped(KeyboardInterrupt):
    """A training ended early because somebody asked for it; its checkpoint is written.

    A ``KeyboardInterrupt``, so that who knows nothing of it takes it for Ctrl-C.

    Attributes:
        stage: Name of the stage it was in.
        step: Steps of that stage that are done.
        path: The checkpoint to go on from.
    """

    def __init__(self, stage: str, step: int, path: Path) -> None:
        super().__init__(f"stopped in {stage} at step {step}")
        self.stage = stage
        self.step = step
        self.path = path


class StopRequest:
    """Set by whoever wants the training to end, such as a signal's handler; looked at by the loop after each step.

    Args:
        any_of: Given whether this process was asked, says whether any process of the training was; None: there is one.
    """

    def __init__(self, any_of: Callable[[bool], bool] | None = None) -> None:
        self._asked = False
        self._any_of = any_of

    def ask(self) -> None:
        """Ask for the end; safe in a signal's handler."""
        self._asked = True

    def here(self) -> bool:
        """Whether this process was asked, and is alone: it may stop at once."""
        return self._asked and self._any_of is None

    def everywhere(self) -> bool:
        """Whether all stop now; where there are several processes, each must call it at the same step."""
        return self._asked if self._any_of is None else self._any_of(self._asked)
