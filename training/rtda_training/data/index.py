"""How many pixels of each class every label holds; what rare class sampling draws by.

Counting a large set takes minutes, so the counts are kept in ``<cache>/index/<fingerprint>.npz``. The fingerprint
changes with the address, the classes, the order of the pictures, and size and time of every label file. Deleting the
folder costs only the time to count again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import zipfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Deque, Iterator, Optional, Sequence, Tuple, TypeVar

import numpy as np

from rtda_deploy.errors import FileAccessError
from rtda_deploy.files import atomic_path, cache_folder
from rtda_training.labels import IGNORE_INDEX
from rtda_training.readers import LabelledSet, Progress

__all__ = ["DataIndex", "count_pixels", "in_order", "index_of", "index_path", "keep_index", "kept_index"]

_log = logging.getLogger(__name__)
_FORMAT = 1  # of the file; part of its name
_AHEAD = 3  # results that each worker may be ahead, so that a Ctrl-C waits for few
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class DataIndex:
    """Pixel counts of a labelled set, in the set's order.

    Attributes:
        class_names: The C classes.
        names: What the N pictures are called.
        pixels: int64 (N, C), pixels of each class.
        ignored: int64 (N,), pixels that are not labelled.
        sizes: int64 (N, 2), height and width of each label.
    """

    class_names: Tuple[str, ...]
    names: Tuple[str, ...]
    pixels: np.ndarray
    ignored: np.ndarray
    sizes: np.ndarray

    @property
    def frequencies(self) -> np.ndarray:
        """float64 (C,): share of each class in the labelled pixels of the set; all 0 where nothing is labelled."""
        counts = self.pixels.sum(axis=0, dtype=np.float64)
        total = counts.sum()
        shares: np.ndarray = counts / total if total else counts
        return shares

    def save(self, path: Path) -> None:
        """Write the index to ``path`` (.npz), whole or not at all.

        Raises:
            FileAccessError: If it cannot be written.
        """
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                class_names=np.array(self.class_names, dtype=np.str_),
                names=np.array(self.names, dtype=np.str_),
                pixels=self.pixels,
                ignored=self.ignored,
                sizes=self.sizes,
            )

    @classmethod
    def load(cls, path: Path) -> Optional[DataIndex]:
        """The index of a file; None where it is missing or broken."""
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(
            str(path), allow_pickle=False
        ) as values:
            return cls(
                class_names=tuple(str(name) for name in values["class_names"]),
                names=tuple(str(name) for name in values["names"]),
                pixels=values["pixels"],
                ignored=values["ignored"],
                sizes=values["sizes"],
            )
        return None

    @classmethod
    def of_counts(cls, data: LabelledSet, counts: np.ndarray, sizes: Sequence[Tuple[int, int]]) -> DataIndex:
        """Of a whole set from int64 (N, C + 1) counts, the last column of pixels that are not labelled."""
        num_classes = data.classes.num_classes
        return cls(
            class_names=tuple(data.classes.names),
            names=tuple(data.name(place) for place in range(len(data))),
            pixels=np.ascontiguousarray(counts[:, :num_classes]),
            ignored=np.ascontiguousarray(counts[:, num_classes]),
            sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        )


def index_of(data: LabelledSet, *, progress: Optional[Progress] = None, workers: int = 0) -> DataIndex:
    """The index of a set: from the cache, else counted now and kept there.

    Args:
        data: Every label is read where the cache does not hold the index.
        progress: Called with (done, total) while labels are counted.
        workers: Threads; 0: one per core.

    Raises:
        DataError: If a label is not what it should be.
    """
    found = kept_index(data)
    if found is not None:
        return found
    num_classes = data.classes.num_classes

    def count(place: int) -> Tuple[np.ndarray, Tuple[int, int]]:
        label = data.label(place)
        return count_pixels(label, num_classes), (label.shape[0], label.shape[1])

    rows, sizes = [], []
    for done, (row, size) in enumerate(in_order(count, len(data), workers), start=1):
        rows.append(row)
        sizes.append(size)
        if progress is not None:
            progress(done, len(data))
    index = DataIndex.of_counts(data, np.stack(rows), sizes)
    keep_index(data, index)
    return index


def kept_index(data: LabelledSet) -> Optional[DataIndex]:
    """The index of a set from the cache; None where it is not there."""
    found = DataIndex.load(index_path(data))
    if found is None or len(found.names) != len(data) or found.class_names != data.classes.names:
        return None
    return found


def keep_index(data: LabelledSet, index: DataIndex) -> Optional[Path]:
    """Keep the index of a set in the cache; gives its file, None where it cannot be written."""
    path = index_path(data)
    try:
        index.save(path)
    except FileAccessError as err:  # a full or closed cache costs time, not the run
        _log.warning("index of %s is not kept: %s", data.address, err)
        return None
    return path


def index_path(data: LabelledSet) -> Path:
    """Where the index of a set is kept."""
    return cache_folder() / "index" / f"v{_FORMAT}-{data.fingerprint()[:32]}.npz"


def count_pixels(label: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (C + 1,): pixels of each class, then those that are not labelled, of a checked uint8 (H, W) label."""
    counts = np.bincount(label.ravel(), minlength=256).astype(np.int64)
    return np.append(counts[:num_classes], counts[IGNORE_INDEX])


def in_order(work: Callable[[int], _Result], count: int, workers: int = 0) -> Iterator[_Result]:
    """``work(0)``, ``work(1)``, … ``work(count - 1)``, by ``workers`` threads (0: one per core that is allowed).

    Threads are enough: OpenCV gives the interpreter free while it decodes.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), count)
    if workers < 2:
        for index in range(count):
            yield work(index)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: Deque[Future[_Result]] = deque()
        for index in range(count):
            waiting.append(pool.submit(work, index))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
