"""Which of several networks is best on footage without labels, how sure that is, and whether it beats the first."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.errors import ConfigError, DataError, EngineError
from rtda_training.judge.answers import Answers, Candidate, Dropped, Frames, answers_of
from rtda_training.judge.check import Paired, check_counts, miou_of, paired
from rtda_training.judge.evidence import Evidence, evidence_of
from rtda_training.judge.guards import remarks_of, warnings_of
from rtda_training.judge.resample import block_weights, one_of_each
from rtda_training.judge.selectors import SELECTORS
from rtda_training.readers import LabelledSet, UnlabelledSet

__all__ = [
    "RULE",
    "Judged",
    "Ranked",
    "Ranking",
    "judge",
    "judged_of",
    "left_out",
    "places",
    "rank",
    "ranking_of",
]

# Selectors whose places are averaged; docs/results/ranking.md says why. Norms only where they say something of each.
RULE = ("ensemble-miou", "views", "infomax", "norms")
_SURE = 0.95  # share of the draws in which a candidate has to beat the first
_SAME = 1e-3  # of a score, which are 0..1 mostly: less is rounding, such as that of one network in two kinds of file
_FEW = 4  # candidates below which agreement with all says little
_DRAWS = 500

Tell = Callable[[str, int, int], None]  # what is done, how much of it, of how much


class Judged(NamedTuple):
    """Everything known of the candidates before a rule is laid over it.

    Attributes:
        evidence: Of each candidate that was not dropped, in their order.
        warnings: What looks like a collapse, of each; such a candidate comes last.
        remarks: What is worth a look, of each.
        counts: Confusion matrices int64 (N, C, C) on labelled frames, of each; empty without such frames.
        dropped: Candidates that cannot be judged.
        frames: Number of frames.
        notes: What makes the footage say less than it seems to.
    """

    evidence: List[Evidence]
    warnings: List[Tuple[str, ...]]
    remarks: List[Tuple[str, ...]]
    counts: List[np.ndarray]
    dropped: List[Dropped]
    frames: int
    notes: Tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One candidate.

    Attributes:
        name: As it was given.
        scores: Of every selector, larger is better; None where it says nothing.
        warnings: What looks like a collapse; it comes after all that have none.
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
        better: Whether the one that ranks first is better than it: by most of the selectors in 95 % of the draws and,
            where frames are labelled, without their interval lying below 0.
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
    def chosen(self) -> str:
        """The one to take: that ranks first, or the first given where nothing is better."""
        return self.entries[0].name if self.better else self.first

    def verdict(self) -> str:
        """One sentence."""
        best = self.entries[0]
        if best.name == self.first:
            return f"{self.first} is best: none of the others ranks before it"
        shares = sorted((share for share in best.beats_first.values()), reverse=True)
        most = _majority(len(shares))
        draws = f"{100 * shares[most - 1]:.0f} % of the draws on {most} of {len(shares)} measures"
        sure = f"it beats {self.first} in {draws}"
        tested = "" if self.check is None else f"; {_interval(self.check)}"
        if self.better:
            return f"{best.name} is best: {sure}{tested}"
        return f"no better than the first, {self.first}: {best.name} ranks before it, but {sure}{tested}"

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``rank --json`` prints."""
        values = dataclasses.asdict(self)
        values["dropped"] = [found._asdict() for found in self.dropped]
        values["check"] = None if self.check is None else self.check._asdict()
        return {"chosen": self.chosen, "verdict": self.verdict(), **values}


def rank(
    candidates: Iterable[Candidate],
    footage: UnlabelledSet,
    *,
    labelled: Optional[LabelledSet] = None,
    max_frames: int = 100,
    tell: Optional[Tell] = None,
) -> Ranking:
    """Order networks for footage without labels; the first one given is what the others are compared with.

    Args:
        candidates: Run one after the other; a generator may open each and close it when the next is asked for.
        footage: Frames without labels.
        labelled: A few labelled frames of the same kind for a paired test; they change no place.
        max_frames: Of the footage, spread evenly; 0: all.
        tell: Told of progress.

    Raises:
        DataError: If the footage is too short or cannot be read, or the first candidate cannot be judged.
        ConfigError: If candidates have other classes than the first, or share a name.
    """
    return ranking_of(judge(candidates, footage, labelled=labelled, max_frames=max_frames, tell=tell))


def judge(
    candidates: Iterable[Candidate],
    footage: UnlabelledSet,
    *,
    labelled: Optional[LabelledSet] = None,
    max_frames: int = 100,
    tell: Optional[Tell] = None,
) -> Judged:
    """Run every candidate over the footage and gather the evidence; arguments and errors as :func:`rank`."""
    frames = Frames(footage, max_frames)
    answers: List[Answers] = []
    counts: List[np.ndarray] = []
    dropped: List[Dropped] = []
    names: Tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="rtda-judge-") as folder:
        for number, candidate in enumerate(candidates):
            names = names or candidate.class_names
            _check_fits(candidate, names, [*answers, *dropped])
            progress = None if tell is None else _counter(tell, candidate.name)
            file = Path(folder) / f"{number}.f16"
            try:
                found = answers_of(candidate, frames, file, like=answers[0] if answers else None, progress=progress)
                if labelled is not None and candidate.mask is not None:
                    counts.append(check_counts(candidate.mask, labelled))
            except EngineError as err:
                if not answers:
                    raise DataError(
                        f"the first model cannot be judged: {err.message}",
                        hint="give another first",
                    ) from err
                dropped.append(Dropped(candidate.name, err.message))
                continue
            answers.append(found)
        if not answers:
            raise ConfigError("no model was given", hint="rtda-deploy rank A.pth B.pth --footage DATA")
        judged = judged_of(answers, names)
        del answers  # their files go with the folder
    return judged._replace(counts=counts, dropped=dropped, notes=_notes(frames, len(judged.evidence)))


def judged_of(answers: Sequence[Answers], class_names: Sequence[str]) -> Judged:
    """The evidence of answers to the same frames; the first candidate's come first."""
    warnings = warnings_of(answers, class_names)
    evidence = evidence_of(answers, [not told for told in warnings])
    return Judged(evidence, warnings, remarks_of(answers, class_names), [], [], len(answers[0].mean), ())


def ranking_of(judged: Judged, *, draws: int = _DRAWS, rule: Sequence[str] = ()) -> Ranking:
    """Lay the rule over the evidence.

    Args:
        judged: What is known.
        draws: Of blocks of frames, which say how sure the order is.
        rule: Selectors whose places are averaged; empty: those of ``RULE`` that say something of every candidate.
    """
    unsaid = {} if rule else left_out(judged.evidence)
    rule = rule or [key for key in RULE if key not in unsaid]
    evidence, warned = judged.evidence, np.asarray([bool(told) for told in judged.warnings])
    once, again = one_of_each(judged.frames), block_weights(judged.frames, draws)
    order = places({key: np.stack([SELECTORS[key](one, once) for one in evidence]) for key in rule}, warned)[:, 0]
    drawn = {key: np.stack([SELECTORS[key](one, again) for one in evidence]) for key in rule}
    wins = (places(drawn, warned) == 0).mean(axis=1)
    entries = [
        Ranked(
            name=evidence[number].name,
            scores={key: _number(SELECTORS[key](evidence[number], once)[0]) for key in SELECTORS},
            warnings=judged.warnings[number],
            remarks=judged.remarks[number],
            first_share=float(wins[number]),
            beats_first={key: float((drawn[key][number] > drawn[key][0] + _SAME).mean()) for key in rule},
            check_miou=100 * miou_of(judged.counts[number].sum(axis=0)) if judged.counts else None,
        )
        for number in np.argsort(order, kind="stable").tolist()
    ]
    best = int(np.argmin(order))
    check = paired(judged.counts[best], judged.counts[0]) if judged.counts and best != 0 else None
    sure = sum(share >= _SURE for share in entries[0].beats_first.values()) >= _majority(len(rule))
    refuted = check is not None and check.high < 0
    return Ranking(
        entries=tuple(entries),
        first=evidence[0].name,
        better=best != 0 and sure and not refuted and not warned[best],
        check=check,
        frames=judged.frames,
        dropped=tuple(judged.dropped),
        notes=judged.notes,
        left_out=unsaid,
    )


def left_out(evidence: Sequence[Union[Answers, Evidence]]) -> Dict[str, str]:
    """Selectors of ``RULE`` that say nothing of some candidate, and why; of such they count for nobody."""
    silent = [one.name for one in evidence if one.norm_distance is None or np.isnan(one.norm_distance)]
    kept = [one.name for one in evidence if one.norms_kept]
    if silent:
        return {"norms": f"no batch norms can be looked at in {_named(silent)}"}
    if kept:
        return {"norms": f'batch norms stood still in training (batch_norm = "fixed"): {_named(kept)}'}
    return {}


def _named(names: Sequence[str]) -> str:
    more = len(names) - 1
    return f"{names[0]} and {more} more" if more > 1 else " and ".join(names)


def places(scores: Mapping[str, np.ndarray], warned: np.ndarray) -> np.ndarray:
    """The place of every candidate in every draw, 0 for the best: int64 (M, B).

    Args:
        scores: Of each selector, float64 (M, B), larger is better.
        warned: bool (M,): those that look collapsed, which come after all others.
    """
    total = np.zeros(next(iter(scores.values())).shape)
    for values in scores.values():
        # What is equal shares a place: the number of those that are better, and half of its equals.
        better = (values[None] > values[:, None]).sum(axis=1)
        equal = (values[None] == values[:, None]).sum(axis=1)
        total += better + 0.5 * equal
    total += np.where(warned, 1e6, 0.0)[:, None]
    return np.asarray(np.argsort(np.argsort(total, axis=0, kind="stable"), axis=0, kind="stable"))


def _check_fits(candidate: Candidate, names: Tuple[str, ...], earlier: Sequence[Any]) -> None:
    if candidate.class_names != names:
        raise ConfigError(
            f"{candidate.name} has other classes than the first model",
            why=f"{', '.join(candidate.class_names)} in the place of {', '.join(names)}",
            hint="rank models of one class list",
        )
    if any(found.name == candidate.name for found in earlier):
        raise ConfigError(f"{candidate.name} was given twice", hint="once is enough")


def _counter(tell: Tell, name: str) -> Callable[[int, int], None]:
    return lambda done, total: tell(name, done, total)


def _notes(frames: Frames, candidates: int) -> Tuple[str, ...]:
    told = []
    if frames.still:
        told.append("the footage shows one scene that does not change: take some of other places")
    if frames.left_out:
        told.append(f"{len(frames.left_out)} frames could not be read, such as {frames.left_out[0]}")
    if candidates < _FEW:
        told.append(f"agreement among {candidates} models says little: give more checkpoints of their runs, or --check")
    return tuple(told)


def _majority(selectors: int) -> int:
    return selectors // 2 + 1


def _number(value: float) -> Optional[float]:
    return None if np.isnan(value) else float(value)


def _interval(check: Paired) -> str:
    sign = f"{check.difference:+.1f} mIoU, 95 % interval {check.low:+.1f} to {check.high:+.1f}"
    return f"on {check.frames} labelled frames {sign}"
