"""Which of several networks is best on footage without labels, how sure that is, and whether it beats the first."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.errors import ConfigError, DataError, EngineError
from rtda_training.judge.answers import Answers, Candidate, Dropped, Frames, answers_of
from rtda_training.judge.check import Paired, check_counts, miou_of, paired, refuse_other_classes, repeated
from rtda_training.judge.evidence import Evidence, evidence_of
from rtda_training.judge.guards import remarks_of, warnings_of
from rtda_training.judge.own_masks import uncorrected
from rtda_training.judge.resample import block_weights, one_of_each
from rtda_training.judge.selectors import SELECTORS
from rtda_training.judge.verdict import Ranked, Ranking, majority
from rtda_training.readers import LabelledSet, UnlabelledSet

__all__ = [
    "RULE",
    "FirstUnusableError",
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


class FirstUnusableError(DataError):
    """The candidate that the others are to be compared with cannot be judged.

    Attributes:
        dropped: It, and why.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the first model cannot be judged: {why}", hint="give another first")
        self.dropped = Dropped(name, why)


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
        labelled: A few labelled frames of the same kind; with them their mIoU decides, not the selectors.
        max_frames: Of the footage, spread evenly; 0: all.
        tell: Told of progress.

    Raises:
        DataError: If the footage is too short or cannot be read, or the first candidate cannot be judged
            (:class:`FirstUnusableError`).
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
    doubts = () if labelled is None else (*refuse_other_classes(labelled), *uncorrected(labelled), *repeated(labelled))
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
            marked: Optional[np.ndarray] = None
            try:
                if labelled is not None and candidate.mask is not None:
                    marked = check_counts(candidate.mask, labelled)  # bad labels are told before minutes of footage
                found = answers_of(candidate, frames, file, like=answers[0] if answers else None, progress=progress)
            except EngineError as err:
                if not answers:
                    raise FirstUnusableError(candidate.name, err.message) from err
                dropped.append(Dropped(candidate.name, err.message))
                continue
            if labelled is not None:
                counts.append(_marked(candidate, marked))
            answers.append(found)
        if not answers:
            raise ConfigError("no model was given", hint="rtda-deploy rank A.pth B.pth --footage DATA")
        judged = judged_of(answers, names)
        del answers  # their files go with the folder
    notes = (*doubts, *_notes(frames, 0 if counts else len(judged.evidence)))
    return judged._replace(counts=counts, dropped=dropped, notes=notes)


def judged_of(answers: Sequence[Answers], class_names: Sequence[str]) -> Judged:
    """The evidence of answers to the same frames; the first candidate's come first."""
    warnings = warnings_of(answers, class_names)
    evidence = evidence_of(answers, [not told for told in warnings])
    return Judged(evidence, warnings, remarks_of(answers, class_names), [], [], len(answers[0].mean), ())


def ranking_of(judged: Judged, *, draws: int = _DRAWS, rule: Sequence[str] = ()) -> Ranking:
    """Lay the rule over the evidence.

    Labels, where there are some, say more than any measure without them: the one with the most mIoU on them ranks
    first, and is better than the first candidate where :attr:`Paired.better` says so.

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
    checked = [100 * miou_of(counts.sum(axis=0)) for counts in judged.counts]
    # Of equals on the labels the first candidate stays before the others.
    keys = [(-checked[n], n > 0, order[n]) if checked else (0.0, False, order[n]) for n in range(len(evidence))]
    ordered = sorted(range(len(evidence)), key=lambda number: keys[number])
    entries = [
        Ranked(
            name=evidence[number].name,
            scores={key: _number(SELECTORS[key](evidence[number], once)[0]) for key in SELECTORS},
            warnings=judged.warnings[number],
            remarks=judged.remarks[number],
            first_share=float(wins[number]),
            beats_first={key: float((drawn[key][number] > drawn[key][0] + _SAME).mean()) for key in rule},
            check_miou=checked[number] if checked else None,
        )
        for number in ordered
    ]
    best = ordered[0]
    check = paired(judged.counts[best], judged.counts[0]) if checked and best != 0 else None
    if check is not None:
        better = check.better
    else:
        sure = sum(share >= _SURE for share in entries[0].beats_first.values()) >= majority(len(rule))
        better = best != 0 and sure and not warned[best]
    return Ranking(
        entries=tuple(entries),
        first=evidence[0].name,
        better=bool(better),
        check=check,
        frames=judged.frames,
        dropped=tuple(judged.dropped),
        notes=(*judged.notes, *(_doubts(check, len(entries)) if check is not None and better else ())),
        left_out={} if checked else unsaid,  # no measure counts beside labels
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


def _marked(candidate: Candidate, counts: Optional[np.ndarray]) -> np.ndarray:
    if counts is None:
        raise ConfigError(f"{candidate.name} gives no mask for labelled frames", hint="rank without them: no labelled=")
    return counts


def _notes(frames: Frames, candidates: int) -> Tuple[str, ...]:
    """What makes the footage say less; ``candidates``: that are judged by their agreement, 0: none are."""
    told = []
    if frames.still:
        told.append("the footage shows one scene that does not change: take some of other places")
    if frames.left_out:
        told.append(f"{len(frames.left_out)} frames could not be read, such as {frames.left_out[0]}")
    if 0 < candidates < _FEW:
        told.append(f"agreement among {candidates} models says little: give more checkpoints of their runs, or --check")
    return tuple(told)


def _doubts(check: Paired, candidates: int) -> Iterator[str]:
    """What makes a choice by labels less sure than it seems."""
    if check.hangs_on_one_frame:
        yield (
            f"without one of the {check.frames} labelled frames the lead is {check.least:+.1f} mIoU: a single frame"
            " decided, label more"
        )
    if candidates > 2:
        yield (
            f"the labelled frames chose among {candidates}, and the interval is that of one comparison: elsewhere the"
            " gain is likely a little less"
        )


def _number(value: float) -> Optional[float]:
    return None if np.isnan(value) else float(value)
