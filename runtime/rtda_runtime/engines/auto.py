"""What ``provider="auto"`` takes for an ``.onnx`` on a CPU: ONNX Runtime or OpenVINO, whichever is faster here.

Which one that is depends on the network, its precision and the processor. So the first start runs the network a few
times on each, in turns and at the same precision, and keeps the choice in the user's cache; a later start opens only
the winner. ``RTDA_CONTEST=0`` takes ONNX Runtime without measuring.

OpenVINO has to be faster by more than ``MARGIN`` and to give the same classes: ONNX Runtime is what exports are
verified with, it starts sooner, and a smaller difference is within the noise of so short a measurement. Where the
processor computes in bfloat16 a float32 file is timed in that, too; it is taken where the file says that its export
verified it so (:mod:`~rtda_runtime.engines.bf16`), else the engine says what it would bring.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError, RtdaError
from rtda_deploy.onnx_file import OnnxFacts, precision_from_metadata, read_onnx_facts
from rtda_deploy.optional import available
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine
from rtda_runtime.engines.bf16 import Verified, advice, bf16_here, verified
from rtda_runtime.engines.contest import compare
from rtda_runtime.engines.kept_choice import OPENVINO, OPENVINO_BF16, ORT, Choice, KeptChoice, case_of
from rtda_runtime.engines.kinds import kinds_of
from rtda_runtime.engines.onnxruntime import built_for_gpu, open_onnx
from rtda_runtime.engines.openvino import installed_version, open_openvino
from rtda_runtime.engines.trial import Trial, told, tried

__all__ = ["Means", "contest_wanted", "open_faster"]

_SAME = {False: 0.999, True: 0.97}  # least share of equal classes: float32, INT8

_log = logging.getLogger(__name__)


def _trial_of_openvino(path: Path, provider: str) -> Optional[Trial]:
    kind = next(kind for kind in kinds_of(path) if provider in kind.providers)
    return tried(path, kind, provider=provider)


class Means(NamedTuple):
    """What :func:`open_faster` opens, asks and measures with."""

    reference: Callable[..., Engine] = open_onnx
    challenger: Callable[..., Engine] = open_openvino
    installed: Callable[[str], bool] = available
    has_gpu: Callable[[], bool] = built_for_gpu
    clock: Callable[[], float] = time.perf_counter  # seconds
    sleep: Callable[[float], None] = time.sleep
    version: Callable[[], str] = installed_version  # of the challenger
    trial: Callable[[Path, str], Optional[Trial]] = _trial_of_openvino  # with a provider of the challenger's
    bf16: Callable[[], bool] = bf16_here


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
    if not (contest_wanted() and means.installed("openvino")):
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
    if choice.winner == ORT:
        return _described(means.reference(path, provider="cpu", **asked), choice, facts)
    try:
        return _described(means.challenger(path, provider=choice.winner, **asked), choice, facts)
    except RtdaError as err:
        _log.warning("OpenVINO was faster on %s here and does not open it any more: %s", path.name, err)
        return means.reference(path, provider="cpu", **asked)


def contest_wanted() -> bool:
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


def _described(engine: Engine, choice: Choice, facts: OnnxFacts) -> Engine:
    found = _verified(facts)
    if choice.winner == OPENVINO_BF16 and choice.bf16 is not None:
        kept = f"; {100 * found.agreement:.2f} % of pixels kept their class at its export" if found else ""
        engine.description += f" ({choice.bf16.gain:.2f} times as fast as in float32 here{kept})"
    elif choice.ratio is not None and choice.winner == OPENVINO:
        engine.description += f" ({choice.ratio:.2f} times as fast as ONNX Runtime here)"
    elif choice.ratio is not None:
        engine.description += f" (OpenVINO: {choice.ratio:.2f} times as fast here)"
    if choice.bf16 is not None and found is None:
        engine.advice = advice(facts.path, choice.bf16)
    return engine


def _verified(facts: OnnxFacts) -> Optional[Verified]:
    return verified(precision_from_metadata(facts.metadata))


def _measured(facts: OnnxFacts, kept: KeptChoice, asked: Dict[str, Any], means: Means) -> Engine:
    """The fastest engine, open, after all were timed; the others are closed."""
    path = facts.path
    engines = {ORT: means.reference(path, provider="cpu", **asked)}
    try:
        lasting = True
        try:
            _refuse_unsafe(facts, means)
            engines[OPENVINO] = means.challenger(path, provider="openvino", **asked)
            bf16 = _bf16_engine(facts, asked, means)
            if bf16 is not None:
                engines[OPENVINO_BF16] = bf16
            choice, lasting = compare(
                engines,
                same=_SAME[facts.quantized],
                bf16_may_win=_verified(facts) is not None,
                clock=means.clock,
                sleep=means.sleep,
            )
        except RtdaError as err:
            choice = Choice(ORT, reason=err.message)
            lasting = not isinstance(err, MissingPackageError)  # that can be repaired without another version
        if choice.reason:
            _log.warning("ONNX Runtime runs %s, OpenVINO is out: %s", path.name, choice.reason)
        if lasting:
            kept.write(choice)
        elif not choice.reason:
            _log.info("the rounds disagree, others compute here too: the next start of %s measures again", path.name)
        return _described(engines.pop(choice.winner), choice, facts)
    finally:  # the losers, or after an error or Ctrl-C all
        for engine in engines.values():
            engine.close()


def _bf16_engine(facts: OnnxFacts, asked: Dict[str, Any], means: Means) -> Optional[Engine]:
    """The challenger in bfloat16; None where it has none, or the file is not in float32 or did not pass at its export.

    As a quantised file, one that this version did not take at its export is tried in a process of its own before.
    """
    found = _verified(facts)
    if facts.quantized or facts.float16 or (found is not None and not found.passed) or not means.bf16():
        return None
    if found is None or found.version != means.version():
        _log.info("trying %s in bfloat16 in OpenVINO, in a process of its own", facts.path.name)
        trial = means.trial(facts.path, OPENVINO_BF16)
        if trial is None or trial.error:
            _log.info("OpenVINO does not run %s in bfloat16: %s", facts.path.name, trial.error if trial else "")
            return None
    try:
        return means.challenger(facts.path, provider=OPENVINO_BF16, **asked)
    except RtdaError as err:
        _log.info("OpenVINO does not run %s in bfloat16: %s", facts.path.name, err)
        return None


def _refuse_unsafe(facts: OnnxFacts, means: Means) -> None:
    """Refuse a quantised file that ends the process of the challenger, which nothing in this one could catch.

    Its export tried that and wrote it into the file; of other versions, or of files that say nothing, it is tried now.
    """
    if not facts.quantized:
        return
    found = told(precision_from_metadata(facts.metadata), OPENVINO)
    if found is None or found.version != means.version():
        _log.info("trying %s in OpenVINO, in a process of its own", facts.path.name)
        found = means.trial(facts.path, OPENVINO)
    if found is not None and found.fatal:
        raise EngineError(found.sentence, hint="run it with --provider cpu")
