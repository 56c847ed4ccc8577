"""Evidence that adds up: a CUSUM over bets against the calibration, and the level at which it raises the alarm.

Each block's p-value is betted against: who bets ``b(p)`` and is given a p-value that is uniform or larger wins nothing
in the long run. The winnings multiply from the best moment to begin, and reaching e^h raises the alarm (with conformal
p-values: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, Retrain or not retrain, COPA 2021). The reference
is fixed: one that learned along would grow used to dusk.

A robot has one calibration for ever, and conformal p-values are right only on average over calibrations. With n blocks
the shares of all blocks to come that fall between two neighbouring scores of the calibration are Dirichlet(1, ..., 1),
whatever the scores are. So many such calibrations are drawn, and for each it is calculated how many blocks pass on
average until a CUSUM raises a false alarm at ``h`` (the Markov chain of Brook and Evans, Biometrika 59, 1972). ``h`` is
the one at which nine calibrations in ten keep the time that was asked for.

Neighbouring blocks are alike. Of blocks that are alike over ``memory`` of them the geometric mean of the bets is at
most their mean, which is a fair bet again, so each counts with the power 1 / memory, and h is for spans of that length.
"""

from __future__ import annotations

import functools
import math

import numpy as np

__all__ = ["DELTA", "Cusum", "alarm_level", "log_bets", "log_spans"]

DELTA = 0.1  # how often a calibration may be one whose false alarms are oftener, for each signal

_POWER = 0.3  # of b(p) = POWER * p^(POWER - 1), whose mean over uniform p is 1; small: for rare, clear evidence
_MOST = 1.5  # of the alarm's level that is kept, so that an alarm ends when the world is familiar again
_OVER = 0.5  # of it: below, the alarm is over
_CALIBRATIONS = 300  # that are drawn
_FINEST = 100  # blocks of a calibration; more are not counted on
_HEIGHTS = np.array([0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0])  # levels between whose times others are interpolated
_STATES = 40  # of the chain
_TAIL = 20  # steps that stand for p-values beyond the furthest
_LONGEST = 1e12
_LEAST_SLOPE = 0.05  # of log time over height: below, higher levels bring nothing


def log_bets(p_values: np.ndarray) -> np.ndarray:
    """float64 (N,): logarithm of what a bet on each p-value wins; below 0 for the usual ones."""
    return np.asarray(math.log(_POWER) + (_POWER - 1.0) * np.log(p_values))


def log_spans(level: float, independent: int) -> float:
    """Logarithm of the blocks between false alarms at a level h, for all but ``DELTA`` of calibrations of n blocks."""
    times = _log_times(min(independent, _FINEST))
    beyond = max(0.0, level - _HEIGHTS[-1]) * (times[-1] - times[-2]) / (_HEIGHTS[-1] - _HEIGHTS[-2])
    return float(np.interp(level, _HEIGHTS, times) + beyond)


def alarm_level(apart_s: float, block_s: float, memory: float, signals: int, independent: int) -> float:
    """The h for false alarms ``apart_s`` seconds apart on average, of ``signals`` CUSUMs together.

    Args:
        apart_s: Asked for.
        block_s: Seconds of a block.
        memory: Blocks that are alike.
        signals: Tested together.
        independent: Blocks of the calibration / memory.

    Returns:
        At least 0.5; infinite where no level is high enough.
    """
    times = _log_times(min(independent, _FINEST))
    wanted = math.log(signals * apart_s / (block_s * memory))
    slope = (times[-1] - times[-2]) / (_HEIGHTS[-1] - _HEIGHTS[-2])
    beyond = wanted - times[-1]
    if beyond > 0:
        return float(_HEIGHTS[-1] + beyond / slope) if slope > _LEAST_SLOPE else math.inf
    return float(np.interp(wanted, times, _HEIGHTS))


@functools.lru_cache(maxsize=64)
def _log_times(count: int) -> np.ndarray:
    """float64 (len(_HEIGHTS),), rising: :func:`log_spans` at each height.

    Between the calibration's scores a p-value is the larger end of its step; beyond the furthest it falls evenly to 0,
    as :class:`~rtda_runtime.shift.conformal.CalibratedScores` has it: its logarithm is exponential.
    """
    shares = np.random.default_rng(0).exponential(size=(_CALIBRATIONS, count + 1))
    shares /= shares.sum(axis=1, keepdims=True)
    tail = (np.arange(_TAIL) + 0.5) / _TAIL
    beyond = log_bets(tail / (count + 1.0))
    log_bet = np.concatenate([beyond, log_bets(np.arange(2, count + 2) / (count + 1.0))])
    chances = np.concatenate([np.repeat(shares[:, :1] / _TAIL, _TAIL, axis=1), shares[:, 1:]], axis=1)
    found = [np.quantile(_log_run_lengths(height, log_bet, chances), DELTA) for height in _HEIGHTS]
    return np.maximum.accumulate(np.array(found))


def _log_run_lengths(height: float, steps: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """float64 (K,): logarithm of the mean steps from 0 until a CUSUM reaches a height.

    Args:
        height: Above 0.
        steps: float64 (S,): what it may go up or down at once.
        chances: float64 (K, S): how often, for each of K CUSUMs.
    """
    width = height / _STATES
    places = np.clip(np.ceil(steps / width).astype(int), -_STATES, _STATES)  # upwards: sooner, if anything
    kernel = chances @ (places[:, None] == np.arange(-_STATES, _STATES + 1)).astype(np.float64)
    moves = np.arange(_STATES)[None, :] - np.arange(_STATES)[:, None] + _STATES
    stays = kernel[:, moves]
    stays[:, :, 0] = np.cumsum(kernel, axis=1)[:, _STATES - np.arange(_STATES)]
    left = np.linalg.solve(np.eye(_STATES) - stays, np.ones((len(chances), _STATES, 1)))
    steps_left = left[:, 0, 0]  # rounding makes the longest ones negative
    return np.log(np.where(steps_left > 0, np.minimum(steps_left, _LONGEST), _LONGEST))


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
