"""Whether the discriminator of a stage learns: told from the loss and the right answers that the stage logs.

Measured on AirSim and CamVid, on ToyTown, and with the demo's recipe (docs/results/adversary.md): one that is stuck
keeps its loss within 0.003 of chance and 0.48 to 0.54 of its answers right from the first step to the last. One that
learned told 0.6 and more apart in the mean of five logged rows before the network pushed it back to chance, where it
then stays for as long as the network keeps fooling it: that is the method at work, and no fault.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from rtda_training.plan import StageConfig

__all__ = ["DiscriminatorWatch"]

_SPAN = 200  # steps that it may tell nothing apart, or half of a shorter stage
_SETTLE = 100  # steps that are not judged yet: a quarter of a shorter stage, or the warm-up where that is longer
_SHORTEST = 100  # steps of a stage that says anything
_ROWS = 5  # logged rows that are averaged, 100 steps: one batch's answers alone say little
_CHANCE = {"bce": math.log(2.0), "ls": 0.25}  # a discriminator's loss where it tells nothing apart
_LEARNED_RIGHT = 0.6
# What the loss of one comes to that is right with 0.6 and as sure as it should be: its entropy, its variance.
_LEARNED_LOSS = {"bce": -0.6 * math.log(0.6) - 0.4 * math.log(0.4), "ls": 0.24}
_CERTAIN = 0.02  # loss


class DiscriminatorWatch:
    """Looks at one stage's rows in their order.

    Args:
        stage: Its settings; a stage without an adversary gives no warning.
    """

    def __init__(self, stage: StageConfig) -> None:
        self._stage = stage
        self._key = next((key for key, table in stage.settings.items() if hasattr(table, "gan")), "")
        self._recent: deque[tuple[float, float]] = deque(maxlen=_ROWS)
        self._learned = False
        self._certain_since: int | None = None

    def see(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Warnings by their kinds, ``stuck`` and ``certain``; as long as they hold."""
        if not self._key or row.get("disc") is None:
            return {}
        step, loss = int(row["step"]), float(row["disc"])
        self._recent.append((loss, float(row.get("disc_right", 0.5))))
        self._learned = self._learned or self._tells_apart()
        return {**self._stuck(step, loss), **self._certain(step, loss)}

    def _tells_apart(self) -> bool:
        if len(self._recent) < _ROWS:
            return False
        loss, right = (sum(values) / _ROWS for values in zip(*self._recent, strict=True))
        return bool(right >= _LEARNED_RIGHT or loss <= _LEARNED_LOSS[self._table.gan])

    def _stuck(self, step: int, loss: float) -> dict[str, str]:
        steps = self._stage.steps
        early = len(self._recent) < _ROWS or step < self._settled + min(_SPAN, steps // 2)
        if self._learned or early or steps < _SHORTEST:
            return {}
        right = sum(right for _, right in self._recent) / _ROWS
        more = f', start it with {self._key}.init = "he"' if self._table.init == "torch" else ""
        more += f", or lower {self._key}.weight (now {self._table.weight:g})" if self._table.weight else ""
        return {
            "stuck": f"the discriminator has told nothing apart in {step} steps (loss {loss:.3f}, chance is"
            f" {_CHANCE[self._table.gan]:.3f}; {right:.2f} of its answers right): what the stage gains is not the"
            f" adversary's; raise {self._key}.learning_rate (now {self._table.learning_rate:g}){more}"
        }

    def _certain(self, step: int, loss: float) -> dict[str, str]:
        if loss >= _CERTAIN or step <= self._settled:
            self._certain_since = None
            return {}
        self._certain_since = step if self._certain_since is None else self._certain_since
        if step - self._certain_since < _SPAN:
            return {}
        return {
            "certain": f"the discriminator has been certain for {_SPAN} steps (loss {loss:.3f}), the network learns"
            f" nothing from it: lower {self._key}.learning_rate (now {self._table.learning_rate:g})"
            + ("" if self._stage.style != "none" else ', or bring the domains closer with style = "fda"')
        }

    @property
    def _table(self) -> Any:
        return self._stage.settings[self._key]

    @property
    def _settled(self) -> int:
        """Steps that are not judged."""
        return max(min(_SETTLE, self._stage.steps // 4), self._stage.optimizer.warmup_steps)
