"""Evidence that adds up: a CUSUM over bets against the calibration, and the level at which it raises the alarm.

Each block's p-value is betted against: who bets ``b(p)`` and is given a p-value that is uniform or larger wins nothing
in the long run. The winnings multiply from the best moment to begin; when they reach e^h, that happens by chance at
most once in e^h independent blocks on average (Lorden, Annals of Mathematical Statistics 42, 1971; with conformal
p-values Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, Retrain or not retrain, COPA 2021). The reference
is fixed: one that learned along would grow used to dusk.

Neighbouring blocks are alike. Of blocks that are alike over ``memory`` of them the geometric mean of the bets is at
most their mean, which is a fair bet again, so each counts with the power 1 / memory, and e^h counts spans of that
length.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["Cusum", "alarm_level", "log_bets"]

_POWER = 0.3  # of b(p) = POWER * p^(POWER - 1), whose mean over uniform p is 1; small: for rare, clear evidence
_MOST = 1.5  # of the alarm's level that is kept, so that an alarm ends when the world is familiar again
_OVER = 0.5  # of it: below, the alarm is over


def log_bets(p_values: np.ndarray) -> np.ndarray:
    """float64 (N,): logarithm of what a bet on each p-value wins; below 0 for the usual ones."""
    return np.asarray(math.log(_POWER) + (_POWER - 1.0) * np.log(p_values))


def alarm_level(apart_s: float, block_s: float, memory: float, signals: int) -> float:
    """The h for false alarms ``apart_s`` seconds apart on average, of ``signals`` CUSUMs together; at least 1."""
    return max(1.0, math.log(signals * apart_s / (block_s * memory)))


class Cusum:
    """One signal's evidence.

    Args:
        level: At which the alarm is raised.
        memory: Blocks that are alike.

    Attributes:
        evidence: From 0; 1 raises the alarm.
        alarm: Whether it is raised: from 1 until the evidence is below a half.
        blocks: Since the evidence last was 0.
    """

    def __init__(self, level: float, memory: float) -> None:
        self.evidence = 0.0
        self.alarm = False
        self.blocks = 0
        self._level, self._memory = level, memory

    def add(self, log_bet: float) -> None:
        """Take a block."""
        self.evidence = min(_MOST, max(0.0, self.evidence + log_bet / (self._memory * self._level)))
        self.blocks = self.blocks + 1 if self.evidence else 0
        self.alarm = self.evidence >= (_OVER if self.alarm else 1.0)
