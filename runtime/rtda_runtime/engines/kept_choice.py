"""Which engine runs a model here, kept in the user's cache so that it is measured once per case."""

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

__all__ = ["OPENVINO", "OPENVINO_BF16", "ORT", "Bf16Timed", "Choice", "KeptChoice", "case_of"]

ORT, OPENVINO, OPENVINO_BF16 = "onnxruntime", "openvino", "openvino-bf16"
_FORMAT = 2  # of the kept choice; raised when earlier ones no longer count: those of 1 never timed bfloat16

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Bf16Timed:
    """What OpenVINO in bfloat16 would bring here, of a float32 file.

    Attributes:
        gain: How many times as fast as the faster float32 engine it was: the median of the rounds.
        low: Their lower quartile.
        high: Their upper quartile.
        agreement: Share of the test pictures that keeps its class, 0..1.

    Raises:
        ValueError: If they are none that a measurement could have made.
    """

    gain: float
    low: float
    high: float
    agreement: float

    def __post_init__(self) -> None:
        if not all(_positive(value) for value in (self.gain, self.low, self.high)):
            raise ValueError(f"{self} is no measurement")
        if type(self.agreement) is not float or not 0 <= self.agreement <= 1:
            raise ValueError(f"{self.agreement} is no share")


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which engine runs a model here.

    Attributes:
        winner: ``ORT``, ``OPENVINO`` or ``OPENVINO_BF16``.
        ratio: How many times as fast as ONNX Runtime OpenVINO was, both in the file's precision; None: it was not
            timed.
        reason: Why not.
        bf16: Of a float32 file, where the processor computes in bfloat16 and that was timed; else None.

    Raises:
        ValueError: If it is none that a measurement could have made.
    """

    winner: str
    ratio: Optional[float] = None
    reason: str = ""
    bf16: Optional[Bf16Timed] = None

    def __post_init__(self) -> None:
        timed = self.ratio is None or _positive(self.ratio)
        known = (ORT, OPENVINO, *((OPENVINO_BF16,) if self.bf16 is not None else ()))
        if self.winner not in known or not timed or not isinstance(self.reason, str):
            raise ValueError(f"{self} is no choice")


def _positive(value: Any) -> bool:
    return type(value) is float and 0 < value < math.inf


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
            bf16 = content["bf16"]
            timed = None if bf16 is None else Bf16Timed(**bf16)
            return Choice(content["winner"], content["ratio"], content["reason"], timed)
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
