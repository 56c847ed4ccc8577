"""What a ROS node says of its health, once a second: the contents of a ``diagnostic_msgs/DiagnosticArray``."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any, Mapping, Optional, Tuple

from rtda_runtime.shift.alarm import ShiftState

__all__ = ["EVERY_S", "Diagnostic", "diagnostic"]

EVERY_S = 1.0  # what diagnostic aggregators expect
_OK, _WARN = 0, 1  # of diagnostic_msgs/DiagnosticStatus


@dataclasses.dataclass(frozen=True)
class Diagnostic:
    """``diagnostic_msgs/DiagnosticStatus``.

    Attributes:
        level: 0: fine; 1: a warning: the world is unlike what the network knows, or the shadow stopped.
        name: Of the component.
        message: For people.
        hardware_id: Name of the machine.
        values: Key and value, as texts.
    """

    level: int
    name: str
    message: str
    hardware_id: str
    values: Tuple[Tuple[str, str], ...]


def diagnostic(
    name: str,
    engine: str,
    stats: Mapping[str, float],
    shift: Optional[ShiftState] = None,
    shadow: Optional[Mapping[str, Any]] = None,
) -> Diagnostic:
    """The health of a node.

    Args:
        name: Of the node.
        engine: What runs the network, for people.
        stats: Counts of its worker.
        shift: State of the shift alarm; None: it is off.
        shadow: As of :meth:`.Shadow.told`; None: there is none.
    """
    values = [("engine", engine), *((key, f"{value:g}") for key, value in stats.items())]
    level, message = _OK, "segmenting"
    if shift is not None:
        known = {key: value for key, value in shift.to_dict().items() if key not in ("curve", "signals")}
        values += [(f"shift_{key}", f"{value}") for key, value in known.items()]
        values += [(f"shift_evidence_{key}", f"{value:.3f}") for key, value in shift.signals.items()]
        level, message = (_WARN if shift.unfamiliar else _OK), shift.sentence()
    if shadow is not None:
        known = {key: value for key, value in shadow.items() if key != "by_class"}
        values += [(f"shadow_{key}", "" if value is None else f"{value}") for key, value in known.items()]
        if shadow["error"] is not None and level == _OK:
            level, message = _WARN, f"the shadow stopped: {shadow['error']}"
    return Diagnostic(level, f"{name}: segmentation", message, platform.node(), tuple(values))
