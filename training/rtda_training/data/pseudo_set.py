"""Target pictures with pseudo labels: the type a labeler that writes label files gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import file_error
from rtda_training.data.labels.files import read_mask
from rtda_training.labels import ClassList
from rtda_training.readers import LabelledSet, Pictures, UnlabelledSet, file_stamp

__all__ = ["RECORD", "PseudoLabelledSet", "label_files"]

RECORD = "labels.json"  # written last: a folder with it is whole


class PseudoLabelledSet(LabelledSet):
    """The pictures of an unlabelled set, and label files for them; the set's own labels cannot be reached.

    Args:
        target: The pictures.
        labels: An 8-bit PNG of class ids and 255 for each picture.
        classes: What the ids mean: the network's classes, whatever list the pictures' set has.
        read: How a file becomes a label of these classes; picklable.

    Raises:
        TypeError: If ``target`` can read labels of its own.
    """

    _check_option = " --target"

    def __init__(
        self,
        target: UnlabelledSet,
        labels: Sequence[Path],
        classes: ClassList,
        read: Callable[[Path], np.ndarray] = read_mask,
    ) -> None:
        if isinstance(target, LabelledSet):
            raise TypeError("pseudo labels are for a set opened without labels (open_unlabelled)")
        super().__init__(_PseudoPictures(target, labels, classes, read), target.address)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame and label of one picture, each at its own size: the caller resizes both to one."""
        return self.frame(index), self.label(index)


class _PseudoPictures(Pictures):
    def __init__(
        self,
        target: UnlabelledSet,
        labels: Sequence[Path],
        classes: ClassList,
        read: Callable[[Path], np.ndarray],
    ) -> None:
        self._read = read
        self._target = target
        self._labels = tuple(labels)
        self.classes = classes

    def __len__(self) -> int:
        return len(self._target)

    def name(self, index: int) -> str:
        return self._target.name(index)

    def key(self, index: int) -> str:
        return self._target.key(index)

    def frame(self, index: int) -> np.ndarray:
        return self._target.frame(index)

    def label(self, index: int) -> np.ndarray:
        return self._read(self._labels[index])

    def label_name(self, index: int) -> str:
        return str(self._labels[index])

    def stamp(self, index: int) -> str:
        return file_stamp(self._labels[index])


def label_files(folder: str | Path, target: UnlabelledSet, what: str = "label") -> list[Path]:
    """The label of each picture of ``target`` in a folder of label files; ``what`` they are called in messages.

    That is ``<key>.png``, with the picture's folders in its key or without them, or what a ``labels.json`` of the
    ``offline`` labeler says: then ``folder`` is the one that holds it (``stages/NAME``), or its ``labels``.

    Raises:
        DataError: If pictures have no label (the first is named), or two have the same one.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is no folder", hint="name the folder that holds one label PNG per picture")
    keys = [target.key(index) for index in range(len(target))]
    recorded = _recorded(root)
    missing, found = [], []
    for key in keys:
        candidates = [recorded[key]] if key in recorded else [root / f"{key}.png", root / f"{Path(key).name}.png"]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            missing.append(candidates[0])
        else:
            found.append(path)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(keys)} pictures of {target.address} have no {what} in {root},"
            f" first: {missing[0].relative_to(root)}",
            hint="each picture needs a PNG of class ids (255: not labelled) of its own name",
        )
    if len(set(found)) != len(found):
        twice = next(path for path in found if found.count(path) > 1)
        raise DataError(
            f"{twice} would be the label of several pictures of {target.address}",
            hint="pictures of the same name in several folders need labels in the same folders",
        )
    return found


def _recorded(root: Path) -> dict[str, Path]:
    if root.name == "labels" and not (root / RECORD).is_file():
        root = root.parent
    record = root / RECORD
    if not record.is_file():
        return {}
    try:
        content = record.read_bytes()
    except OSError as err:
        raise file_error(err, record, "read") from err
    hint = "was it edited? Remove it"
    with parsing(DataError, f"{record} is no record of labels", hint=hint):
        keys = json_values(content, str(record), DataError, hint=hint)["pictures"]
        return {str(key): root / "labels" / f"{place:06d}.png" for place, key in enumerate(keys)}
