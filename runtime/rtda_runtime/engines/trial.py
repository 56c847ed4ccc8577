"""Does a library take a model file? Tried in a process of its own, because what it cannot take may end the process.

``python -m rtda_runtime.engines.trial MODEL PROVIDER`` opens a file, runs it once, and says in its exit status how that
went. What an export tried stands in the file (``libraries`` of ``rtda.precision``), so that a robot need not.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError, RtdaError
from rtda_deploy.optional import available
from rtda_runtime.engines.kinds import EngineKind, kinds_of

__all__ = ["Trial", "told", "trials", "tried"]

_TIMEOUT_S = 300.0  # a large network on a busy machine compiles for a minute
_REFUSED, _MISSING = 3, 4  # exit statuses of the child


class Trial(NamedTuple):
    """How one library did on one file.

    Attributes:
        library: Its module, such as ``openvino``.
        name: As people write it.
        version: Of the library; empty: unknown.
        error: What happened; empty: it runs the file and answers in numbers.
        fatal: Whether the file ended the process, or kept it from ever answering, instead of being refused.
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
    found = []
    for kind in kinds_of(path):
        if kind.cpu_providers and kind.packages and available(kind.packages[0].module):
            tried_now = tried(path, kind, timeout_s=timeout_s)
            found += [] if tried_now is None else [tried_now]
    return found


def tried(
    path: Union[str, Path], kind: EngineKind, *, provider: str = "", timeout_s: float = _TIMEOUT_S
) -> Optional[Trial]:
    """Try a file with one library; None where the library itself does not load.

    Args:
        path: The file.
        kind: The library's row, with a provider on the CPU.
        provider: Of these; empty: the first.
        timeout_s: As of :func:`trials`.

    Raises:
        ConfigError: If the kind has no provider on the CPU.
    """
    if not kind.cpu_providers:
        raise ConfigError(f"{kind.name} has no provider on the CPU", hint="try it with run on a machine that has a GPU")
    package = kind.packages[0]
    command = [sys.executable, "-m", __name__, str(path), provider or kind.cpu_providers[0]]
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


def _child(path: str, provider: str) -> int:
    import numpy as np

    from rtda_runtime.engines.kinds import open_engine
    from rtda_runtime.engines.pictures import smooth_input

    try:
        with open_engine(path, provider, threads=1) as engine:
            engine.input_buffer[...] = smooth_input(engine.spec)
            if not np.isfinite(engine.infer()).all():
                raise EngineError(
                    "it gives NaN or infinity", hint="look for NaN in the weights, or run it with another library"
                )
    except MissingPackageError as err:
        print(err.message)  # noqa: T201
        return _MISSING
    except RtdaError as err:
        print(": ".join(text for text in (err.message, err.why) if text))  # noqa: T201
        return _REFUSED
    return 0


if __name__ == "__main__":
    raise SystemExit(_child(*sys.argv[1:]))
