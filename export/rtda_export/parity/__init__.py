"""Do two model files answer alike? The check behind every hop of an export, and behind ``verify`` and ``eval``.

Needs neither torch nor onnx, so that an engine can be verified on the robot that built it.
"""

from typing import Dict

from rtda_export.parity.compare import verify
from rtda_export.parity.report import ClassParity, FrameParity, ParityReport
from rtda_export.precision import COMPUTED, PRECISIONS, Limit

__all__ = ["LIMITS", "ClassParity", "FrameParity", "Limit", "ParityReport", "verify"]

LIMITS: Dict[str, Limit] = {precision.name: precision.limit for precision in (*PRECISIONS, *COMPUTED)}
