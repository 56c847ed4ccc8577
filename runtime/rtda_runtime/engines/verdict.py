"""What a contest between two engines found, kept so that it is held once per machine, model and version.

One small file per case below ``$RTDA_CACHE``, ``$XDG_CACHE_HOME/rtda-deploy`` or ``~/.cache/rtda-deploy``, in
``contest/``; deleting it costs a contest. A cache that is broken or cannot be written costs no more than that either.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Optional

from rtda_deploy.errors import FileAccessError
from rtda_deploy.files import cache_folder, sha256_file, write_text
from rtda_deploy.optional import require
from rtda_runtime.machine.cores import cpu_model, usable_cores

__all__ = ["OPENVINO", "ORT", "Verdict", "VerdictFile"]

ORT, OPENVINO = "onnxruntime", "openvino"

_FORMAT = 1  # counted up when older verdicts no longer count

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Who won: ``ORT`` or ``OPENVINO``.

    Attributes:
        ratio: How many times as fast as ONNX Runtime OpenVINO was; None: there was no race.
        reason: Why there was none.
    """

    winner: str
    ratio: Optional[float] = None
    reason: str = ""

    @property
    def text(self) -> str:
        """What an engine's description says of it; empty where there was no race."""
        if self.ratio is None:
            return ""
        if self.winner == OPENVINO:
            return f" ({self.ratio:.2f} times as fast as ONNX Runtime here)"
        return f" (OpenVINO: {self.ratio:.2f} times as fast here)"


class VerdictFile:
    """The file that holds the verdict on one case.

    Args:
        path: Where it is, or will be; None: nowhere.
        case: All that the verdict depends on, JSON-ready; the file repeats it.
    """

    def __init__(self, path: Optional[Path], case: Dict[str, Any]) -> None:
        self.path = path
        self.case = case

    @classmethod
    def of(cls, model: Path, threads: Optional[int]) -> VerdictFile:
        """The file for a model on this machine, with the installed versions of both engines.

        Raises:
            FileAccessError: If the model cannot be read.
        """
        case = {
            "format": _FORMAT,
            "model_sha256": sha256_file(model),
            "cpu": f"{cpu_model()} ({platform.machine()})",
            "cores": usable_cores(),
            "threads": threads,
            "onnxruntime": require("onnxruntime", extra="runtime").__version__,
            "openvino": _openvino_version(),
        }
        name = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()[:32]
        try:
            return cls(cache_folder() / "contest" / f"{name}.json", case)
        except RuntimeError as err:  # a user without a home
            _log.debug("contests are not kept: %s", err)
            return cls(None, case)

    def read(self) -> Optional[Verdict]:
        """The kept verdict; None where there is none that can be read."""
        if self.path is None:
            return None
        try:
            return _verdict(json.loads(self.path.read_text(encoding="utf-8")), self.case)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as err:
            _log.debug("the kept contest %s cannot be used, another is held: %s", self.path, err)
            return None

    def write(self, verdict: Verdict) -> None:
        """Keep the verdict where that is possible."""
        if self.path is None:
            return
        content = {"case": self.case, **dataclasses.asdict(verdict)}
        try:
            write_text(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n")
        except FileAccessError as err:
            _log.debug("the contest cannot be kept, every start holds it anew: %s", err.message)


def _verdict(content: Any, case: Dict[str, Any]) -> Verdict:
    """Raises ValueError unless ``content`` is what ``write`` writes for this case."""
    if not isinstance(content, dict) or content.get("case") != case:
        raise ValueError("it is of another case")
    winner, ratio, reason = content.get("winner"), content.get("ratio"), content.get("reason")
    if winner not in (ORT, OPENVINO) or not isinstance(reason, str):
        raise ValueError("it names no winner")
    if ratio is not None and not (type(ratio) is float and math.isfinite(ratio) and ratio > 0):
        raise ValueError(f"its ratio is {ratio!r}")
    return Verdict(str(winner), ratio, reason)


def _openvino_version() -> str:
    """Without importing it, where it was installed by pip."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return str(require("openvino", extra="openvino").__version__)
