"""The line of a collected frame in ``frames.jsonl``: written, and read again to compare new frames with it."""

from __future__ import annotations

import datetime
from typing import Any, Dict, Mapping, Optional

import numpy as np

from rtda_runtime.result import Result
from rtda_runtime.shift.collecting.doubt import Doubt
from rtda_runtime.shift.collecting.replacement import Kept
from rtda_runtime.shift.collecting.window import Candidate

__all__ = ["Origin", "dhash_of_line", "frame_line", "kept_of_line"]

_LEAST_SHARE = 0.0005  # of the picture; classes below are left out of the line


class Origin:
    """Where frames come from, the same for all of a run.

    Args:
        source: Of the frames, without its password.
        model: What the network's file is called.
        sha256: Of that file; None: it is not known.
        when: The expression; empty: there is none.
    """

    def __init__(self, source: str, model: str, sha256: Optional[str], when: str) -> None:
        self.values: Dict[str, Any] = {"source": source, "model": model, "sha256": sha256}
        self.when = when


def frame_line(
    name: str, time_ns: int, candidate: Candidate, doubt: Doubt, subject: Optional[str], origin: Origin
) -> Dict[str, Any]:
    """JSON-ready.

    Args:
        name: Its id.
        time_ns: When it was captured, since 1970.
        candidate: The frame.
        doubt: What the network doubts of it.
        subject: The class that its budget is taken from.
        origin: Where it comes from.
    """
    result, look = candidate.result, candidate.look
    seconds = datetime.datetime.fromtimestamp(time_ns // 1000 / 1e6, datetime.timezone.utc)
    scores = {"novelty": candidate.novelty, "disagreement": doubt.disagreement, **doubt.scores}
    scores["score"] = candidate.novelty * doubt.disagreement
    why: Dict[str, Any] = {"why": candidate.why}
    if candidate.why == "asked":
        why["when"] = origin.when
    return {
        "id": name,
        "time": seconds.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        **origin.values,
        **why,
        "scores": {key: round(value, 4) for key, value in scores.items()},
        "class": subject,
        "shares": _shares(result, look.shares),
        "sequence": result.sequence,
        "recorded_s": None if result.recorded_ns is None else round(result.recorded_ns / 1e9, 6),
        "size": [result.frame.shape[1], result.frame.shape[0]],
        "dhash": f"{look.dhash:016x}",
        "look": [round(float(value), 4) for value in look.vector],
    }


def dhash_of_line(line: Mapping[str, Any]) -> Optional[int]:
    """The hash of a line; None where it has none."""
    try:
        return int(line["dhash"], 16)
    except (KeyError, TypeError, ValueError):
        return None


def kept_of_line(line: Mapping[str, Any], size: int, numbers: int) -> Optional[Kept]:
    """The frame of a line; None where the line lacks what is needed to compare it.

    Args:
        line: As :func:`frame_line` made it.
        size: Bytes of the frame on the disk.
        numbers: Length of the vectors that it is compared with.
    """
    try:
        vector = np.array(line["look"], np.float32)
        score = float(line["scores"]["score"])
        if vector.shape != (numbers,) or not np.isfinite(vector).all() or not np.isfinite(score):
            return None
        subject = line.get("class")
        return Kept(str(line["id"]), score, str(line.get("why")), subject, size, vector)
    except (KeyError, OverflowError, TypeError, ValueError):
        return None


def _shares(result: Result, shares: np.ndarray) -> Dict[str, float]:
    named = zip(result.spec.class_names, shares)
    return {name: round(float(share), 4) for name, share in named if share >= _LEAST_SHARE}
