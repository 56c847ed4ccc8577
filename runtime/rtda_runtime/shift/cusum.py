"""Evidence that adds up: a CUSUM over bets against the calibration, and the level at which it raises the alarm.

Each block's p-value is betted against: who bets ``b(p)`` and is given a p-value that is uniform or larger wins nothing
in the long run. The winnings multiply from the best moment to begin; when they reach e^h, that happens by chance at
most once in e^h independent blocks on average (Lorden, Annals of Mathematical Statistics 42, 1971; with conformal
p-values Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, Retrain or not retrain, COPA 2021). The reference
is fixed: one that learned along would grow used to dusk.

A robot has one calibration for ever, and conformal p-values are right only on average over calibrations. With n blocks
the shares of all blocks to come that fall between two neighbouring scores of the calibration are Dirichlet(1, ..., 1),
whatever the scores are. So the bets are played against many such calibrations: for each there is one exponent with
which they are fair, E[b^theta] = 1, and false alarms are at least e^(theta h) blocks apart. ``h`` is set by the theta
that nine calibrations in ten exceed.

Neighbouring blocks are alike. Of blocks that are alike over ``memory`` of them the geometric mean of the bets is at
most their mean, which is a fair bet again, so each counts with the power 1 / memory, and e^h counts spans of that
length.
"""

from __future__ import annotations

import functools
import math

import numpy as np

__all__ = ["DELTA", "Cusum", "alarm_level", "fair_exponent", "log_bets"]

DELTA = 0.1  # how often a calibration may be one whose false alarms are oftener, for each signal

_POWER = 0.3  # of b(p) = POWER * p^(POWER - 1), whose mean over uniform p is 1; small: for rare, clear evidence
_MOST = 1.5  # of the alarm's level that is kept, so that an alarm ends when the world is familiar again
_OVER = 0.5  # of it: below, the alarm is over
_CALIBRATIONS = 2000  # that are drawn
_FINEST = 100  # blocks of a calibration; more are not counted on
_HALVINGS = 20


def log_bets(p_values: np.ndarray) -> np.ndarray:
    """float64 (N,): logarithm of what a bet on each p-value wins; below 0 for the usual ones."""
    return np.asarray(math.log(_POWER) + (_POWER - 1.0) * np.log(p_values))


@functools.lru_cache(maxsize=64)
def fair_exponent(independent: int) -> float:
    """The theta with which bets against a calibration of n blocks are fair, for all but ``DELTA`` of calibrations.

    Between the calibration's scores a p-value is the larger end of its step; beyond the furthest it falls evenly to 0,
    as :class:`~rtda_runtime.shift.conformal.CalibratedScores` has it.

    Returns:
        Above 0; near 1 with many blocks. 0: of so few blocks some make every bet a winning one.
    """
    count = min(independent, _FINEST)
    shares = np.random.default_rng(0).exponential(size=(_CALIBRATIONS, count + 1))
    shares /= shares.sum(axis=1, keepdims=True)
    log_bet = log_bets(np.arange(1, count + 2) / (count + 1.0))
    low, high = np.zeros(_CALIBRATIONS), np.full(_CALIBRATIONS, 1.0)  # a luckier one than on average is not counted on
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        won = shares * np.exp(middle[:, None] * log_bet)
        won[:, 0] /= 1.0 - middle * (1.0 - _POWER)  # the mean of b^theta over p-values from 0 to 1 / (n + 1)
        fair = won.sum(axis=1) <= 1.0
        low, high = np.where(fair, middle, low), np.where(fair, high, middle)
    return float(np.quantile(low, DELTA))


def alarm_level(apart_s: float, block_s: float, memory: float, signals: int, independent: int) -> float:
    """The h for false alarms ``apart_s`` seconds apart on average, of ``signals`` CUSUMs together; at least 1.

    Args:
        apart_s: Asked for.
        block_s: Seconds of a block.
        memory: Blocks that are alike.
        signals: Tested together.
        independent: Blocks of the calibration / memory.
    """
    theta = fair_exponent(independent)
    return max(1.0, math.log(signals * apart_s / (block_s * memory)) / theta) if theta else math.inf


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
