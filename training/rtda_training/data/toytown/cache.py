"""ToyTown's pictures, rendered once and kept on disk as two arrays that are mapped into memory.

A set is a folder ``<cache>/toytown-v1/<domain>-<split>-<count>-<width>x<height>/`` with ``frames.npy`` and
``labels.npy``; it is renamed into place when it is whole. The cache is ``$RTDA_CACHE``, else
``$XDG_CACHE_HOME/rtda-deploy``, else ``~/.cache/rtda-deploy``. Deleting it costs only the time to render again.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import cache_folder, file_error
from rtda_training.data import toytown
from rtda_training.data.address import DataAddress
from rtda_training.data.kept_folders import filling
from rtda_training.labels import CITYSCAPES
from rtda_training.readers import Pictures, Progress, labels_closed

__all__ = ["DEFAULT_COUNTS", "ToyTownPictures", "cached_set"]

DEFAULT_COUNTS = {"train": 500, "val": 60, "test": 120}
_CHUNK = 10  # pictures rendered by one task


class ToyTownPictures(Pictures):
    """One split of one domain; ``?count=`` pictures of ``?size=`` WIDTHxHEIGHT (default 512x256)."""

    classes = CITYSCAPES
    revision = f"toytown-v{toytown.TOYTOWN_VERSION}"

    def __init__(self, folder: Path, domain: str, split: str, *, labels: bool) -> None:
        self._folder = folder
        self._labelled = labels
        self._prefix = f"toytown:{domain}/{split}"
        self._map()

    @classmethod
    def open(cls, address: DataAddress, split: str, *, labels: bool, progress: Optional[Progress]) -> ToyTownPictures:
        """Open a split, rendering it first where the cache does not hold it."""
        address.allow("count", "size")
        domain = address.path
        if domain not in toytown.DOMAINS:
            raise ConfigError(f"ToyTown has no domain {domain!r}", hint=f"known: {', '.join(toytown.DOMAINS)}")
        count = address.whole_number("count", DEFAULT_COUNTS[split])
        size_hw = address.size_hw("size", (256, 512))
        folder = cached_set(domain, split, count, size_hw, progress=progress)
        return cls(folder, domain, split, labels=labels)

    def __len__(self) -> int:
        return int(self._frames.shape[0])

    def name(self, index: int) -> str:
        return f"{self._prefix}/{index:05d}"

    def frame(self, index: int) -> np.ndarray:
        return np.array(self._frames[index])

    def label(self, index: int) -> np.ndarray:
        if self._labels is None:
            raise labels_closed(self._prefix)
        return np.array(self._labels[index])

    def __getstate__(self) -> Dict[str, Any]:
        # A loader's process maps the files itself: pickled, a mapped array would be copied whole.
        return {**self.__dict__, "_frames": None, "_labels": None}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def _map(self) -> None:
        self._frames = _mapped(self._folder / "frames.npy")
        self._labels = _mapped(self._folder / "labels.npy") if self._labelled else None


def cached_set(
    domain: str, split: str, count: int, size_hw: Tuple[int, int], *, progress: Optional[Progress] = None
) -> Path:
    """The folder of a rendered set, made first where it is missing.

    Two processes that render the same set at once both end with a whole one: the first to finish is kept.
    """
    height, width = size_hw
    parent = cache_folder() / f"toytown-v{toytown.TOYTOWN_VERSION}"
    final = parent / f"{domain}-{split}-{count}-{width}x{height}"
    if final.is_dir():
        return final
    toytown.render(domain, split, 0, size_hw)  # a bad size or a missing OpenCV is told before anything is made
    try:
        with filling(final) as work:
            _render_into(work, domain, split, count, size_hw, progress)
    except OSError as err:
        raise file_error(err, final, "write") from err
    return final


def _render_into(
    work: Path, domain: str, split: str, count: int, size_hw: Tuple[int, int], progress: Optional[Progress]
) -> None:
    frames = np.lib.format.open_memmap(str(work / "frames.npy"), mode="w+", dtype=np.uint8, shape=(count, *size_hw, 3))
    labels = np.lib.format.open_memmap(str(work / "labels.npy"), mode="w+", dtype=np.uint8, shape=(count, *size_hw))
    for name in ("frames.npy", "labels.npy"):
        _reserve(work / name)
    for start, stop in _rendered(work, domain, split, count, size_hw):
        del start
        if progress is not None:
            progress(stop, count)
    frames.flush()
    labels.flush()


def _reserve(path: Path) -> None:
    """Take a file's blocks now: writing to a mapped hole on a full disk kills the process without a word."""
    with open(path, "r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _rendered(work: Path, domain: str, split: str, count: int, size_hw: Tuple[int, int]) -> Iterator[Tuple[int, int]]:
    tasks = [
        (str(work), domain, split, start, min(start + _CHUNK, count), size_hw) for start in range(0, count, _CHUNK)
    ]
    workers = min(len(os.sched_getaffinity(0)), len(tasks))
    if workers < 2 or multiprocessing.current_process().daemon:
        for task in tasks:
            yield _render_chunk(*task)
        return
    # spawn: a process that has loaded torch or opened a camera must not be forked
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = 0
        for start, stop in pool.map(_render_chunk, *zip(*tasks)):
            done += stop - start
            yield start, done


def _render_chunk(
    work: str, domain: str, split: str, start: int, stop: int, size_hw: Tuple[int, int]
) -> Tuple[int, int]:
    frames = np.load(str(Path(work) / "frames.npy"), mmap_mode="r+")
    labels = np.load(str(Path(work) / "labels.npy"), mmap_mode="r+")
    for index in range(start, stop):
        frames[index], labels[index] = toytown.render(domain, split, index, size_hw)
    return start, stop


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(str(path), mmap_mode="r"))
    except (OSError, ValueError, EOFError) as err:
        raise DataError(
            f"rendered set {path.parent} is broken: {err}", hint=f"delete it, it is rendered again: rm -r {path.parent}"
        ) from err
