"""Engines of one model held against each other: whether they answer alike, and which is faster, timed in turns."""

from __future__ import annotations

import logging
import math
import statistics
import time
from typing import Callable, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from rtda_runtime.engines.base import Engine
from rtda_runtime.engines.kept_choice import OPENVINO, OPENVINO_BF16, ORT, Bf16Timed, Choice
from rtda_runtime.engines.pictures import natural_input, smooth_input

__all__ = ["BF16_PAYS", "BF16_SAME", "MARGIN", "agreement", "compare", "in_turns", "race"]

MARGIN = 1.03
BF16_PAYS = 1.1  # a smaller gain is not worth the loss of agreement
BF16_SAME = 0.95  # least share of test pictures that must keep its class: a guard, on pictures the export has verified

_PICTURES = 3  # for the agreement in bfloat16
_ROUNDS = (3, 5)  # least and most
_BUDGET_S = 2.0  # once it is used up no further round begins
_TURN_S = 0.02  # a faster network runs several times in a turn: one run would be too short to time
_SLOW_S = 0.25  # a first inference this long has warmed up enough
_SETTLE_S = 0.01  # between turns: a library's threads spin for a while, and keep the cores busy meanwhile
_TIE = 1.2  # rounds that differ by less than this on both sides of the margin: either engine will do
_ROUNDING = 1e-4  # of the logits' range: classes this close are a tie, and either may win

_log = logging.getLogger(__name__)


def compare(
    engines: Mapping[str, Engine],
    *,
    same: float,
    bf16_may_win: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Tuple[Choice, bool]:
    """Which engine is to run their model, and whether that may be kept: the rounds were of one mind.

    Args:
        engines: Open, ``ORT`` first, ``OPENVINO`` second, ``OPENVINO_BF16`` third where it is to be timed.
        same: Least share of a test picture, 0..1, that must have the same class in the first two.
        bf16_may_win: Whether the third is more than timed.
        clock: Seconds.
        sleep: Waits as long on that clock.
    """
    picture = smooth_input(engines[ORT].spec)
    answers: Dict[str, np.ndarray] = {}
    fastest_s = math.inf
    for name, engine in engines.items():
        engine.input_buffer[...] = picture
        answers[name], seconds = _warm_up(engine, clock)
        fastest_s = min(fastest_s, seconds)
    other = 1 - agreement(answers[ORT], answers[OPENVINO])
    if other > 1 - same:
        return Choice(ORT, reason=f"it gives {100 * other:.2f} % of a test picture another class"), True
    took = in_turns(
        [engine.infer for engine in engines.values()], turn=max(1, round(_TURN_S / max(fastest_s, 1e-6))),
        budget_s=_BUDGET_S, clock=clock, sleep=sleep,
    )  # fmt: skip
    seconds_of = {name: [each[place] for each in took] for place, name in enumerate(engines)}
    ratios = _ratios(seconds_of[ORT], seconds_of[OPENVINO])
    _log.debug("OpenVINO is %.2f times as fast as ONNX Runtime, by round: %s", statistics.median(ratios), ratios)
    ratio = statistics.median(ratios)
    choice, clear = Choice(OPENVINO if ratio > MARGIN else ORT, ratio), _clear(ratios, MARGIN)
    if OPENVINO_BF16 not in engines:
        return choice, clear
    gains = _ratios(seconds_of[choice.winner], seconds_of[OPENVINO_BF16])
    low, gain, high = statistics.quantiles(gains, n=4)
    bf16 = Bf16Timed(gain, low, high, _natural_agreement(engines[ORT], engines[OPENVINO_BF16]))
    _log.debug("in bfloat16 it is %.2f times as fast as that: %s", bf16.gain, bf16)
    if bf16.agreement < BF16_SAME:
        _log.info("bfloat16 is out: it gives %.2f %% of test pictures another class", 100 * (1 - bf16.agreement))
    if not bf16_may_win or bf16.agreement < BF16_SAME:
        return Choice(choice.winner, ratio, bf16=bf16), clear
    if bf16.gain > BF16_PAYS:  # which of the other two is faster matters no more
        return Choice(OPENVINO_BF16, ratio, bf16=bf16), _clear(gains, BF16_PAYS)
    return Choice(choice.winner, ratio, bf16=bf16), clear and _clear(gains, BF16_PAYS)


def _natural_agreement(reference: Engine, other: Engine) -> float:
    """Over a few pictures with the spectrum of photographs: on a smooth one rounding changes next to nothing."""
    shares = []
    for seed in range(_PICTURES):
        reference.input_buffer[...] = other.input_buffer[...] = natural_input(reference.spec, seed)
        shares.append(agreement(reference.infer().copy(), other.infer()))
    return statistics.mean(shares)


def _ratios(first: Sequence[float], second: Sequence[float]) -> List[float]:
    return [a / max(b, 1e-9) for a, b in zip(first, second)]


def _clear(ratios: Sequence[float], margin: float) -> bool:
    """Whether at most one round names another winner than the rest, or both will do."""
    won = sum(each > margin for each in ratios)
    return min(won, len(ratios) - won) <= 1 or max(ratios) <= _TIE * min(ratios)


def _warm_up(engine: Engine, clock: Callable[[], float]) -> Tuple[np.ndarray, float]:
    """Its answer, and the seconds of an inference; the first allocates, so the second counts."""
    for _ in range(2):
        start = clock()
        answer = engine.infer()
        seconds = clock() - start
        if seconds > _SLOW_S:
            break
    return answer.copy(), seconds


def race(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    rounds: Tuple[int, int] = _ROUNDS,
) -> List[float]:
    """How many times as fast ``second`` is as ``first``, per round; both are warm."""
    took = in_turns((first, second), rounds=rounds)
    return _ratios([each[0] for each in took], [each[1] for each in took])


def in_turns(
    runs: Sequence[Callable[[], object]],
    *,
    turn: int = 1,
    rounds: Tuple[int, int] = _ROUNDS,
    budget_s: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> List[Tuple[float, ...]]:
    """Seconds of each of ``runs``, per round; every other round goes backwards.

    On a shared machine times vary by a factor of two within seconds; the ratio of two that follow each other does not.

    Args:
        runs: Each runs once; warm.
        turn: Runs of one turn.
        rounds: Least and most.
        budget_s: Once it is used up no round beyond the least begins.
        clock: Seconds.
        sleep: Waits as long on that clock.
    """
    found: List[Tuple[float, ...]] = []
    begin = clock()
    while len(found) < rounds[1] and (len(found) < rounds[0] or clock() - begin < budget_s):
        took = [0.0] * len(runs)
        order = list(range(len(runs)))
        for place in order if len(found) % 2 == 0 else order[::-1]:
            sleep(_SETTLE_S)
            start = clock()
            for _ in range(turn):
                runs[place]()
            took[place] = clock() - start
        found.append(tuple(took))
    return found


def agreement(answer: np.ndarray, other: np.ndarray) -> float:
    """Share of pixels, or cells of logits, that both answers give the same class; logits that tie count as the same.

    Args:
        answer: float32 (C, h, w) logits, or uint8 (H, W) mask.
        other: The same of the other engine.
    """
    if answer.ndim == 2:
        return float((answer == other).mean())
    if not np.isfinite(other).all():
        return 0.0
    classes = other.argmax(axis=0)
    lost = answer.max(axis=0) - np.take_along_axis(answer, classes[None], axis=0)[0]
    return float((lost <= _ROUNDING * np.ptp(answer)).mean())
