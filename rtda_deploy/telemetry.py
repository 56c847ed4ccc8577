"""Libraries that report to their makers, kept from it unless the user wants them to.

- ONNX Runtime's Linux wheels (from 1.29 on) send events about every process and model to Microsoft, and keep a device
  id and a database of events below ``~/.cache/Microsoft``. ``ORT_DISABLE_TELEMETRY=1``, read when the library is
  loaded, stops all of it; children inherit it.
- OpenVINO sends an event to Google Analytics whenever it is imported, from a process that it forks for that, and keeps
  an id in ``~/intel``. It has no switch; but it does without where ``openvino_telemetry`` is not installed, and that is
  what it is told.

``RTDA_TELEMETRY=1`` leaves both as their makers want them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Dict, Iterator, Optional

__all__ = ["TELEMETRY_VARIABLE", "silence", "silent_import", "telemetry_wanted"]

TELEMETRY_VARIABLE = "RTDA_TELEMETRY"
_ORT_VARIABLE = "ORT_DISABLE_TELEMETRY"
_OPENVINO_SENDER = "openvino_telemetry"


def telemetry_wanted() -> bool:
    """Whether the user set ``RTDA_TELEMETRY=1``."""
    return os.environ.get(TELEMETRY_VARIABLE, "") == "1"


def silence() -> None:
    """Set what libraries read when they are loaded, for this process and its children; a user's own value stays."""
    if not telemetry_wanted():
        os.environ.setdefault(_ORT_VARIABLE, "1")


@contextlib.contextmanager
def silent_import(module: str) -> Iterator[None]:
    """Around the import of an optional package: it finds the senders of events not installed, or is told to be quiet.

    ``openvino_telemetry`` itself stays what it was for the rest of the user's program.
    """
    package = module.partition(".")[0]
    if package == "openvino" and not telemetry_wanted():
        with _not_installed(_OPENVINO_SENDER):
            yield
        return
    yield
    if package == "onnxruntime" and not telemetry_wanted():  # a program that loaded it before us set no variable
        stop = getattr(sys.modules.get(package), "disable_telemetry_events", None)
        if stop is not None:
            stop()


@contextlib.contextmanager
def _not_installed(module: str) -> Iterator[None]:
    loaded: Dict[str, Any] = sys.modules  # with None in it, an import raises ImportError
    before: Optional[Any] = loaded.get(module)
    loaded[module] = None
    try:
        yield
    finally:
        if before is None:
            loaded.pop(module, None)
        else:
            loaded[module] = before
