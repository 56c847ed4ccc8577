"""What is asked of a label run, how far it is, and what it came to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from rtda_deploy.spec import ModelSpec
from rtda_runtime.fleet.mixed import check_mixable
from rtda_runtime.fleet.units import UNIT_FRAMES

__all__ = ["LabelRequest", "Labelled", "Progress"]


@dataclasses.dataclass(frozen=True)
class LabelRequest:
    """What is to be labelled, with what and how.

    Attributes:
        model: An ``.onnx`` or engine.
        footage: Addresses, as :func:`rtda_runtime.fleet.listing.list_footage` takes them.
        out: The output folder.
        layout: ``png``, ``tar``, or ``auto``: ``png`` up to 20,000 frames.
        provider: What the network runs on; it is one and the same on every worker.
        threads: Of an engine on a CPU; None: its own choice.
        confidence: Whether confidences are written too.
        spec: Of a model without one.
        skip_share: The share of the files that may be damaged, 0 to 1.
        retry: Try again what was given up.
        unit_frames: The most frames of a unit.
        mixed: In what machines may differ from the one that made the plan: ``decoder``, ``engine``, or both.

    Raises:
        ConfigError: If ``mixed`` holds something else.
    """

    model: Path
    footage: Tuple[str, ...]
    out: Path
    layout: str = "auto"
    provider: str = "cpu"
    threads: Optional[int] = None
    confidence: bool = True
    spec: Optional[ModelSpec] = None
    skip_share: float = 0.05
    retry: bool = False
    unit_frames: int = UNIT_FRAMES
    mixed: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_mixable(self.mixed)

    def options(self) -> Dict[str, Any]:
        """What the masks depend on, beside the model."""
        return {
            "layout": self.layout,
            "provider": self.provider,
            "threads": self.threads,
            "confidence": self.confidence,
            "spec": None if self.spec is None else self.spec.to_dict(),
            "unit_frames": self.unit_frames,
        }


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        what: ``index`` (recordings opened) or ``label`` (frames).
        done: So many of ``total``.
        total: Of all.
        per_second: Frames a second of this run; 0: not known yet.
        left_s: Seconds that the rest takes; None: not known yet.
    """

    what: str
    done: int
    total: int
    per_second: float = 0.0
    left_s: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What a run came to.

    Attributes:
        out: The output folder.
        layout: Of it.
        units: How many there are; ``before``: done by earlier runs.
        before: See ``units``.
        frames: Labelled, by this run and earlier ones.
        new_frames: Labelled by this run.
        skipped: What could not be decoded: file, key (of a frame) and why.
        failed: Units that were given up: id, path and why.
        mixed: In what machines differ that took part, by their name, where that was accepted.
        seconds: Of this run's labelling, start-up and planning not counted.
        per_second: Frames a second in that time; 0: there was nothing to do.
    """

    out: Path
    layout: str
    units: int
    before: int
    frames: int
    new_frames: int
    skipped: Tuple[Dict[str, str], ...]
    failed: Tuple[Dict[str, Any], ...]
    mixed: Dict[str, Dict[str, str]]
    seconds: float
    per_second: float
