"""Do two model files answer alike? The check behind every hop of an export, and behind ``verify`` and ``eval``.

Needs neither torch nor onnx, so that an engine can be verified on the robot that built it.
"""

from rtda_export.parity.compare import LIMITS, ClassParity, FrameParity, Limit, ParityReport, verify

__all__ = ["LIMITS", "ClassParity", "FrameParity", "Limit", "ParityReport", "verify"]
