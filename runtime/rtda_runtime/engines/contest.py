"""What ``provider="auto"`` takes for an ``.onnx`` on a CPU: ONNX Runtime or OpenVINO, whichever is quicker here.

Which one that is depends on the network, its precision and the processor. So at the first start both run the network a
few times in turns, at the same precision, and the verdict is kept (:mod:`rtda_runtime.engines.verdict`); each later
start opens only the winner. ``RTDA_CONTEST=0`` takes ONNX Runtime without measuring.

OpenVINO has to win by more than ``MARGIN`` and to give the same classes: ONNX Runtime is what exports are verified
with, it starts sooner, and a difference that a contest this short cannot tell from noise is none.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError, RtdaError
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_deploy.optional import available, require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine
from rtda_runtime.engines.onnxruntime import open_onnx, provider_plan
from rtda_runtime.engines.openvino import open_openvino
from rtda_runtime.engines.verdict import OPENVINO, ORT, Verdict, VerdictFile

__all__ = [
    "MARGIN",
    "agreement",
    "has_weights_elsewhere",
    "hold_contest",
    "is_quantised",
    "open_quickest",
    "race",
    "synthetic_input",
]

MARGIN = 1.03

_LEAST_ROUNDS, _MOST_ROUNDS = 3, 5
_BUDGET_S = 2.0  # once it is used up no further round begins
_TURN_S = 0.02  # a quicker network runs several times in a turn: one time would be too short to measure
_SLOW_S = 0.25  # a first inference this long has warmed up enough
_SETTLE_S = 0.01  # between turns: a library's threads look out for work for a while, and keep the cores busy meanwhile
_HARDLY = 1.2  # rounds this close on both sides of the margin: a tie, and either engine will do
_SAME = {False: 0.999, True: 0.97}  # least share of equal classes: float32, INT8
_ROUNDING = 1e-4  # of the logits' range: classes this close are a tie, and either may win

_QUANTISING = ("QuantizeLinear", "DynamicQuantizeLinear")

_log = logging.getLogger(__name__)


def open_quickest(path: Path, *, provider: str, spec: Optional[ModelSpec], threads: Optional[int]) -> Engine:
    """Open an ``.onnx`` file with ``provider="auto"``; arguments and errors as in :func:`rtda_runtime.open_engine`.

    A GPU that ONNX Runtime can use comes first; without one the kept verdict decides, or else a contest.
    """
    if available("openvino") and not available("onnxruntime"):
        return open_openvino(path, spec=spec, threads=threads)
    if not (_wanted() and available("openvino")):
        return open_onnx(path, provider=provider, spec=spec, threads=threads)
    ort = require("onnxruntime", extra="runtime")
    if provider_plan(provider, ort.get_available_providers()) != ["cpu"]:
        engine: Engine = open_onnx(path, provider=provider, spec=spec, threads=threads)
        if engine.provider != "cpu":
            return engine
        engine.close()
    file = VerdictFile(None, {}) if has_weights_elsewhere(path) else VerdictFile.of(path, threads)
    verdict = file.read()
    if verdict is None:
        _log.info("first start of %s here: timing ONNX Runtime against OpenVINO (RTDA_CONTEST=0: not)", path.name)
        reference = open_onnx(path, provider="cpu", spec=spec, threads=threads)
        return hold_contest(reference, lambda: open_openvino(path, spec=spec, threads=threads), path, file)
    if verdict.winner == OPENVINO:
        try:
            engine = open_openvino(path, spec=spec, threads=threads)
        except RtdaError as err:
            _log.warning("OpenVINO won on %s here and opens it no more: %s", path.name, err)
            return open_onnx(path, provider="cpu", spec=spec, threads=threads)
    else:
        engine = open_onnx(path, provider="cpu", spec=spec, threads=threads)
    engine.description += verdict.text
    return engine


def _wanted() -> bool:
    """What ``RTDA_CONTEST`` says.

    Raises:
        ConfigError: If that is neither yes nor no.
    """
    said = os.environ.get("RTDA_CONTEST", "").strip().lower()
    if said in ("0", "off", "false", "no"):
        return False
    if said not in ("", "1", "on", "true", "yes"):
        raise ConfigError(f"RTDA_CONTEST={said} is neither yes nor no", hint="RTDA_CONTEST=0: ONNX Runtime, unmeasured")
    return True


def hold_contest(
    reference: Engine,
    open_challenger: Callable[[], Engine],
    path: Path,
    file: VerdictFile,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Engine:
    """Let both engines run, keep the verdict, close the loser and give the winner.

    Args:
        reference: ONNX Runtime on the CPU.
        open_challenger: Opens OpenVINO; where that raises, OpenVINO has lost.
        path: The model.
        file: Where the verdict goes.
        clock: Seconds.
        sleep: Waits as long on that clock.
    """
    challenger = None
    lasting = True
    try:
        try:
            challenger = open_challenger()
            verdict, lasting = _judge(reference, challenger, is_quantised(path), clock, sleep)
        except RtdaError as err:
            verdict = Verdict(ORT, reason=err.message)
            lasting = not isinstance(err, MissingPackageError)  # that can be repaired without another version
        if verdict.reason:
            _log.warning("ONNX Runtime runs %s, OpenVINO is out: %s", path.name, verdict.reason)
        if lasting:
            file.write(verdict)
        elif not verdict.reason:
            _log.info("the rounds disagree, others compute here too: the next start of %s measures again", path.name)
    except BaseException:  # Ctrl-C too
        for engine in (reference, challenger):
            if engine is not None:
                engine.close()
        raise
    won = challenger is not None and verdict.winner == OPENVINO
    winner, loser = (challenger, reference) if won else (reference, challenger)
    if loser is not None:
        loser.close()
    assert winner is not None
    winner.description += verdict.text
    return winner


def race(
    reference: Engine, challenger: Engine, turn: int, clock: Callable[[], float], sleep: Callable[[float], None]
) -> List[float]:
    """How many times as fast the challenger is, per round; who begins changes from round to round.

    Args:
        reference: Warm.
        challenger: Warm.
        turn: Inferences of one turn.
        clock: Seconds.
        sleep: Waits as long on that clock.
    """
    ratios: List[float] = []
    begin = clock()
    while len(ratios) < _MOST_ROUNDS and (len(ratios) < _LEAST_ROUNDS or clock() - begin < _BUDGET_S):
        took = {}
        for engine in (reference, challenger) if len(ratios) % 2 == 0 else (challenger, reference):
            sleep(_SETTLE_S)
            start = clock()
            for _ in range(turn):
                engine.infer()
            took[id(engine)] = clock() - start
        ratios.append(took[id(reference)] / max(took[id(challenger)], 1e-9))
    return ratios


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


def synthetic_input(spec: ModelSpec) -> np.ndarray:
    """A smooth coloured picture as the network gets it: float32 (1, 3, h, w), normalised as the spec says."""
    height, width = spec.size_hw
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    waves = [np.sin(2 * np.pi * ((k + 1) * across + (3 - k) * down) + k) * np.cos(5 * across - k) for k in range(3)]
    pixels = np.rint(127.5 * (np.stack(waves) + 1.0))
    mean, std = (np.asarray(values)[:, None, None] for values in (spec.mean, spec.std))
    made: np.ndarray = ((pixels * spec.pixel_scale - mean) / std).astype(np.float32)[None]
    return made


def is_quantised(path: Path) -> bool:
    """Whether an ``.onnx`` holds operators that quantise: it runs in INT8 then.

    Raises:
        EngineError: If it is no whole ONNX file.
        FileAccessError: If it cannot be read.
    """
    facts = read_onnx_facts(path, allow_external=True, error=EngineError)
    return any(node.operator in _QUANTISING for node in facts.nodes)


def has_weights_elsewhere(path: Path) -> bool:
    """Whether an ``.onnx`` has weights in files beside it, which may change without it.

    Raises:
        EngineError: If it is no whole ONNX file.
        FileAccessError: If it cannot be read.
    """
    return read_onnx_facts(path, allow_external=True, error=EngineError).external


def _judge(
    reference: Engine,
    challenger: Engine,
    quantised: bool,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Tuple[Verdict, bool]:
    """The verdict, and whether it may be kept."""
    picture = synthetic_input(reference.spec)
    answers, quickest = [], float("inf")
    for engine in (reference, challenger):
        engine.input_buffer[...] = picture
        answer, seconds = _warm_up(engine, clock)
        answers.append(answer)
        quickest = min(quickest, seconds)
    same = agreement(*answers)
    if same < _SAME[quantised]:
        return Verdict(ORT, reason=f"it gives {100 * (1 - same):.2f} % of a test picture another class"), True
    ratios = race(reference, challenger, max(1, round(_TURN_S / max(quickest, 1e-6))), clock, sleep)
    ratio = statistics.median(ratios)
    _log.debug("OpenVINO is %.2f times as fast as ONNX Runtime, by round: %s", ratio, ratios)
    return Verdict(OPENVINO if ratio > MARGIN else ORT, ratio), _is_clear(ratios)


def _is_clear(ratios: Sequence[float]) -> bool:
    """Whether all rounds but one name the same winner, or it hardly matters who wins."""
    won = sum(ratio > MARGIN for ratio in ratios)
    return min(won, len(ratios) - won) <= 1 or max(ratios) <= _HARDLY * min(ratios)


def _warm_up(engine: Engine, clock: Callable[[], float]) -> Tuple[np.ndarray, float]:
    """Its answer, and the seconds of an inference; the first allocates and is not what counts."""
    for _ in range(2):
        start = clock()
        answer = engine.infer()
        seconds = clock() - start
        if seconds > _SLOW_S:
            break
    return answer.copy(), seconds
