"""What ``provider="auto"`` takes for an ``.onnx`` on a CPU: ONNX Runtime or OpenVINO, whichever is faster here.

Which one that is depends on the network, its precision and the processor. So the first start runs the network a few
times on each, in turns and at the same precision, and keeps the choice in the user's cache; a later start opens only
the winner. ``RTDA_CONTEST=0`` takes ONNX Runtime without measuring.

OpenVINO has to be faster by more than ``MARGIN`` and to give the same classes: ONNX Runtime is what exports are
verified with, it starts sooner, and a smaller difference is within the noise of so short a measurement.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError, RtdaError
from rtda_deploy.onnx_file import OnnxFacts, precision_from_metadata, read_onnx_facts
from rtda_deploy.optional import available
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine
from rtda_runtime.engines.kept_choice import OPENVINO, ORT, Choice, KeptChoice, case_of
from rtda_runtime.engines.kinds import kinds_of
from rtda_runtime.engines.onnxruntime import built_for_gpu, open_onnx
from rtda_runtime.engines.openvino import installed_version, open_openvino
from rtda_runtime.engines.trial import Trial, told, tried

__all__ = ["MARGIN", "Means", "agreement", "open_faster", "race", "smooth_input"]

MARGIN = 1.03

_ROUNDS = (3, 5)  # least and most
_BUDGET_S = 2.0  # once it is used up no further round begins
_TURN_S = 0.02  # a faster network runs several times in a turn: one run would be too short to time
_SLOW_S = 0.25  # a first inference this long has warmed up enough
_SETTLE_S = 0.01  # between turns: a library's threads spin for a while, and keep the cores busy meanwhile
_TIE = 1.2  # rounds that differ by less than this on both sides of the margin: either engine will do
_SAME = {False: 0.999, True: 0.97}  # least share of equal classes: float32, INT8
_ROUNDING = 1e-4  # of the logits' range: classes this close are a tie, and either may win

_log = logging.getLogger(__name__)


def _trial_of_openvino(path: Path) -> Optional[Trial]:
    return tried(path, next(kind for kind in kinds_of(path) if "openvino" in kind.providers))


class Means(NamedTuple):
    """What :func:`open_faster` opens, asks and measures with."""

    reference: Callable[..., Engine] = open_onnx
    challenger: Callable[..., Engine] = open_openvino
    installed: Callable[[str], bool] = available
    has_gpu: Callable[[], bool] = built_for_gpu
    clock: Callable[[], float] = time.perf_counter  # seconds
    sleep: Callable[[float], None] = time.sleep
    version: Callable[[], str] = installed_version  # of the challenger
    trial: Callable[[Path], Optional[Trial]] = _trial_of_openvino


def open_faster(
    path: Path, *, provider: str, spec: Optional[ModelSpec], threads: Optional[int], means: Optional[Means] = None
) -> Engine:
    """Open an ``.onnx`` file with ``provider="auto"``; arguments and errors as in :func:`rtda_runtime.open_engine`.

    A GPU that ONNX Runtime can use comes first; without one the kept choice decides, or else a measurement.
    """
    means = means or Means()
    asked: Dict[str, Any] = {"spec": spec, "threads": threads}
    if means.installed("openvino") and not means.installed("onnxruntime"):
        return means.challenger(path, provider="openvino", **asked)
    if not (_wanted() and means.installed("openvino")):
        return means.reference(path, provider=provider, **asked)
    if means.has_gpu():
        engine = means.reference(path, provider=provider, **asked)
        if engine.provider != "cpu":
            return engine
        engine.close()
    facts = read_onnx_facts(path, allow_external=True, error=EngineError)
    kept = KeptChoice(None if facts.external else case_of(path, threads))  # weights elsewhere may change without it
    choice = kept.read()
    if choice is None:
        _log.info("first start of %s here: timing ONNX Runtime against OpenVINO (RTDA_CONTEST=0: not)", path.name)
        return _measured(facts, kept, asked, means)
    if choice.winner == OPENVINO:
        try:
            return _described(means.challenger(path, provider="openvino", **asked), choice)
        except RtdaError as err:
            _log.warning("OpenVINO was faster on %s here and does not open it any more: %s", path.name, err)
            return means.reference(path, provider="cpu", **asked)
    return _described(means.reference(path, provider="cpu", **asked), choice)


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


def _described(engine: Engine, choice: Choice) -> Engine:
    if choice.ratio is not None and choice.winner == OPENVINO:
        engine.description += f" ({choice.ratio:.2f} times as fast as ONNX Runtime here)"
    elif choice.ratio is not None:
        engine.description += f" (OpenVINO: {choice.ratio:.2f} times as fast here)"
    return engine


def _measured(facts: OnnxFacts, kept: KeptChoice, asked: Dict[str, Any], means: Means) -> Engine:
    """The faster engine, open, after both were timed; the other is closed."""
    path = facts.path
    engines = {ORT: means.reference(path, provider="cpu", **asked)}
    try:
        lasting = True
        try:
            _refuse_unsafe(facts, means)
            engines[OPENVINO] = means.challenger(path, provider="openvino", **asked)
            choice, lasting = _compare(engines[ORT], engines[OPENVINO], _SAME[facts.quantized], means)
        except RtdaError as err:
            choice = Choice(ORT, reason=err.message)
            lasting = not isinstance(err, MissingPackageError)  # that can be repaired without another version
        if choice.reason:
            _log.warning("ONNX Runtime runs %s, OpenVINO is out: %s", path.name, choice.reason)
        if lasting:
            kept.write(choice)
        elif not choice.reason:
            _log.info("the rounds disagree, others compute here too: the next start of %s measures again", path.name)
        return _described(engines.pop(choice.winner), choice)
    finally:  # the loser, or after an error or Ctrl-C both
        for engine in engines.values():
            engine.close()


def _refuse_unsafe(facts: OnnxFacts, means: Means) -> None:
    """Refuse a quantised file that ends the process of the challenger, which nothing in this one could catch.

    Its export tried that and wrote it into the file; of other versions, or of files that say nothing, it is tried now.
    """
    if not facts.quantized:
        return
    found = told(precision_from_metadata(facts.metadata), OPENVINO)
    if found is None or found.version != means.version():
        _log.info("trying %s in OpenVINO, in a process of its own", facts.path.name)
        found = means.trial(facts.path)
    if found is not None and found.fatal:
        raise EngineError(found.sentence, hint="run it with --provider cpu")


def _compare(reference: Engine, challenger: Engine, same: float, means: Means) -> Tuple[Choice, bool]:
    """The choice, and whether it may be kept."""
    picture = smooth_input(reference.spec)
    answers, fastest_s = [], math.inf
    for engine in (reference, challenger):
        engine.input_buffer[...] = picture
        answer, seconds = _warm_up(engine, means.clock)
        answers.append(answer)
        fastest_s = min(fastest_s, seconds)
    other = 1 - agreement(*answers)
    if other > 1 - same:
        return Choice(ORT, reason=f"it gives {100 * other:.2f} % of a test picture another class"), True
    ratios = race(
        reference.infer, challenger.infer, turn=max(1, round(_TURN_S / max(fastest_s, 1e-6))), budget_s=_BUDGET_S,
        clock=means.clock, sleep=means.sleep,
    )  # fmt: skip
    ratio = statistics.median(ratios)
    _log.debug("OpenVINO is %.2f times as fast as ONNX Runtime, by round: %s", ratio, ratios)
    won = sum(each > MARGIN for each in ratios)
    clear = min(won, len(ratios) - won) <= 1 or max(ratios) <= _TIE * min(ratios)
    return Choice(OPENVINO if ratio > MARGIN else ORT, ratio), clear


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
    turn: int = 1,
    rounds: Tuple[int, int] = _ROUNDS,
    budget_s: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> List[float]:
    """How many times as fast ``second`` is as ``first``, per round; which one begins alternates.

    On a shared machine times vary by a factor of two within seconds; the ratio of two that follow each other does not.

    Args:
        first: Runs once; warm.
        second: The same of the other.
        turn: Runs of one turn.
        rounds: Least and most.
        budget_s: Once it is used up no round beyond the least begins.
        clock: Seconds.
        sleep: Waits as long on that clock.
    """
    ratios: List[float] = []
    begin = clock()
    while len(ratios) < rounds[1] and (len(ratios) < rounds[0] or clock() - begin < budget_s):
        took = {}
        for run in (first, second) if len(ratios) % 2 == 0 else (second, first):
            sleep(_SETTLE_S)
            start = clock()
            for _ in range(turn):
                run()
            took[run] = clock() - start
        ratios.append(took[first] / max(took[second], 1e-9))
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


def smooth_input(spec: ModelSpec) -> np.ndarray:
    """A smooth coloured picture as the network gets it: normalised as the spec says, or pixels; one picture."""
    height, width = spec.size_hw
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    waves = [np.sin(2 * np.pi * ((k + 1) * across + (3 - k) * down) + k) * np.cos(5 * across - k) for k in range(3)]
    pixels = np.rint(127.5 * (np.stack(waves) + 1.0))
    if spec.input == "float32":
        mean, std = (np.asarray(values)[:, None, None] for values in (spec.mean, spec.std))
        pixels = (pixels * spec.pixel_scale - mean) / std
    elif spec.layout == "nhwc":
        pixels = pixels.transpose(1, 2, 0)
    return np.ascontiguousarray(pixels[None], spec.input_dtype)
