"""Data sets by their address: labelled ones for training and measuring, unlabelled ones for adaptation.

``open_unlabelled`` gives a type that has no way to read a label, so that an adaptation run cannot use one by mistake.
Only NumPy is imported here; OpenCV is asked for when a picture is read.
"""

from __future__ import annotations

import abc
from typing import Callable, Dict, Optional, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.data.address import DataAddress
from rtda_training.labels import ClassList, check_label

__all__ = ["LabelledSet", "Pictures", "UnlabelledSet", "kinds", "open_labelled", "open_unlabelled"]

Progress = Callable[[int, int], None]  # (done, total) while a set is being prepared


class Pictures(abc.ABC):
    """What a reader gives: pictures and labels by position. Readers subclass it; users get one of the sets below."""

    classes: ClassList

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """What to call a picture in messages."""

    @abc.abstractmethod
    def frame(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3) BGR."""

    @abc.abstractmethod
    def label(self, index: int) -> np.ndarray:
        """uint8 (H, W), class ids of ``classes``, 255 where not labelled."""


class UnlabelledSet:
    """Pictures without labels; the target domain of an adaptation run."""

    def __init__(self, pictures: Pictures, address: DataAddress) -> None:
        self.__pictures = pictures
        self.address = address
        self.classes = pictures.classes

    def __len__(self) -> int:
        return len(self.__pictures)

    def name(self, index: int) -> str:
        """What to call a picture in messages."""
        return self.__pictures.name(index)

    def frame(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3) BGR."""
        return self.__pictures.frame(index)


class LabelledSet(UnlabelledSet):
    """Pictures with labels; a source domain, or a set to measure on."""

    def __init__(self, pictures: Pictures, address: DataAddress) -> None:
        super().__init__(pictures, address)
        self.__pictures = pictures

    def label(self, index: int) -> np.ndarray:
        """uint8 (H, W), class ids of ``classes``, 255 where not labelled.

        Raises:
            DataError: If the label is not of this form.
        """
        return check_label(self.__pictures.label(index), self.classes.num_classes, self.name(index))

    def pair(self, index: int) -> Tuple[np.ndarray, np.ndarray]:
        """Frame and label of one picture.

        Raises:
            DataError: If the label is not one, or not of its picture's size.
        """
        frame, label = self.frame(index), self.label(index)
        if frame.shape[:2] != label.shape:
            raise DataError(
                f"{self.name(index)}: picture is {frame.shape[1]}x{frame.shape[0]},"
                f" its label {label.shape[1]}x{label.shape[0]}",
                hint="labels must have their picture's size",
            )
        return frame, label


def open_labelled(text: str, *, split: str = "train", progress: Optional[Progress] = None) -> LabelledSet:
    """Open a data set with its labels.

    Args:
        text: ``kind:path?key=value``.
        split: What is taken where the address names no split.
        progress: Called with (done, total) where the set must be prepared first, such as ToyTown's rendering.

    Raises:
        ConfigError: If the address makes no sense.
        DataError: If the set cannot be read.
    """
    address = DataAddress.parse(text)
    return LabelledSet(_open(address, split, labels=True, progress=progress), address)


def open_unlabelled(text: str, *, split: str = "train", progress: Optional[Progress] = None) -> UnlabelledSet:
    """Open a data set without any way to its labels; arguments and errors as :func:`open_labelled`."""
    address = DataAddress.parse(text)
    return UnlabelledSet(_open(address, split, labels=False, progress=progress), address)


def kinds() -> Tuple[str, ...]:
    """The kinds of address that can be opened."""
    return tuple(_READERS)


def _open(address: DataAddress, split: str, *, labels: bool, progress: Optional[Progress]) -> Pictures:
    if address.kind not in _READERS:
        raise ConfigError(f"data kind {address.kind!r} is unknown", hint=f"known: {', '.join(_READERS)}")
    pictures = _READERS[address.kind](address, address.split or split, labels, progress)
    if len(pictures) == 0:
        raise DataError(
            f"{address} has no pictures in its {address.split or split} split", hint="name another with ?split="
        )
    return pictures


def _toytown(address: DataAddress, split: str, labels: bool, progress: Optional[Progress]) -> Pictures:
    from rtda_training.data.toytown_cache import ToyTownPictures

    return ToyTownPictures.open(address, split, labels=labels, progress=progress)


def _folder(address: DataAddress, split: str, labels: bool, progress: Optional[Progress]) -> Pictures:
    from rtda_training.data.folder import FolderPictures

    return FolderPictures.open(address, split, labels=labels)


_READERS: Dict[str, Callable[[DataAddress, str, bool, Optional[Progress]], Pictures]] = {
    "toytown": _toytown,
    "folder": _folder,
}
