"""Errors a user can cause, each with what happened, why, and the fix.

::

    RtdaError                  exit 1   failed
    ├── ConfigError            exit 2   a setting or an argument that makes no sense
    ├── SpecError                       a ModelSpec that is missing, broken or too new
    ├── FileAccessError                 missing, unreadable, not writable, disk full
    ├── DataError                       pictures or labels that are not what they should be
    ├── CheckpointError                 a .pth that cannot be used
    ├── ModelError                      a network asked for the impossible
    ├── TrainingError                   NaN, nothing to train on
    ├── ExportError
    │   └── ParityError                 a hop past its limit
    ├── EngineError                     an .onnx or .engine that cannot be used
    ├── FrameError                      an array that is no camera frame
    ├── SourceError                     a recording that cannot be read
    │   ├── CameraError        exit 3   a live source that does not deliver
    │   └── StaleFrameError             the newest frame is older than was allowed
    ├── DeviceError            exit 3   GPU, driver, provider or permission on a device
    │   └── MissingPackageError exit 3  a package that is not installed
    └── LimitMissedError       exit 4   a limit typed by the user was missed

The command line prints ``error`` (what happened), ``why`` (the reason, where the first line does not say it), ``fix``.
"""

from __future__ import annotations

__all__ = [
    "CameraError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "EngineError",
    "ExportError",
    "FileAccessError",
    "FrameError",
    "LimitMissedError",
    "MissingPackageError",
    "ModelError",
    "ParityError",
    "RtdaError",
    "SourceError",
    "SpecError",
    "StaleFrameError",
    "TrainingError",
]


class RtdaError(Exception):
    """Base of every error a user can cause.

    Args:
        message: What happened, in one sentence, with the offending value in it.
        why: The reason, where it is known and not part of the message.
        hint: The next thing to try.
    """

    exit_code = 1

    def __init__(self, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.hint = hint


class ConfigError(RtdaError):
    """A setting or an argument that makes no sense."""

    exit_code = 2


class SpecError(RtdaError):
    """A ModelSpec that is missing, broken, or newer than this version reads."""


class FileAccessError(RtdaError):
    """A path that is missing, unreadable or not writable, or a disk that is full."""


class DataError(RtdaError):
    """Pictures or labels that are not what they should be."""


class CheckpointError(RtdaError):
    """A checkpoint that cannot be used."""


class ModelError(RtdaError):
    """A network that was asked for the impossible, such as a size it cannot take."""


class TrainingError(RtdaError):
    """A training that cannot go on."""


class ExportError(RtdaError):
    """An export that failed."""


class ParityError(ExportError):
    """An exported file that differs from its parent by more than its limit."""


class EngineError(RtdaError):
    """An ``.onnx`` or ``.engine`` file that cannot be used here."""


class FrameError(RtdaError):
    """An array that is no camera frame: expected uint8 (H, W, 3) BGR."""


class SourceError(RtdaError):
    """A recording that cannot be read."""


class CameraError(SourceError):
    """A live source that does not deliver."""

    exit_code = 3


class StaleFrameError(SourceError):
    """The newest frame is older than the caller allows."""


class DeviceError(RtdaError):
    """A GPU, driver, execution provider or device permission that is not there."""

    exit_code = 3


class MissingPackageError(DeviceError):
    """An optional package that is not installed."""


class LimitMissedError(RtdaError):
    """A limit typed by the user was missed; the work itself was done."""

    exit_code = 4
