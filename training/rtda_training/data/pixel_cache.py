"""A set's pictures, decoded and scaled once, kept on disk as arrays that are mapped into memory (``cache = true``).

Decoding a street picture takes longer than a light network's step on it. A cached set is a folder
``<cache>/pixels-v2/<width>x<height>-<key>/`` with ``frames.npy``, ``labels.npy`` where the set has labels, and
``set.json``, which names the pictures that cannot be used. It is renamed into place when it is whole. The key changes
with everything the arrays depend on: address, names, classes, size and time of each file, size and interpolation.
Deleting a folder costs only the time to decode again; those of sets that have changed since are not deleted for you.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from rtda_deploy.border import reason
from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.files import cache_folder, file_error
from rtda_deploy.optional import require
from rtda_training.data.batches import INTERPOLATION
from rtda_training.data.index import in_order
from rtda_training.data.kept_folders import filling
from rtda_training.readers import LabelledSet, Pictures, Progress, UnlabelledSet, labels_closed

__all__ = ["CachedPictures", "cached", "cached_size"]

_FORMAT = 2  # of the folder and of how pictures are read; part of its parent's name

_Set = TypeVar("_Set", bound=UnlabelledSet)


@dataclass(frozen=True)
class _Fault:
    """What is wrong with a picture, and the fix."""

    message: str
    hint: str


class CachedPictures(Pictures):
    """What ``cached`` wraps: names of the set it was made from, pixels of the arrays."""

    def __init__(self, folder: Path, original: UnlabelledSet, faults: Mapping[int, _Fault]) -> None:
        self.classes = original.classes
        self.revision = f"pixels {folder.name}"
        self._folder = folder
        self._where = str(original.address)
        self._names = [original.name(index) for index in range(len(original))]
        self._keys = [original.key(index) for index in range(len(original))]
        self._faults = dict(faults)
        self._labelled = isinstance(original, LabelledSet)
        self._map()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def key(self, index: int) -> str:
        return self._keys[index]

    def frame(self, index: int) -> np.ndarray:
        self._check(index)
        return np.array(self._frames[index])

    def label(self, index: int) -> np.ndarray:
        if self._labels is None:
            raise labels_closed(self._where)
        self._check(index)
        return np.array(self._labels[index])

    def __getstate__(self) -> dict[str, Any]:
        # A loader's process maps the files itself: pickled, a mapped array would be copied whole.
        return {**self.__dict__, "_frames": None, "_labels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def _map(self) -> None:
        self._frames = _mapped(self._folder / "frames.npy")
        self._labels = _mapped(self._folder / "labels.npy") if self._labelled else None

    def _check(self, index: int) -> None:
        if index in self._faults:
            raise DataError(self._faults[index].message, hint=self._faults[index].hint)


def cached(
    pictures: _Set,
    size_hw: tuple[int, int],
    interpolation: str = "linear",
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> _Set:
    """The same set with every picture at ``size_hw``, from the cache; it is filled first where it has to be.

    A picture that cannot be used stays in its place and raises the ``DataError`` that it raised when it was decoded.
    Of a set without labels none are read or kept.

    Args:
        pictures: What ``open_labelled`` or ``open_unlabelled`` gave.
        size_hw: Height and width of the kept pictures.
        interpolation: How pictures are scaled; labels are scaled to the nearest pixel.
        progress: Called with (done, total) while the cache is filled.
        tell: Told where and how large, before the cache is filled.

    Raises:
        FileAccessError: If the cache cannot be written to, or the disk is full.
    """
    folder = _folder_of(pictures, size_hw, interpolation)
    if not folder.is_dir():
        if tell is not None:
            tell(f"cache   {pictures.address}: {len(pictures)} pictures, {_size_text(pictures, size_hw)} in {folder}")
        _fill(folder, pictures, size_hw, INTERPOLATION[interpolation], progress)
    faults = {int(index): _Fault(*map(str, fault)) for index, fault in _record(folder)["faults"].items()}
    kind = LabelledSet if isinstance(pictures, LabelledSet) else UnlabelledSet
    return cast(_Set, kind(CachedPictures(folder, pictures, faults), pictures.address))


def cached_size(size_hw: tuple[int, int], scale_max: float) -> tuple[int, int]:
    """Height and width that pictures are kept at for crops of ``size_hw`` out of pictures up to ``scale_max``."""
    return max(1, round(size_hw[0] * scale_max)), max(1, round(size_hw[1] * scale_max))


def _folder_of(pictures: UnlabelledSet, size_hw: tuple[int, int], interpolation: str) -> Path:
    labelled = isinstance(pictures, LabelledSet)
    head = [str(pictures.address), list(size_hw), interpolation, labelled]
    digest = hashlib.sha256(json.dumps(head).encode())
    for index in range(len(pictures)):
        digest.update(f"\n{_state(pictures.name(index))}".encode("utf-8", "surrogateescape"))
    if isinstance(pictures, LabelledSet):
        digest.update(pictures.fingerprint().encode())
    name = f"{size_hw[1]}x{size_hw[0]}-{digest.hexdigest()[:24]}"
    return cache_folder() / f"pixels-v{_FORMAT}" / name


def _state(name: str) -> str:
    """Changes when the file of a picture does; of one that is no file, its name."""
    path = os.path.abspath(name)
    try:
        found = os.stat(path)
    except OSError:
        return name
    return f"{path}|{found.st_size}|{found.st_mtime_ns}|{os.access(path, os.R_OK)}"


def _fill(
    final: Path, pictures: UnlabelledSet, size_hw: tuple[int, int], interpolation: int, progress: Progress | None
) -> None:
    try:
        with filling(final) as work:
            faults = _decode_into(work, pictures, size_hw, interpolation, progress)
            record = {
                "address": str(pictures.address),
                "size_hw": list(size_hw),
                "faults": {index: [fault.message, fault.hint] for index, fault in faults.items()},
            }
            (work / "set.json").write_text(json.dumps(record), encoding="utf-8")
    except OSError as err:
        told = file_error(err, final.parent, "write to")
        raise FileAccessError(
            told.message,
            why=f"{pictures.address} takes {_size_text(pictures, size_hw)} there",
            hint="name a folder on another disk with RTDA_CACHE=DIR, or take cache = true out",
        ) from err


def _decode_into(
    work: Path, pictures: UnlabelledSet, size_hw: tuple[int, int], interpolation: int, progress: Progress | None
) -> dict[int, _Fault]:
    """Write the arrays; gives what is wrong with pictures that cannot be used."""
    count = len(pictures)
    frames = _reserved(work / "frames.npy", (count, *size_hw, 3))
    labels = _reserved(work / "labels.npy", (count, *size_hw)) if isinstance(pictures, LabelledSet) else None
    faults: dict[int, _Fault] = {}
    for index, found in enumerate(in_order(lambda place: _decoded(pictures, place, size_hw, interpolation), count)):
        if isinstance(found, _Fault):
            faults[index] = found
        else:
            frames[index] = found[0]
            if labels is not None:
                labels[index] = found[1]
        if progress is not None:
            progress(index + 1, count)
    frames.flush()
    if labels is not None:
        labels.flush()
    return faults


def _decoded(
    pictures: UnlabelledSet, index: int, size_hw: tuple[int, int], interpolation: int
) -> tuple[np.ndarray, np.ndarray | None] | _Fault:
    """Frame and label at ``size_hw``, or what is wrong with them."""
    cv2 = require("cv2", extra="training", purpose="to prepare pictures")
    size_wh = (size_hw[1], size_hw[0])
    label = None
    try:
        if isinstance(pictures, LabelledSet):
            frame, label = pictures.pair(index)
        else:
            frame = pictures.frame(index)
    except (DataError, FileAccessError) as err:
        return _Fault(err.message, err.hint)
    if frame.shape[:2] != size_hw:
        frame = cv2.resize(frame, size_wh, interpolation=interpolation)
    if label is not None and label.shape != size_hw:
        label = cv2.resize(label, size_wh, interpolation=cv2.INTER_NEAREST)
    return frame, label


def _reserved(path: Path, shape: Sequence[int]) -> np.memmap[Any, Any]:
    """A new array of zeros with its blocks taken: writing to a hole on a full disk kills the process without a word."""
    array = np.lib.format.open_memmap(str(path), mode="w+", dtype=np.uint8, shape=tuple(shape))
    with open(path, "r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def _size_text(pictures: UnlabelledSet, size_hw: tuple[int, int]) -> str:
    total = len(pictures) * size_hw[0] * size_hw[1] * (4 if isinstance(pictures, LabelledSet) else 3)
    return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.1f} MB"


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(str(path), mmap_mode="r"))
    except Exception as err:  # whatever numpy makes of a broken header
        raise _broken(path.parent, err) from err


def _record(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "set.json").read_text(encoding="utf-8"))
        return {"faults": dict(found["faults"])}
    except Exception as err:  # whatever reading a broken file leads to
        raise _broken(folder, err) from err


def _broken(folder: Path, err: Exception) -> DataError:
    return DataError(
        f"cached set {folder} is broken", why=reason(err), hint=f"delete it, it is made again: rm -r {folder}"
    )
