"""Novelty of a frame by the signals of a network that was exported with ``--monitor``: against its card's footage.

What the network knows is fixed by the card, so that a world that stays new stays novel, however long the robot is in
it. Networks without signals, or without a card, are judged by what the run has shown (:mod:`.look`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Union

import numpy as np

from rtda_deploy.errors import RtdaError
from rtda_deploy.familiar import MONITOR, SIGNALS, Familiar
from rtda_runtime.result import Result
from rtda_runtime.shift.reference import Reference, cross_scores, signal_values, unpacked
from rtda_runtime.shift.watch import familiar_of

__all__ = ["Familiarity", "confidence_signal", "familiarity_of"]

_LEAST_BLOCKS = 10


class Familiarity:
    """How far frames are from the footage of a card.

    Args:
        familiar: Its blocks.
    """

    def __init__(self, familiar: Familiar) -> None:
        self._widths = familiar.widths
        known = unpacked(familiar)
        self._references = {name: Reference(values, name) for name, values in known.items()}
        self._usual = {name: float(cross_scores(values, name).mean()) for name, values in known.items()}

    def of(self, monitor: np.ndarray) -> Optional[float]:
        """Novelty of a frame, 0 to 1: d / (1 + d) of the signal that is furthest.

        d is its distance as a multiple of the footage's own root mean square, so that a usual frame has about 0.5.

        Args:
            monitor: float32 (D,), as of a result.

        Returns:
            None where the signals are not those of the card.
        """
        if len(monitor) != sum(self._widths) or not np.isfinite(monitor).all():
            return None
        values = _parts(monitor, dict(zip(SIGNALS, self._widths)))
        scores = [
            float(reference.scores(signal_values(name, values[name].astype(np.float64))[None])[0])
            / max(self._usual[name], 1e-9)
            for name, reference in self._references.items()
        ]
        apart = float(np.sqrt(max(scores)))
        return apart / (1.0 + apart)


def familiarity_of(model: Union[str, Path]) -> Optional[Familiarity]:
    """Of a model's file; None where its card has no footage, or cannot be read."""
    try:
        found = familiar_of(model)
    except RtdaError:
        return None
    return None if found is None or found.blocks < _LEAST_BLOCKS else Familiarity(found)


def confidence_signal(result: Result) -> Optional[float]:
    """Mean confidence, 0 to 1, as the network itself gives it beside its answer; None where it does not."""
    widths: Any = result.spec.provenance.get("export", {}).get(MONITOR)
    if result.monitor is None or not isinstance(widths, Mapping) or not widths.get("confidence"):
        return None
    found = float(_parts(result.monitor, {name: int(widths.get(name, 0)) for name in SIGNALS})["confidence"].mean())
    return min(1.0, max(0.0, found)) if np.isfinite(found) else None


def _parts(monitor: np.ndarray, widths: Dict[str, int]) -> Dict[str, np.ndarray]:
    """The numbers of each signal."""
    ends = np.cumsum(list(widths.values())).tolist()
    return {name: monitor[end - width : end] for (name, width), end in zip(widths.items(), ends)}
