"""How a training is stopped so that nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

__all__ = ["StopRequest", "TrainingStopped"]


class TrainingStopped(KeyboardInterrupt):
    """A training ended early because it was asked to; its checkpoint is written.

    A ``KeyboardInterrupt``, so that code which does not know this class treats it like Ctrl-C.

    Attributes:
        stage: Name of the stage it was in.
        step: Steps of that stage that are done.
        path: The checkpoint to resume from.
    """

    def __init__(self, stage: str, step: int, path: Path) -> None:
        super().__init__(f"stopped in {stage} at step {step}")
        self.stage = stage
        self.step = step
        self.path = path


class StopRequest:
    """Given to a training to end it early, such as from a signal's handler; the loop looks at it after each step.

    Attributes:
        asked: Whether the end was asked for.
        stepping: Whether the training makes steps now. Only then does it look; at any other time interrupt it.
    """

    def __init__(self) -> None:
        self.asked = False
        self.stepping = False

    def ask(self) -> None:
        """Ask for the end; safe in a signal's handler."""
        self.asked = True
