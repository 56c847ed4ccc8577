"""The verdict of a ranking: every candidate's figures, which is best, and the sentence that says so."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Mapping, Optional, Tuple

from rtda_training.judge.answers import Dropped
from rtda_training.judge.check import Paired

__all__ = ["Ranked", "Ranking", "majority"]


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One candidate.

    Attributes:
        name: As it was given.
        scores: Of every selector, larger is better; None where it says nothing.
        warnings: What looks like a collapse; without labels it comes after all that have none.
        remarks: What is worth a look.
        first_share: Share of the draws in which it ranks first, 0..1.
        beats_first: For each selector of the rule the share of the draws in which it beats the first candidate, by more
            than rounding may.
        check_miou: On the labelled frames, percent; None without any.
    """

    name: str
    scores: Mapping[str, Optional[float]]
    warnings: Tuple[str, ...]
    remarks: Tuple[str, ...]
    first_share: float
    beats_first: Mapping[str, float]
    check_miou: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The verdict.

    Attributes:
        entries: Best first.
        first: Name of the first candidate, which the others are compared with.
        better: Whether the one that ranks first is better than it: by most of the selectors in 95 % of the draws; where
            frames are labelled, by more mIoU on them than the difference's standard error.
        check: The paired test of these two on labelled frames; None without any, and where they are one.
        frames: Number of frames of the footage.
        dropped: Candidates that cannot be judged.
        notes: What makes it less sure than it seems.
        left_out: Selectors that otherwise count, and why each does not here.
    """

    entries: Tuple[Ranked, ...]
    first: str
    better: bool
    check: Optional[Paired]
    frames: int
    dropped: Tuple[Dropped, ...] = ()
    notes: Tuple[str, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def by_labels(self) -> bool:
        """Whether labelled frames decided."""
        return self.entries[0].check_miou is not None

    @property
    def chosen(self) -> str:
        """The one to take: that ranks first, or the first given where nothing is better."""
        return self.entries[0].name if self.better else self.first

    def verdict(self) -> str:
        """One sentence."""
        best = self.entries[0]
        if self.by_labels:
            return self._checked_verdict(best)
        if best.name == self.first:
            return f"{self.first} is best: none of the others ranks before it"
        shares = sorted((share for share in best.beats_first.values()), reverse=True)
        most = majority(len(shares))
        draws = f"{100 * shares[most - 1]:.0f} % of the draws on {most} of {len(shares)} measures"
        sure = f"it beats {self.first} in {draws}"
        if self.better:
            return f"{best.name} is best: {sure}"
        return f"no better than the first, {self.first}: {best.name} ranks before it, but {sure}"

    def _checked_verdict(self, best: Ranked) -> str:
        if self.check is None:
            return f"{self.first} is best: none of the others has more mIoU on the labelled frames"
        frames, found = self.check.frames, _interval(self.check)
        if self.better:
            return f"{best.name} is best on {frames} labelled frames: {found} over {self.first}"
        what = f"{found} on {frames} labelled frames, which is within chance"
        return f"no better than the first, {self.first}: {best.name} has {what}"

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``rank --json`` prints."""
        values = dataclasses.asdict(self)
        values["dropped"] = [found._asdict() for found in self.dropped]
        values["check"] = None if self.check is None else self.check._asdict()
        return {"chosen": self.chosen, "verdict": self.verdict(), "by_labels": self.by_labels, **values}


def majority(selectors: int) -> int:
    """Of so many selectors the least number that is most of them."""
    return selectors // 2 + 1


def _interval(check: Paired) -> str:
    return f"{check.difference:+.1f} mIoU (95 % interval {check.low:+.1f} to {check.high:+.1f})"
