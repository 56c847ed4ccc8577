"""What a network's signals look like on footage that it knows: the blocks of the calibration card.

They stand in the card's JSON under ``familiar``, beside what was measured on labelled pictures, and alone where no
label was there. A signal is a few numbers a frame that a network exported with ``--monitor`` gives beside its mask; a
block is their mean over a few frames. Blocks are kept as one byte a number, each column between its least and greatest
value; ``rtda_runtime.shift`` reads them with NumPy alone.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import math
import zlib
from typing import Any, Dict, List, Mapping, Optional, Tuple

from rtda_deploy.card import FAMILIAR_KEY

__all__ = [
    "MONITOR",
    "MOST_APPEARANCE",
    "MOST_BLOCKS",
    "MOST_CELLS",
    "MOST_FEATURES",
    "SAMPLES",
    "SAMPLE_S",
    "SIGNALS",
    "Familiar",
    "cells_step",
    "familiar_from_json",
    "with_familiar",
]

MONITOR = "monitor"  # name of the network's output that holds the signals
SIGNALS = ("appearance", "features", "classes", "confidence")  # in the order of a monitored network's output
# Channels that are given, evenly spaced ones where there are more: of the backbone's map at 1/8 of the input, which
# light, noise and blur change; of its last stage, which the things that are seen change.
MOST_APPEARANCE = 64
MOST_FEATURES = 128
MOST_CELLS = 2048  # of the logits, in rows and columns as far apart as that takes: neighbours say much the same
MOST_BLOCKS = 600  # of a card
SAMPLE_S = 1.0  # seconds between two frames that are looked at
SAMPLES = 3  # frames of a block
_LONGEST_BLOCK_S = 86_400.0  # of a card that is believed; ours are seconds
_VERSION = 2  # 1 had no appearance


@dataclasses.dataclass(frozen=True)
class Familiar:
    """Blocks of footage: K blocks of D numbers.

    Attributes:
        data: Address of the footage.
        robot: Whether it is footage of the robot's own; else pictures of the source.
        sample_s: Seconds between two frames of a block.
        samples: Frames of a block.
        widths: How many numbers each of :data:`SIGNALS` has; D in all.
        stretches: Blocks that follow each other without a gap, K in all.
        low: D least values.
        high: D greatest values.
        packed: K x D bytes, row by row: 0 is ``low``, 255 is ``high``.
    """

    data: str
    robot: bool
    sample_s: float
    samples: int
    widths: Tuple[int, ...]
    stretches: Tuple[int, ...]
    low: Tuple[float, ...]
    high: Tuple[float, ...]
    packed: bytes = dataclasses.field(repr=False)

    @property
    def blocks(self) -> int:
        """How many blocks, K."""
        return sum(self.stretches)

    @property
    def block_s(self) -> float:
        """Seconds of a block."""
        return self.sample_s * self.samples

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; ``packed`` as base64 of zlib's compression."""
        values = {**dataclasses.asdict(self), "version": _VERSION}
        values["packed"] = base64.b64encode(zlib.compress(self.packed, 9)).decode("ascii")
        for name in ("low", "high"):
            values[name] = [float(f"{value:.6g}") for value in values[name]]
        return values

    def summary(self) -> Dict[str, Any]:
        """For people and ``inspect``: what it was measured on, without the numbers."""
        return {
            "data": self.data,
            "robot": self.robot,
            "blocks": self.blocks,
            "block_s": self.block_s,
            "stretches": len(self.stretches),
            "widths": dict(zip(SIGNALS, self.widths)),
        }


def cells_step(size_hw: Tuple[int, int]) -> int:
    """Every which row and column of logits of this size the signals are made of: the least that leaves MOST_CELLS."""
    return next(step for step in itertools.count(1) if math.prod(-(-side // step) for side in size_hw) <= MOST_CELLS)


def familiar_from_json(card: str) -> Optional[Familiar]:
    """The blocks in a card's JSON text; None where it has none, or broken ones, or another version's."""
    try:
        values: Dict[str, Any] = json.loads(card)[FAMILIAR_KEY]
        if values.pop("version") != _VERSION:
            return None
        packed = base64.b64decode(values.pop("packed"), validate=True)
        found = Familiar(
            data=str(values["data"]),
            robot=bool(values["robot"]),
            sample_s=float(values["sample_s"]),
            samples=int(values["samples"]),
            widths=_counts(values["widths"]),
            stretches=_counts(values["stretches"]),
            low=_numbers(values["low"]),
            high=_numbers(values["high"]),
            packed=b"",
        )
        columns = sum(found.widths)
        blocks = zlib.decompressobj().decompress(packed, found.blocks * columns + 1)  # and no more, whatever it holds
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, zlib.error):
        return None
    fits = len(found.widths) == len(SIGNALS) and len(found.low) == len(found.high) == columns
    whole = fits and len(blocks) == found.blocks * columns > 0
    ranges = all(low <= high and math.isfinite(high - low) for low, high in zip(found.low, found.high))
    timed = found.sample_s > 0 and 0 < found.samples <= _LONGEST_BLOCK_S / found.sample_s
    return dataclasses.replace(found, packed=blocks) if whole and ranges and timed else None


def with_familiar(card: str, familiar: Familiar) -> str:
    """A card's JSON text with these blocks in the place of others; an empty text becomes a card of blocks alone."""
    values: Mapping[str, Any] = json.loads(card) if card else {}
    return json.dumps({**values, FAMILIAR_KEY: familiar.to_dict()}, separators=(",", ":"))


def _counts(values: List[Any]) -> Tuple[int, ...]:
    found = tuple(int(value) for value in values)
    if min(found, default=0) < 0:
        raise ValueError("counts are not negative")
    return found


def _numbers(values: List[Any]) -> Tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not all(map(math.isfinite, found)):
        raise ValueError("blocks have finite numbers")
    return found
