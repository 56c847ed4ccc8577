"""The alarm itself: all signals together, and what is told of them.

A robot that stands still films one scene, however long. Its blocks are no evidence each: only the first counts. But a
scene that is far beyond the calibration counts on, because a covered lens does not move either.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, Deque, Dict, List, Mapping, Optional, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_deploy.familiar import Familiar
from rtda_runtime.shift.blocks import BlockMaker
from rtda_runtime.shift.cusum import alarm_level
from rtda_runtime.shift.reference import parts, signal_values, unpacked
from rtda_runtime.shift.signal import Calibration, Signal
from rtda_runtime.shift.support import duration_text, footage_needed_s, longest_s, reachable_s

__all__ = ["ShiftAlarm", "ShiftState", "calibrations", "longest_shift_s", "supported_s"]

FAMILIAR, UNFAMILIAR = "familiar", "unfamiliar"
_LEAST_BLOCKS = 10
_CURVE = 240  # blocks whose evidence is told
_STILL = 0.2  # of the usual difference between neighbours, by most signals: less is the same scene


@dataclasses.dataclass(frozen=True)
class ShiftState:
    """What the alarm says.

    Attributes:
        state: ``familiar`` or ``unfamiliar``.
        since_s: For how many seconds of the source, by its newest block.
        signal: The one with the most evidence: ``appearance``, ``features``, ``classes`` or ``confidence``.
        evidence: Of that signal: from 0, 1 raises the alarm, 1.5 at most.
        distance: Of its newest block: 1 is as far as the furthest block of the calibration.
        blocks: Tested so far; the first is there after some seconds.
        alarms: How often the state became ``unfamiliar``.
        apart_s: Seconds between false alarms that were asked for.
        signals: Evidence of each signal that takes part.
        curve: Evidence of the newest blocks, the largest of the signals each; oldest first.
    """

    state: str
    since_s: float
    signal: str
    evidence: float
    distance: float
    blocks: int
    alarms: int
    apart_s: float
    signals: Mapping[str, float]
    curve: Tuple[float, ...] = ()

    @property
    def unfamiliar(self) -> bool:
        """Whether the alarm is raised."""
        return self.state == UNFAMILIAR

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready, rounded."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("since_s", "evidence", "distance"):
            values[name] = round(values[name], 3)
        values["signals"] = {name: round(value, 3) for name, value in self.signals.items()}
        return {**values, "curve": [round(value, 2) for value in self.curve]}

    def sentence(self) -> str:
        """For people."""
        if not self.blocks:
            return "familiar so far: no block is whole yet"
        how = f"{self.signal} at {100 * self.evidence:.0f} % of the alarm, {self.distance:.1f} times the furthest known"
        return f"{self.state} for {duration_text(self.since_s)}: {how}"


def calibrations(familiar: Familiar) -> List[Calibration]:
    """What the blocks of a card say of each signal.

    Raises:
        ConfigError: If they are too few for anything.
    """
    if familiar.blocks < _LEAST_BLOCKS:
        raise ConfigError(
            f"the card has {familiar.blocks} blocks of {familiar.block_s:g} s, too few for any alarm",
            hint=f"rtda-deploy export MODEL --monitor --footage PATH, with {duration_text(300)} of footage or more",
        )
    return [Calibration(name, values, familiar.stretches) for name, values in unpacked(familiar).items()]


def supported_s(found: List[Calibration], block_s: float) -> float:
    """The longest time between false alarms that a signal supports, seconds."""
    return max(longest_s(one.independent, block_s, one.memory, len(found)) for one in found)


def longest_shift_s(familiar: Familiar) -> float:
    """The same of a card, seconds; 0 where it supports none."""
    if familiar.blocks < _LEAST_BLOCKS:
        return 0.0
    return supported_s(calibrations(familiar), familiar.block_s)


class ShiftAlarm:
    """Tells when a robot's frames are unlike those that its network was calibrated on. Used by one thread.

    One signal has to support the time that is asked for. The others take part, each at a level of its own, unless they
    change so slowly that their blocks are evidence of nothing.

    Args:
        familiar: Blocks of the card.
        apart_s: Seconds between false alarms, on average, on footage like the calibration's.

    Raises:
        ConfigError: If the blocks do not support that; ``why`` and ``hint`` say what they do, and what would.
    """

    def __init__(self, familiar: Familiar, apart_s: float) -> None:
        found = calibrations(familiar)
        _check_supported(familiar, found, apart_s)
        able = [
            one for one in found if reachable_s(one.independent, familiar.block_s, one.memory, len(found)) >= apart_s
        ]
        self.familiar, self.apart_s = familiar, apart_s
        self._maker = BlockMaker(familiar.sample_s, familiar.samples)
        self._parts = parts(familiar.widths)
        self._signals = {
            one.name: Signal(
                one, alarm_level(apart_s, familiar.block_s, one.memory, len(found), one.scores.independent)
            )
            for one in able
        }
        self._counted: Optional[Dict[str, np.ndarray]] = None
        self._blocks = self._alarms = 0
        self._curve: Deque[float] = collections.deque(maxlen=_CURVE)
        self._raised = False
        self._since_block = 0

    def due(self, at_s: float) -> bool:
        """Whether a frame of that time would be looked at."""
        return self._maker.due(at_s)

    def add(self, at_s: float, signals: np.ndarray) -> Optional[ShiftState]:
        """Take a frame's signals; gives the state when a block became whole, else None.

        Args:
            at_s: When it was captured, seconds.
            signals: float (D,), as a monitored network gives them.

        Raises:
            ConfigError: If they are of another network than the card: other numbers of signals.
        """
        if len(signals) != sum(self.familiar.widths):
            raise ConfigError(
                f"the network gives {len(signals)} numbers a frame, its card has {sum(self.familiar.widths)}",
                why="the card's blocks are of another network",
                hint="rtda-deploy export MODEL --monitor --footage PATH makes the right ones",
            )
        if not np.isfinite(signals).all():
            return None
        block = self._maker.add(at_s, signals)
        return None if block is None else self.add_block(block)

    def add_block(self, block: np.ndarray) -> ShiftState:
        """Take a block, float64 (D,): the mean of its frames' signals."""
        values = {name: signal_values(name, block[self._parts[name]]) for name in self._signals}
        still = self._stands(values)
        for name, signal in self._signals.items():
            signal.add(values[name], still=still)
        self._counted = self._counted if still else values
        self._blocks += 1
        self._curve.append(self._leading().cusum.evidence)
        raised = any(signal.cusum.alarm for signal in self._signals.values())
        if raised != self._raised:
            self._raised, self._since_block = raised, self._blocks
            self._alarms += raised
        return self.state()

    def _stands(self, values: Dict[str, np.ndarray]) -> bool:
        """Whether a block shows the scene that was counted last."""
        if self._counted is None:
            return False
        moved = [one.calibration.moved(values[name], self._counted[name]) for name, one in self._signals.items()]
        return float(np.median(moved)) < _STILL

    def state(self) -> ShiftState:
        """What it says now."""
        leading = self._leading()
        return ShiftState(
            state=UNFAMILIAR if self._raised else FAMILIAR,
            since_s=(self._blocks - self._since_block) * self.familiar.block_s,
            signal=leading.calibration.name,
            evidence=leading.cusum.evidence,
            distance=leading.distance,
            blocks=self._blocks,
            alarms=self._alarms,
            apart_s=self.apart_s,
            signals={name: signal.cusum.evidence for name, signal in self._signals.items()},
            curve=tuple(self._curve),
        )

    def _leading(self) -> Signal:
        return max(self._signals.values(), key=lambda signal: (signal.cusum.evidence, signal.distance))


def _check_supported(familiar: Familiar, found: List[Calibration], apart_s: float) -> None:
    longest = supported_s(found, familiar.block_s)
    if apart_s <= longest:
        return
    best = max(found, key=lambda one: one.independent)
    needed = min(footage_needed_s(apart_s, familiar.block_s, one.memory, len(found)) for one in found)
    there = duration_text(familiar.blocks * familiar.block_s)
    supports = f"false alarms {duration_text(longest)} apart at most" if longest else "no alarm at all"
    raise ConfigError(
        f"false alarms {duration_text(apart_s)} apart are more than the card's {there} of footage support: {supports}",
        why=f"its {familiar.blocks} blocks are worth {best.independent:.0f} independent ones at most ({best.name})",
        hint=f"about {duration_text(needed)} of footage as varied as it: rtda-deploy export MODEL --monitor --footage "
        f"PATH   {f'(or --shift {int(longest)}s)' if longest >= 1 else ''}".rstrip(),
    )
