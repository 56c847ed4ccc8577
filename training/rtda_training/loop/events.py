"""What a training reports while it runs and when it ends. Imports no torch, so that a screen can be drawn early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["StopRequest", "Tell", "TrainEvent", "TrainResult", "TrainingStopped"]


@dataclass(frozen=True)
class TrainEvent:
    """One report of progress, given to ``on_event``.

    Attributes:
        kind: ``note`` or ``warning`` (a text), ``prepare`` (a data set is rendered, read or cached), ``start`` (the
            training is about to begin), ``stage``, ``step``, ``validating`` (pictures done), ``validation`` (its
            scores), ``ranking`` (pictures done).
        stage: Name of the stage; of ``prepare`` the data set; of ``ranking`` the network; of ``note`` and ``warning``
            the text.
        step: Steps done; of ``prepare``, ``validating`` and ``ranking`` pictures done.
        total: Steps, or pictures, in all.
        values: Of ``step`` and ``validation`` the row that is logged: losses, rates, scores. Of ``start``: ``plan``,
            ``folder``, ``hardware``, ``resumed`` (step, None for a new run) and ``finished`` (no step is left).
    """

    kind: str
    stage: str = ""
    step: int = 0
    total: int = 0
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        folder: The run folder, with ``last.pth`` and ``best.pth``.
        best_miou: Of the best validation, 0..1; NaN where there was none.
        best_at: Stage and step of it.
        last_miou: Of the last validation, 0..1; NaN where there was none.
        seconds: What this call took; a resumed run's earlier time is not in it.
        ranking: What ``ranking.json`` holds; None where nothing was ranked.
        verdict: What the run came to, in one or two sentences.
    """

    folder: Path
    best_miou: float
    best_at: str
    last_miou: float
    seconds: float
    ranking: Mapping[str, Any] | None = None
    verdict: str = ""

    @property
    def proposed(self) -> Path:
        """The checkpoint to go on with: the one that ranks first, else the last."""
        return self.folder / ("best.pth" if self.ranking else "last.pth")


Tell = Callable[[TrainEvent], None]


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
