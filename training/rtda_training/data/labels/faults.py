"""What the values of a set's labels say about it, for ``data check``, ``train`` and ``eval`` alike.

A set can be without a broken file and yet teach nothing: masks of 0 and 255 under two names, a class without a pixel,
labels of another class list. Every verdict comes with the line to write.
"""

from __future__ import annotations

import json
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

import numpy as np

from rtda_training.data.readers.cityscapes import LABEL_IDS
from rtda_training.labels import CAMVID, CITYSCAPES, IGNORE_INDEX, LabelMeaning

__all__ = ["VERDICTS", "Verdict", "doubt", "fitting_line", "fitting_text", "unknown_ids_fix", "verdicts"]

VERDICTS: Dict[str, str] = {
    "nothing_labelled": "sets without a labelled pixel",
    "mostly_ignored": "sets whose pixels are mostly 255, which is not trained on",
    "empty_class": "classes without a pixel",
}
_MOST = 0.5  # share of pixels that are not labelled
_ENOUGH_LABELS = 10  # street pictures among which one holds a vehicle
_ROAD = next(number for number, name in LABEL_IDS.items() if name == "road")
_FIRST_VEHICLE = CITYSCAPES.names.index("rider")


class Verdict(NamedTuple):
    """A fault of a whole set: its kind in ``VERDICTS``, what is wrong, and what to do."""

    kind: str
    text: str
    fix: str


def verdicts(
    data: str,
    class_names: Sequence[str],
    counts: np.ndarray,
    meaning: Optional[LabelMeaning],
    *,
    whole: bool,
    to_train: bool,
) -> List[Verdict]:
    """What a training on these labels would stop at.

    Args:
        data: What to call the set.
        class_names: C classes of the labels.
        counts: int64 (C + 1,): pixels of each class, then those that are not labelled.
        meaning: What the user said of the values; None for a kind of set that says it itself, whose classes and
            ignored values are as its authors made them.
        whole: Whether every label was counted; in a part, a class may be missing by chance.
        to_train: Whether the set is to be trained on; one that is measured on may lack a class.
    """
    labelled, everything = int(counts[:-1].sum()), int(counts.sum())
    if everything == 0:
        return []
    raw = meaning is not None and meaning.raw and tuple(class_names) == (meaning.names or CITYSCAPES.names)
    line = fitting_text(meaning, _values(counts)) if meaning and raw else ""
    if labelled == 0:
        text = f"no pixel of {data} is labelled" + (
            ": its labels hold 255 alone, which means not labelled" if raw else ""
        )
        fix = _numbers_fix(class_names) if raw else "are these its labels? see what it is joined to and ignores"
        return [Verdict("nothing_labelled", text, fix)]
    if meaning is None:
        return []
    found = []
    ignored = 1.0 - labelled / everything
    if ignored > _MOST and raw:
        also = fitting_line(meaning.names, _values(counts), ignore=True)
        text = f"{100 * ignored:.0f} % of the pixels of {data} are 255, which is not trained on"
        found.append(Verdict("mostly_ignored", text, f"{line}   or, if 255 means not labelled: {also}"))
    elif ignored > _MOST and not meaning.raw and not meaning.says_ignored:
        text = f"{100 * ignored:.0f} % of the pixels of {data} are 255, which {meaning.file} does not name"
        found.append(Verdict("mostly_ignored", text, 'give 255 a class in it, or add "ignore": [255]'))
    if whole and to_train and _names_are_own(meaning):
        empty = [
            name
            for name, count in zip(class_names, counts)
            if not count and name in meaning.names and name not in meaning.absent
        ]
        if empty:
            text = f"{', '.join(empty)} of {meaning.file}: no pixel in any label of {data}"
            found.append(Verdict("empty_class", text, _empty_fix(meaning, empty, line, bool(counts[-1]))))
    return found


def doubt(counts: np.ndarray, labels: int, meaning: Optional[LabelMeaning]) -> str:
    """What speaks against labels that are taken for Cityscapes' 19 classes; "" where nothing does.

    Args:
        counts: int64 (C or more,): pixels of each class.
        labels: Number of labels that were counted.
        meaning: Of the set; only one that assumes can be doubted.
    """
    if meaning is None or not meaning.assumed or len(counts) < CITYSCAPES.num_classes:
        return ""
    held = [number for number in range(CITYSCAPES.num_classes) if counts[number]]
    if len(held) == 1 and counts[-1]:  # such as masks of 0 and 255, whose 255 would not be trained on
        return (
            f"{labels} labels hold {held[0]} and 255 alone, which is {CITYSCAPES.names[held[0]]} and no label:"
            f" is 255 a class? say so in {meaning.file}"
        )
    if not held or held[-1] >= _FIRST_VEHICLE or labels < _ENOUGH_LABELS:
        return ""
    return (
        f"{labels} labels hold the ids {', '.join(map(str, held))} alone, no rider and no vehicle"
        f" ({_FIRST_VEHICLE}..18 in Cityscapes): is this another class list? say so in {meaning.file}"
    )


def fitting_text(meaning: LabelMeaning, values: Iterable[int]) -> str:
    """The advice to write what fits the values found: ``write into set/classes.json: {…}``."""
    return f"write into {meaning.file}: {fitting_line(meaning.names, tuple(values))}"


def unknown_ids_fix(meaning: LabelMeaning, values: Iterable[int]) -> str:
    """What to do about ids of no class, given every id that was found."""
    allowed = f"allowed are 0..{len(meaning.names or CITYSCAPES.names) - 1} and 255 (ignore)"
    return f"{allowed}; if these ids are right, {fitting_text(meaning, values)}"


def fitting_line(class_names: Sequence[str], values: Sequence[int], *, ignore: bool = False) -> str:
    """A ``classes.json`` that fits the values found, in their order: ``{"ids": {"0": "road", "255": "car"}}``.

    255 gets a class where there are more names than other values, or only one other value, unless ``ignore``. Values
    beyond the names are called ``class 7``; without names, ids that can only be Cityscapes' label ids get their names.
    """
    ids = sorted({int(value) for value in values} - {IGNORE_INDEX})
    if not class_names and _ROAD in ids and len(CITYSCAPES.names) <= ids[-1] < len(LABEL_IDS):
        table = {str(number): LABEL_IDS[number] for number in ids}
        return json.dumps({"names": list(CITYSCAPES.names), "ids": table})
    holds_255 = IGNORE_INDEX in values
    if holds_255 and not ignore and (len(ids) < len(class_names) or len(ids) == 1):
        ids.append(IGNORE_INDEX)
        holds_255 = False
    if ids and ids[-1] < len(class_names):  # they are class numbers already
        ids = list(range(len(class_names)))
    names = [*class_names[: len(ids)], *(f"class {number}" for number in ids[len(class_names) :])]
    found: Dict[str, object] = {"ids": {str(number): name for number, name in zip(ids, names)}}
    return json.dumps({**found, "ignore": [IGNORE_INDEX]} if holds_255 else found, ensure_ascii=False)


def _numbers_fix(class_names: Sequence[str]) -> str:
    """What masks have to hold. No table of ids mends masks of one value: it would call every pixel the same."""
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(class_names[:3]))
    more = ", …" if len(class_names) > 3 else ""
    return f"give each pixel the number of its class ({shown}{more}), 255 where it has none"


def _values(counts: np.ndarray) -> List[int]:
    return [int(value) for value in np.flatnonzero(counts[:-1])] + ([IGNORE_INDEX] if counts[-1] else [])


def _names_are_own(meaning: LabelMeaning) -> bool:
    """Whether the user named the classes; of the known lists a set may lack some, as the papers' protocols allow."""
    return bool(meaning.names) and meaning.names not in (CITYSCAPES.names, CAMVID.names)


def _empty_fix(meaning: LabelMeaning, empty: Sequence[str], line: str, holds_255: bool) -> str:
    absent = json.dumps(list(empty), ensure_ascii=False)
    allowed = f'add "absent": {absent} to it (or to a copy: ?classes=COPY.json) if the set holds none'
    return f"{line}   or {allowed}" if line and holds_255 else f"take the names away, or {allowed}"
