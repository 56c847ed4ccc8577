"""What TensorRT says, kept so that an error can give TensorRT's own reason."""

from __future__ import annotations

import collections
import logging
import weakref
from typing import Any, Deque

__all__ = ["tensorrt_logger"]

_log = logging.getLogger(__name__)
_KEPT = 20  # messages; one fault gives two or three, its cause first
_LONGEST = 300  # characters of a reason

_loggers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def tensorrt_logger(trt: Any) -> Any:
    """The process's one ``ILogger``: TensorRT keeps the first it is given for everything, so all must share it.

    Its ``clear()`` forgets what was said, its ``reason()`` is the first error since, or an empty text.
    """
    if trt not in _loggers:
        _loggers[trt] = _logger_class(trt)()
    return _loggers[trt]


def _logger_class(trt: Any) -> Any:
    severity = trt.ILogger.Severity
    levels = {severity.INTERNAL_ERROR: logging.ERROR, severity.ERROR: logging.ERROR, severity.WARNING: logging.INFO}

    class Logger(trt.ILogger):
        """Errors are kept, warnings go to Python's log as information, the rest is dropped."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: Deque[str] = collections.deque(maxlen=_KEPT)

        def log(self, kind: Any, text: str) -> None:
            level = levels.get(kind)
            if level == logging.ERROR:
                self._errors.append(text)
                level = logging.DEBUG  # whoever asked raises it
            if level is not None:
                _log.log(level, "TensorRT: %s", text)

        def clear(self) -> None:
            self._errors.clear()

        def reason(self) -> str:
            first = next(iter(self._errors), "").strip()
            return first if len(first) <= _LONGEST else first[: _LONGEST - 3] + "..."

    return Logger
