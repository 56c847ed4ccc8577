"""A look at a set's labels before a training starts: what ``data check`` would find is not left for the end of a run.

Few labels are read, spread over the set; more only while a class is still without a pixel. Where ``data check`` or a
training has counted the set, its index answers and nothing is read.
"""

from __future__ import annotations

import filecmp
import os
from functools import lru_cache, partial
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError, RtdaError
from rtda_training.data.index import DataIndex, count_pixels, in_order, keep_index, kept_index
from rtda_training.data.labels.faults import doubt, unknown_ids_fix, verdicts
from rtda_training.data.labels.tables import UnknownIdsError
from rtda_training.readers import LabelledSet, Progress, UnlabelledSet

__all__ = ["copied_pictures", "first_look", "shared_pictures"]


def first_look(
    data: LabelledSet,
    *,
    to_train: bool,
    progress: Optional[Progress] = None,
    tell: Optional[Callable[[str], None]] = None,
    few: int = 64,
    many: int = 512,
) -> None:
    """Look at some labels of a set.

    Args:
        data: The set.
        to_train: Whether it is to be trained on; one to measure on may lack a class.
        progress: Called with (done, total) while labels are read.
        tell: Called with what is assumed or may be wrong, and stops nothing.
        few: So many are read where all is well.
        many: So many at most, where a class stays without a pixel.

    Raises:
        DataError: For what ``rtda-deploy data check`` calls a fault of the whole set, with the line to write; or where
            more than half of the labels looked at cannot be used.
    """
    counts, labels = _counted(data, to_train, progress, few, many)
    whole = labels == len(data)
    name = str(data.address) if whole else f"{labels} of {len(data)} labels of {data.address}"
    found = verdicts(name, data.classes.names, counts, data.meaning, whole=whole, to_train=to_train)
    if found:
        raise DataError(found[0].text, hint=found[0].fix)
    meaning = data.meaning
    if tell is None or meaning is None:
        return
    if meaning.assumed:
        tell(f"{data.address}: no {meaning.file}, so its labels are taken for Cityscapes' 19 classes")
    speaks_against = doubt(counts, labels, meaning)
    if speaks_against:
        tell(speaks_against)
    empty = [name for name, count in zip(data.classes.names, counts) if not count and name in meaning.names]
    if empty and not whole and to_train:
        missing = ", ".join(empty)
        tell(f"{labels} of {len(data)} labels hold no pixel of {missing}; {data.check_command} reads all of them")


def shared_pictures(trained: Sequence[UnlabelledSet], val: UnlabelledSet) -> int:
    """How many pictures of ``val`` are trained on, with their labels: a score on those says little.

    A file is the same however it was named: relative, in a linked folder, with ``..`` in its path.
    """
    folder = lru_cache(maxsize=None)(os.path.realpath)  # looked at once: sets have few folders and many files

    def place(data: UnlabelledSet, index: int) -> Tuple[str, str]:
        parent, name = os.path.split(data.name(index))
        return folder(parent), name

    names = {place(data, index) for data in trained for index in range(len(data))}
    return sum(place(val, index) in names for index in range(len(val)))


def copied_pictures(few: UnlabelledSet, others: UnlabelledSet) -> int:
    """How many pictures of ``others`` are, byte for byte, files of ``few`` that lie elsewhere.

    Only files of the same length are read, so that a large set costs a look at its lengths.
    """

    def length(name: str) -> int:
        return os.path.getsize(name) if os.path.isfile(name) else -1  # rendered: no file

    by_length: Dict[int, List[str]] = {}
    for index in range(len(few)):
        by_length.setdefault(length(few.name(index)), []).append(few.name(index))
    by_length.pop(-1, None)

    def copied(name: str) -> bool:
        return any(filecmp.cmp(name, own, shallow=False) for own in by_length.get(length(name), ()))

    return sum(copied(others.name(index)) for index in range(len(others)))


def _counted(
    data: LabelledSet, to_train: bool, progress: Optional[Progress], few: int, many: int
) -> Tuple[np.ndarray, int]:
    """int64 (C + 1,) pixels, the last of those that are not labelled, and the number of labels they are from."""
    kept = kept_index(data)
    if kept is not None:
        return np.append(kept.pixels.sum(axis=0), kept.ignored.sum()), len(data)
    order = _spread(len(data), few, many)
    rows: List[np.ndarray] = []
    sizes: List[Tuple[int, int]] = []
    faults: List[RtdaError] = []
    for start in range(0, len(order), few):
        part = order[start : start + few]
        for row, size, fault in in_order(partial(_look, data, part), len(part)):
            if fault is not None:
                faults.append(fault)
            else:
                rows.append(row)
                sizes.append(size)
            if progress is not None:
                progress(len(rows) + len(faults), len(order))
        if rows and _enough(data, np.sum(rows, axis=0), to_train):
            break
    if len(faults) > len(rows):
        raise _first(data, faults, rows)
    if len(rows) == len(data):
        by_place = np.argsort(order)
        keep_index(data, DataIndex.of_counts(data, np.stack(rows)[by_place], [sizes[place] for place in by_place]))
    return np.sum(rows, axis=0), len(rows)


def _first(data: LabelledSet, faults: List[RtdaError], rows: List[np.ndarray]) -> RtdaError:
    """The first fault, with a line that fits the ids of all labels that were looked at."""
    values = {value for err in faults if isinstance(err, UnknownIdsError) for value in err.values}
    if values and data.meaning is not None:
        held = np.flatnonzero(np.sum(rows, axis=0)[:-1]).tolist() if rows else []
        return DataError(faults[0].message, hint=unknown_ids_fix(data.meaning, (*values, *held)))
    return faults[0]


def _look(data: LabelledSet, part: List[int], place: int) -> Tuple[np.ndarray, Tuple[int, int], Optional[RtdaError]]:
    try:
        label = data.label(part[place])
    except RtdaError as err:
        return np.zeros(0, np.int64), (0, 0), err
    return count_pixels(label, data.classes.num_classes), (label.shape[0], label.shape[1]), None


def _enough(data: LabelledSet, counts: np.ndarray, to_train: bool) -> bool:
    if not counts[:-1].any():
        return False
    if not to_train or data.meaning is None:
        return True
    missing = (name for name, count in zip(data.classes.names, counts) if not count)
    return not any(name in data.meaning.names and name not in data.meaning.absent for name in missing)


def _spread(count: int, few: int, many: int) -> List[int]:
    """At most ``many`` positions; each ``few`` of them, one after the other, are spread over the whole set."""
    chosen = np.unique(np.linspace(0, count - 1, min(count, many)).round().astype(int))
    parts = max(1, -(-len(chosen) // few))
    return [int(place) for first in range(parts) for place in chosen[first::parts]]
