"""Sets made from another set: labels in another class list, pictures from another folder, its last pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.optional import require
from rtda_training.data.labels.files import read_frame
from rtda_training.data.layouts import pictures_below
from rtda_training.data.list_file import Names
from rtda_training.labels import IGNORE_INDEX, ClassList, check_label
from rtda_training.readers import Pictures, UnlabelledSet, labels_closed

__all__ = ["JoinedPictures", "LastPictures", "OtherPictures"]


class _Derived(Pictures):
    """Everything as in ``inner``, unless a subclass says otherwise."""

    def __init__(self, inner: Pictures) -> None:
        self._inner = inner
        self.classes = inner.classes
        self.split = inner.split
        self.where = inner.where
        self.revision = inner.revision
        self.meaning = inner.meaning
        self.without_partner = inner.without_partner
        self.notes = inner.notes

    def __len__(self) -> int:
        return len(self._inner)

    def name(self, index: int) -> str:
        return self._inner.name(index)

    def key(self, index: int) -> str:
        return self._inner.key(index)

    def frame(self, index: int) -> np.ndarray:
        return self._inner.frame(index)

    def label(self, index: int) -> np.ndarray:
        return self._inner.label(index)

    def counted_label(self, index: int) -> Tuple[np.ndarray, int]:
        return self._inner.counted_label(index)

    def label_size(self, index: int) -> Tuple[int, int]:
        return self._inner.label_size(index)

    def label_name(self, index: int) -> str:
        return self._inner.label_name(index)

    def stamp(self, index: int) -> str:
        return self._inner.stamp(index)

    def missing_label(self, index: int) -> bool:
        return self._inner.missing_label(index)

    def missing_hint(self) -> str:
        return self._inner.missing_hint()

    def without_picture(self) -> List[str]:
        return self._inner.without_picture()

    def left_out(self) -> Dict[str, List[str]]:
        return self._inner.left_out()

    def require_labels(self) -> None:
        self._inner.require_labels()


class JoinedPictures(_Derived):
    """The labels of ``inner`` looked up in ``table`` (uint8 (256,)); without a table there are none."""

    def __init__(self, inner: Pictures, classes: ClassList, table: Optional[np.ndarray]) -> None:
        super().__init__(inner)
        self._table = table
        self.classes = classes
        if table is not None:
            names = enumerate(inner.classes.names)
            self.without_partner = tuple(name for number, name in names if table[number] == IGNORE_INDEX)

    def label(self, index: int) -> np.ndarray:
        return self.counted_label(index)[0]

    def counted_label(self, index: int) -> Tuple[np.ndarray, int]:
        if self._table is None:
            raise labels_closed(self.where)
        # checked before it is joined: an id outside the list would silently become "ignore"
        stored, labelled = self._inner.counted_label(index)
        own = check_label(stored, self._inner.classes.num_classes, self._inner.label_name(index))
        joined: np.ndarray = self._table[own]
        return joined, labelled


class OtherPictures(_Derived):
    """The labels of one set under the pictures of another folder (``?pictures=DIR``), such as translated ones.

    A picture is found by the key of the original, else by its file name; with labels, it is scaled to the label's size.

    Raises:
        DataError: If the folder is not there, or lacks a picture.
    """

    def __init__(self, inner: Pictures, folder: Path, *, labels: bool) -> None:
        super().__init__(inner)
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder", hint="pictures=DIR wants a folder of pictures")
        self._labels = labels
        self._paths = _matched(inner, folder)
        self.where = str(folder)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def frame(self, index: int) -> np.ndarray:
        frame = read_frame(self._paths[index], labelled=self._labels)
        if not self._labels:
            return frame
        height, width = self._inner.label_size(index)
        if frame.shape[:2] == (height, width):
            return frame
        cv2 = require("cv2", extra="runtime", purpose="to scale pictures")
        shrinks = frame.shape[0] > height
        scaled = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return np.asarray(scaled, dtype=np.uint8)


def _matched(inner: Pictures, folder: Path) -> List[Path]:
    paths = pictures_below(folder)
    names = Names()
    for place, path in enumerate(paths):
        below = path.relative_to(folder)
        key = below.with_suffix("").as_posix()
        names.add(place, ([below.as_posix()], [key], [path.name], [path.stem]))
    found, missing = [], []
    for index in range(len(inner)):
        key, original = inner.key(index), Path(inner.name(index))
        short = key.rpartition("/")[2]
        same = (f"{key}{original.suffix}", key, original.name, short, original.stem)
        matched = names.find(*dict.fromkeys(same))
        if matched is None:
            missing.append(key)
        else:
            found.append(paths[matched])
    if missing:
        raise DataError(
            f"{len(missing)} of {len(inner)} pictures are not in {folder}, first: {missing[0]}",
            hint="pictures=DIR wants one picture of the same relative name or file name for each",
        )
    return found


class LastPictures(Pictures):
    """The last ``count`` pictures of a set, without labels."""

    def __init__(self, whole: UnlabelledSet, count: int) -> None:
        self._whole = whole
        self._count = count
        self.classes = whole.classes

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return self._whole.name(self._place(index))

    def key(self, index: int) -> str:
        return self._whole.key(self._place(index))

    def frame(self, index: int) -> np.ndarray:
        return self._whole.frame(self._place(index))

    def label(self, index: int) -> np.ndarray:
        raise labels_closed(str(self._whole.address))

    def _place(self, index: int) -> int:
        return len(self._whole) - self._count + index
