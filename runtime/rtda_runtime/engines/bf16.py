"""Bfloat16 on a CPU: what the export of a float32 file found of it, and what is said where the file says nothing.

OpenVINO computes a float32 file in bfloat16 where the processor can, which is faster and keeps 8 bits of each value. So
``auto`` takes it only for files whose export compared it with float32 (``bf16`` of ``rtda.precision``).
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from rtda_deploy.errors import RtdaError
from rtda_runtime.engines.contest import BF16_PAYS, BF16_SAME
from rtda_runtime.engines.kept_choice import Bf16Timed
from rtda_runtime.engines.openvino import computes_in_bf16

__all__ = ["KEY", "Verified", "advice", "bf16_here", "verified"]

KEY = "bf16"  # in ``rtda.precision`` of a float32 file


class Verified(NamedTuple):
    """How a float32 file answered in bfloat16 when it was exported.

    Attributes:
        passed: Whether it kept its limits, so that ``auto`` may take it.
        agreement: Share of the pixels of the verification pictures that kept their class, 0..1.
        limit: Least share that was asked for.
        frames: Pictures.
        version: Of OpenVINO; empty: unknown.
        miou: In float32 and in bfloat16 on labelled pictures, percent; None: there were none.
    """

    passed: bool
    agreement: float
    limit: float
    frames: int
    version: str = ""
    miou: Optional[Tuple[float, float]] = None

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready, for ``bf16`` of ``rtda.precision``."""
        miou = None if self.miou is None else {"before": self.miou[0], "after": self.miou[1]}
        return {**self._asdict(), "miou": miou}


def verified(facts: Mapping[str, Any]) -> Optional[Verified]:
    """What an export wrote into a file; None: it says nothing that can be read, or is not in float32.

    Args:
        facts: Of :func:`rtda_deploy.onnx_file.precision_from_metadata`.
    """
    said: Any = facts.get(KEY)
    if facts.get("precision") != "fp32" or not isinstance(said, dict) or not isinstance(said.get("passed"), bool):
        return None
    values: List[Any] = [said.get(key) for key in ("agreement", "limit", "frames", "version")]
    agreement, limit, frames, version = values
    if not (_is_share(agreement) and _is_share(limit) and type(frames) is int and isinstance(version, str)):
        return None
    scores: Any = said.get("miou")
    pair: List[Any] = [scores.get(key) for key in ("before", "after")] if isinstance(scores, dict) else []
    miou = (float(pair[0]), float(pair[1])) if pair and all(type(value) in (int, float) for value in pair) else None
    return Verified(said["passed"], float(agreement), float(limit), frames, version, miou)


def bf16_here() -> bool:
    """Whether OpenVINO loads here and the processor computes in bfloat16."""
    try:
        return computes_in_bf16()
    except RtdaError:
        return False


def advice(path: Path, timed: Bf16Timed) -> str:
    """What bfloat16 would bring for a file that does not say that it may be taken; empty where it would not pay.

    It pays where three of four rounds gained enough.
    """
    if timed.low < BF16_PAYS or timed.agreement < BF16_SAME:
        return ""
    return (
        f"in bfloat16 (--provider openvino-bf16) the network is {timed.gain:.1f} times as fast here (middle half of "
        f"the rounds: {timed.low:.1f} to {timed.high:.1f}) and gives {100 * (1 - timed.agreement):.2f} % of synthetic "
        "pictures another class; for a file that auto may take so: "
        f"rtda-deploy export {shlex.quote(str(path))} --verify PICTURES --out bf16"
    )


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1
