"""Does a library take a model file? Tried in a process of its own, because what it cannot take may end the process.

``python -m rtda_runtime.engines.trial MODEL PROVIDER [ANSWER.npy]`` opens a file, runs it once, and says in its exit
status how that went. The libraries have to answer alike: OpenVINO (2026.4) computes some INT8 graphs wrongly without a
word. What an export tried stands in the file (``libraries`` of ``rtda.precision``), so that a robot need not.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union

import numpy as np

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError, RtdaError
from rtda_deploy.optional import available
from rtda_runtime.engines.kinds import EngineKind, kinds_of

__all__ = ["Trial", "told", "trials", "tried"]

_TIMEOUT_S = 300.0  # a large network on a busy machine compiles for a minute
_REFUSED, _MISSING = 3, 4  # exit statuses of the child
# Two libraries round the same INT8 layers differently: 3 % of the spread of a map were seen, and 40 to 200 % where one
# was wrong. Of a mask only its classes are known.
_OTHER_LOGITS, _OTHER_CLASSES = 0.2, 0.2


class Trial(NamedTuple):
    """How one library did on one file.

    Attributes:
        library: Its module, such as ``openvino``.
        name: As people write it.
        version: Of the library; empty: unknown.
        error: What happened; empty: it runs the file, and answers as the other libraries do.
        fatal: Whether it must not run the file: that was not refused, but ended the process, kept it from ever
            answering, or was answered wrongly.
    """

    library: str
    name: str
    version: str
    error: str
    fatal: bool = False

    @property
    def sentence(self) -> str:
        """For people; empty where it runs."""
        return f"{self.name} {self.version or '(version unknown)'} cannot take it: {self.error}" if self.error else ""

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready, for ``libraries`` of ``rtda.precision``; under the name of the module."""
        return {"name": self.name, "version": self.version, "error": self.error, "fatal": self.fatal}


def trials(path: Union[str, Path], *, timeout_s: float = _TIMEOUT_S) -> List[Trial]:
    """Try a file on the CPU with every library that is installed and runs such files, one after the other.

    Args:
        path: Such as an ``.onnx``, for one frame at a time, with a spec.
        timeout_s: A library that takes longer cannot take it.
    """
    found: List[Trial] = []
    reference: Optional[np.ndarray] = None  # ONNX Runtime's comes first, which exports are verified with
    with tempfile.TemporaryDirectory(prefix="rtda-trial-") as folder:
        for kind in kinds_of(path):
            if not (kind.cpu_providers and kind.packages and available(kind.packages[0].module)):
                continue
            answer = Path(folder) / f"{kind.packages[0].module}.npy"
            trial = tried(path, kind, timeout_s=timeout_s, answer=answer)
            if trial is None:
                continue
            if not trial.error:
                given = np.load(answer)
                wrong = "" if reference is None else _otherwise(reference, given)
                reference = given if reference is None else reference
                trial = trial._replace(error=wrong, fatal=bool(wrong))
            found.append(trial)
    return found


def _otherwise(reference: np.ndarray, answer: np.ndarray) -> str:
    """How an answer differs from the one of the library before; empty where it is the same but for rounding."""
    if reference.shape != answer.shape:
        return f"it answers in another shape: {answer.shape} in the place of {reference.shape}"
    if np.issubdtype(reference.dtype, np.integer):
        share = float((reference != answer).mean())
        return f"it gives {100 * share:.0f} % of a test picture another class" if share > _OTHER_CLASSES else ""
    first, second = reference.astype(np.float64), answer.astype(np.float64)
    apart = float(np.abs(first - second).mean() / max(float(first.std()), 1e-9))
    if apart <= _OTHER_LOGITS:
        return ""
    return f"its logits of a test picture are {100 * apart:.0f} % of their spread away from those of ONNX Runtime"


def tried(
    path: Union[str, Path],
    kind: EngineKind,
    *,
    provider: str = "",
    timeout_s: float = _TIMEOUT_S,
    answer: Optional[Path] = None,
) -> Optional[Trial]:
    """Try a file with one library; None where the library itself does not load.

    Args:
        path: The file.
        kind: The library's row, with a provider on the CPU.
        provider: Of these; empty: the first.
        timeout_s: As of :func:`trials`.
        answer: Where what it answers is written, ``.npy``; None: nowhere.

    Raises:
        ConfigError: If the kind has no provider on the CPU.
    """
    if not kind.cpu_providers:
        raise ConfigError(f"{kind.name} has no provider on the CPU", hint="try it with run on a machine that has a GPU")
    package = kind.packages[0]
    command = [sys.executable, "-m", __name__, str(path), provider or kind.cpu_providers[0]]
    command += [] if answer is None else [str(answer)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s)
        status, said = done.returncode, done.stdout.decode("utf-8", "replace").strip()
    except subprocess.TimeoutExpired:
        status, said = 1, f"it did not answer within {timeout_s:g} s"
    if status == _MISSING:
        return None
    if status == _REFUSED:
        error = said or "it refuses the file"
    elif status < 0:
        error = f"the process that loads it ends with {_signal(-status)}"
    else:
        error = "" if status == 0 else said or f"the process that loads it ends with status {status}"
    fatal = bool(error) and status != _REFUSED
    return Trial(package.module, kind.name, package.version() or "", error, fatal)


def told(facts: Mapping[str, Any], library: str) -> Optional[Trial]:
    """What an export wrote into a file of a library; None: it was not tried.

    Args:
        facts: Of :func:`rtda_deploy.onnx_file.precision_from_metadata`.
        library: Module, such as ``openvino``.
    """
    entries = facts.get("libraries")
    entry: Any = entries.get(library) if isinstance(entries, dict) else None
    said: Dict[str, Any] = entry if isinstance(entry, dict) else {}
    if not all(isinstance(said.get(key), str) for key in ("name", "version", "error")):
        return None
    return Trial(library, said["name"], said["version"], said["error"], said.get("fatal") is True)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _child(path: str, provider: str, answer: str = "") -> int:
    from rtda_runtime.engines.kinds import open_engine
    from rtda_runtime.engines.pictures import natural_input

    try:
        with open_engine(path, provider, threads=1) as engine:
            engine.input_buffer[...] = natural_input(engine.spec)
            given = engine.infer()
            if not np.isfinite(given).all():
                raise EngineError(
                    "it gives NaN or infinity", hint="look for NaN in the weights, or run it with another library"
                )
            if answer:
                np.save(answer, given)
    except MissingPackageError as err:
        print(err.message)  # noqa: T201
        return _MISSING
    except RtdaError as err:
        print(": ".join(text for text in (err.message, err.why) if text))  # noqa: T201
        return _REFUSED
    return 0


if __name__ == "__main__":
    raise SystemExit(_child(*sys.argv[1:]))
