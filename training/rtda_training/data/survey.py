"""Everything that is wrong with a data set, found before a training meets it.

Every picture and every label is decoded once; what was counted on the way is kept as the set's index.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from rtda_deploy.errors import RtdaError
from rtda_training.data.index import DataIndex, count_pixels, in_order, keep_index
from rtda_training.data.labels.faults import VERDICTS, doubt, unknown_ids_fix, verdicts
from rtda_training.data.labels.files import TurnedError
from rtda_training.data.labels.tables import UnknownIdsError
from rtda_training.labels import check_label
from rtda_training.readers import (
    SAME_KEYS_HINT,
    LabelledSet,
    Pictures,
    Progress,
    open_for_survey,
    same_keys,
)

__all__ = ["FAULTS", "Survey", "survey"]

# What a training would stop at, in the order of telling.
FAULTS: Dict[str, str] = {
    "unreadable": "files that cannot be read",
    "turned": "pictures or labels that EXIF turns",
    "no_label": "pictures without a label",
    "unknown_ids": "labels with unknown ids",
    "size_mismatch": "labels of another size than their picture",
    "same_name": "pictures that have another's name",
    **VERDICTS,
}


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was found in a set.

    Attributes:
        data: Its address.
        class_names: Classes of its labels; empty where it was surveyed without labels.
        pictures: Number of pictures.
        labels: Number of labels that are as they should be.
        sizes: Number of pictures of each "WIDTHxHEIGHT".
        percent: Share of each class in the labelled pixels, in percent; None where nothing is labelled.
        in_pictures: Number of labels that hold each class.
        ignored_percent: Share of pixels that are not labelled.
        faults: Per kind of ``FAULTS``, ``path: what is wrong``.
        fixes: Per kind, what to do about the first of them.
        blank_labels: Labels of class 0 or of no class alone; a training takes them, but they are seldom meant.
        no_picture: Labels without a picture; a training does not look at them.
        left_out: What lies among the pictures and is not taken, by the reason.
        about: What a person should know about the set.
        notes: What is assumed about the labels, and what speaks against it.
        index: File of the index; None where faults or a closed cache left none.
    """

    data: str
    class_names: Tuple[str, ...]
    pictures: int
    labels: int
    sizes: Dict[str, int]
    percent: Tuple[Optional[float], ...]
    in_pictures: Tuple[int, ...]
    ignored_percent: float
    faults: Dict[str, List[str]]
    fixes: Dict[str, str]
    blank_labels: List[str]
    no_picture: List[str]
    left_out: Dict[str, List[str]]
    about: List[str]
    notes: List[str]
    index: Optional[str]

    @property
    def fault_count(self) -> int:
        """Number of faults that a training would stop at."""
        return sum(len(found) for found in self.faults.values())

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``data check --json`` prints."""
        return {
            "data": self.data,
            "pictures": self.pictures,
            "labels": self.labels,
            "sizes": self.sizes,
            "classes": [
                {"name": name, "percent": percent, "pictures": count}
                for name, percent, count in zip(self.class_names, self.percent, self.in_pictures)
            ],
            "ignored_percent": self.ignored_percent,
            "fault_count": self.fault_count,
            "faults": self.faults,
            "fixes": self.fixes,
            "blank_labels": self.blank_labels,
            "no_picture": self.no_picture,
            "left_out": self.left_out,
            "about": self.about,
            "notes": self.notes,
            "index": self.index,
        }


@dataclasses.dataclass(frozen=True)
class _Found:
    """One picture: its size, the counts of its label, what is wrong as (kind, text, fix), and ids of no class."""

    size: str
    label_size: Tuple[int, int]
    counts: Optional[np.ndarray]
    faults: Tuple[Tuple[str, str, str], ...]
    values: Tuple[int, ...] = ()


def survey(
    text: str,
    *,
    split: str = "train",
    labels: bool = True,
    progress: Optional[Progress] = None,
    prepare: Optional[Progress] = None,
) -> Survey:
    """Look at every picture and label of a set.

    Args:
        text: ``kind:path?key=value``.
        split: What is taken where the address names no split.
        labels: False for a target domain: labels are neither needed nor looked for.
        progress: Called with (done, total).
        prepare: The same, while the set is prepared.

    Raises:
        ConfigError: If the address makes no sense.
        DataError: If there is no such set at all.
    """
    pictures, address = open_for_survey(text, split=split, labels=labels, progress=prepare)
    data = LabelledSet(pictures, address)
    num_classes = pictures.classes.num_classes
    found: List[_Found] = []
    for one in in_order(lambda index: _look(pictures, index, labels), len(pictures)):
        found.append(one)
        if progress is not None:
            progress(len(found), len(pictures))
    good = [(place, one.counts) for place, one in enumerate(found) if one.counts is not None]
    counts = np.stack([row for _, row in good]) if good else np.zeros((0, num_classes + 1), np.int64)
    total = counts.sum(axis=0)
    faults, fixes = _gathered(pictures, found, total)
    if labels and good:
        to_train = (address.split or split) in ("train", "all")
        all_counted = len(good) == len(pictures)
        named = verdicts(
            str(address), pictures.classes.names, total, pictures.meaning, whole=all_counted, to_train=to_train
        )
        for kind, text, fix in named:
            faults[kind].append(text)
            fixes[kind] = fix
    index = None
    if labels and not any(faults.values()):
        index = keep_index(data, DataIndex.of_counts(data, counts, [one.label_size for one in found]))
    shares = _percent(total)
    return Survey(
        data=str(data.address),
        class_names=pictures.classes.names if labels else (),
        pictures=len(pictures),
        labels=len(good),
        sizes=dict(Counter(one.size for one in found if one.size).most_common()),
        percent=shares[0],
        in_pictures=tuple(int(number) for number in (counts[:, :num_classes] > 0).sum(axis=0)),
        ignored_percent=shares[1],
        faults=faults,
        fixes=fixes,
        blank_labels=[pictures.label_name(place) for place, row in good if not row[1:num_classes].any()],
        no_picture=pictures.without_picture() if labels else [],
        left_out=pictures.left_out(),
        about=list(pictures.notes),
        notes=_notes(pictures, total, len(good)) if labels else [],
        index=None if index is None else str(index),
    )


def _gathered(
    pictures: Pictures, found: List[_Found], total: np.ndarray
) -> Tuple[Dict[str, List[str]], Dict[str, str]]:
    """Faults of single pictures by their kind, and the fix of each kind."""
    faults: Dict[str, List[str]] = {kind: [] for kind in FAULTS}
    fixes: Dict[str, str] = {}
    for one in found:
        for kind, fault, fix in one.faults:
            other = fixes.setdefault(kind, fix) != fix and kind == "unreadable"
            faults[kind].append(f"{fault} ({fix})" if other else fault)
    faults["same_name"] = same_keys(pictures)
    if faults["same_name"]:
        fixes["same_name"] = SAME_KEYS_HINT
    values = {value for one in found for value in one.values}
    if values and pictures.meaning is not None:  # one line that fits all labels, not the first of them
        fixes["unknown_ids"] = unknown_ids_fix(pictures.meaning, (*values, *np.flatnonzero(total[:-1]).tolist()))
    return faults, fixes


def _notes(pictures: Pictures, total: np.ndarray, labels: int) -> List[str]:
    meaning = pictures.meaning
    if meaning is None or not meaning.assumed or not labels:
        return []
    notes = [f"no {meaning.file}: its labels are taken for Cityscapes' 19 classes"]
    return [*notes, *(text for text in [doubt(total, labels, meaning)] if text)]


def _look(pictures: Pictures, index: int, labels: bool) -> _Found:
    faults: List[Tuple[str, str, str]] = []
    frame_hw: Tuple[int, int] = (0, 0)
    label_hw: Tuple[int, int] = (0, 0)
    counts = None
    values: Tuple[int, ...] = ()
    try:
        frame = pictures.frame(index)
        frame_hw = (frame.shape[0], frame.shape[1])
    except RtdaError as err:
        faults.append((_kind_of(err), _told(pictures.name(index), err), err.hint))
    if labels and pictures.missing_label(index):
        faults.append(("no_label", pictures.name(index), pictures.missing_hint()))
    elif labels:
        try:
            stored = pictures.label(index)
        except RtdaError as err:
            values = err.values if isinstance(err, UnknownIdsError) else ()
            faults.append((_kind_of(err), _told(pictures.label_name(index), err), err.hint))
        else:
            try:
                label = check_label(stored, pictures.classes.num_classes, pictures.label_name(index))
                label_hw = (label.shape[0], label.shape[1])
                counts = count_pixels(label, pictures.classes.num_classes)
            except RtdaError as err:
                faults.append(("unknown_ids", _told(pictures.label_name(index), err), err.hint))
    if counts is not None and frame_hw != (0, 0) and frame_hw != label_hw:
        sizes = f"picture {frame_hw[1]}x{frame_hw[0]}, label {label_hw[1]}x{label_hw[0]}"
        fix = "labels must have their picture's size; leave these pictures out with ?list=FILE"
        faults.append(("size_mismatch", f"{pictures.name(index)}: {sizes}", fix))
    size = f"{frame_hw[1]}x{frame_hw[0]}" if frame_hw != (0, 0) else ""
    return _Found(size, label_hw, counts, tuple(faults), values)


def _kind_of(err: RtdaError) -> str:
    kinds = ((UnknownIdsError, "unknown_ids"), (TurnedError, "turned"))
    return next((kind for error, kind in kinds if isinstance(err, error)), "unreadable")


def _told(name: str, err: RtdaError) -> str:
    return err.message if name in err.message else f"{name}: {err.message}"


def _percent(total: np.ndarray) -> Tuple[Tuple[Optional[float], ...], float]:
    labelled, everything = int(total[:-1].sum()), int(total.sum())
    ignored = 100.0 * float(total[-1]) / everything if everything else 0.0
    if not labelled:
        return (None,) * (len(total) - 1), round(ignored, 4)
    return tuple(round(100.0 * float(count) / labelled, 4) for count in total[:-1]), round(ignored, 4)
