"""The alarm beside a pipeline or a ROS node: a sink, so that it has a thread and a queue of its own, and its drops are
counted.

Only the frames that it looks at, one a second, are handed over; for all others the loop compares two numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Mapping, Optional, Union

from rtda_deploy.engine_file import read_sidecar, sidecar_path
from rtda_deploy.errors import ConfigError, EngineError
from rtda_deploy.familiar import MONITOR, Familiar, familiar_from_json
from rtda_deploy.onnx_file import CARD_KEY, read_onnx_metadata
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result
from rtda_runtime.shift.alarm import ShiftAlarm, ShiftState
from rtda_runtime.sinks.base import Sink

__all__ = ["OnShift", "ShiftWatch", "familiar_of"]

OnShift = Callable[[ShiftState], None]

_MAKE = "rtda-deploy export ckpt.pth --monitor --footage PATH"


class ShiftWatch(Sink):
    """Watches the results of one model.

    Args:
        segmenter: Opened from a file that was exported with ``--monitor`` and has blocks in its card.
        apart_s: Seconds between false alarms.
        on_shift: Called on the watch's thread when the state changes.

    Raises:
        ConfigError: If the model gives no signals, its card has no blocks or too few for ``apart_s``, or a region is
            looked at, which the card is not of.
    """

    name = "shift"

    def __init__(self, segmenter: AnySegmenter, apart_s: float, on_shift: Optional[OnShift] = None) -> None:
        self._alarm = ShiftAlarm(_checked_familiar(segmenter), apart_s)
        self._on_shift = on_shift
        self.state: ShiftState = self._alarm.state()

    def wants(self, result: Result) -> bool:
        return result.monitor is not None and self._alarm.due(self._seconds(result))

    def write(self, result: Result) -> Mapping[str, float]:
        assert result.monitor is not None  # wants
        found = self._alarm.add(self._seconds(result), result.monitor)
        if found is not None:
            before, self.state = self.state, found
            if self._on_shift is not None and found.state != before.state:
                self._on_shift(found)
        return {}

    def close(self) -> None:
        """Nothing to finish."""

    def _seconds(self, result: Result) -> float:
        """When the frame was captured; pictures without a time are as far apart as the calibration's."""
        if result.recorded_ns is not None:
            return result.recorded_ns / 1e9
        if result.live:
            return result.captured_ns / 1e9
        return result.sequence * self._alarm.familiar.sample_s


def familiar_of(model: Union[str, Path]) -> Optional[Familiar]:
    """The blocks in the card of an ``.onnx`` or an engine; None where there are none.

    Raises:
        EngineError: If the file, or the engine's sidecar, is broken.
        FileAccessError: If it cannot be read.
    """
    path = Path(model)
    if path.suffix.lower() == ".onnx":
        return familiar_from_json(read_onnx_metadata(path).get(CARD_KEY, ""))
    return familiar_from_json(read_sidecar(path).card) if sidecar_path(path).is_file() else None


def _checked_familiar(segmenter: AnySegmenter) -> Familiar:
    if segmenter.path is None:
        raise EngineError(
            "the shift alarm needs the card of the model's file, and this segmenter was opened from none",
            hint="Segmenter.open(path)",
        )
    name = segmenter.path.name
    if MONITOR not in segmenter.spec.provenance.get("export", {}):
        raise ConfigError(
            f"{name} gives no signals for the shift alarm", why="it was exported without --monitor", hint=_MAKE
        )
    if segmenter.region is not None:
        raise ConfigError(
            "--shift does not go with --region",
            why="the card's blocks are of whole frames, and a part of one is another picture",
            hint="leave one of them out",
        )
    found = familiar_of(segmenter.path)
    if found is None:
        raise ConfigError(
            f"the card of {name} says nothing of what is familiar",
            why="it was exported without footage, and no training left any",
            hint=_MAKE,
        )
    return found
