"""Which of two engines runs a model here, kept in the user's cache so that it is measured once per case."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import platform
from pathlib import Path
from typing import Any, Dict, Optional

from rtda_deploy.errors import FileAccessError
from rtda_deploy.files import cache_folder, sha256_file, write_text
from rtda_deploy.optional import Package, require
from rtda_runtime.machine.cores import cpu_model, usable_cores

__all__ = ["OPENVINO", "ORT", "Choice", "KeptChoice", "case_of"]

ORT, OPENVINO = "onnxruntime", "openvino"
_FORMAT = 1  # of the kept choice; raised when earlier ones no longer count

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which engine runs a model here.

    Attributes:
        winner: ``ORT`` or ``OPENVINO``.
        ratio: How many times as fast as ONNX Runtime OpenVINO was; None: it was not timed.
        reason: Why not.

    Raises:
        ValueError: If it is none that a measurement could have made.
    """

    winner: str
    ratio: Optional[float] = None
    reason: str = ""

    def __post_init__(self) -> None:
        timed = self.ratio is None or (type(self.ratio) is float and 0 < self.ratio < math.inf)
        if self.winner not in (ORT, OPENVINO) or not timed or not isinstance(self.reason, str):
            raise ValueError(f"{self} is no choice")


def case_of(model: Path, threads: Optional[int]) -> Dict[str, Any]:
    """All that the choice depends on, JSON-ready.

    Raises:
        FileAccessError: If the model cannot be read.
    """
    openvino = Package("openvino", "openvino", "").version()  # not imported where pip installed it
    return {
        "format": _FORMAT,
        "model_sha256": sha256_file(model),
        "cpu": f"{cpu_model()} ({platform.machine()})",
        "cores": usable_cores(),
        "threads": threads,
        "onnxruntime": require("onnxruntime", extra="runtime").__version__,
        "openvino": openvino or str(require("openvino", extra="openvino").__version__),
    }


class KeptChoice:
    """The choice as it is kept: a small file in ``contest/`` of :func:`rtda_deploy.files.cache_folder`.

    A cache that is broken or cannot be written costs a measurement at each start, and is no error.

    Args:
        case: What the choice depends on; the file repeats it. None: nothing is kept.

    Attributes:
        path: The file, whether it is there or not; None: nothing is kept.
    """

    def __init__(self, case: Optional[Dict[str, Any]]) -> None:
        self.path: Optional[Path] = None
        self._case = case
        if case is not None:
            name = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()[:32]
            with contextlib.suppress(RuntimeError):  # a user without a home
                self.path = cache_folder() / "contest" / f"{name}.json"

    def read(self) -> Optional[Choice]:
        """The kept choice; None where there is none that can be read."""
        if self.path is None:
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["case"] != self._case:
                raise ValueError("it is of another case")
            return Choice(content["winner"], content["ratio"], content["reason"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as err:
            _log.debug("the kept choice %s cannot be used, it is measured again: %s", self.path, err)
            return None

    def write(self, choice: Choice) -> None:
        """Keep the choice where that is possible."""
        if self.path is None:
            return
        content = {"case": self._case, **dataclasses.asdict(choice)}
        try:
            write_text(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n")
        except FileAccessError as err:
            _log.debug("the choice cannot be kept, every start measures again: %s", err.message)
