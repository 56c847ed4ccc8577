"""Data sets by their address: labelled ones for training and measuring, unlabelled ones for adaptation.

``open_unlabelled`` gives a type that has no way to read a label, so that an adaptation run cannot use one by mistake;
the files of labels are neither read nor listed nor needed. Only NumPy is imported here; OpenCV is asked for when a
picture is read. Every kind takes ``?split=``, ``?classes=NAME`` (labels in that class list) and ``?pictures=DIR`` (the
same pictures from another folder); ``folder:`` takes its classes file by ``?classes=FILE.json`` too.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import importlib
import shlex
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from rtda_deploy.border import parsing
from rtda_deploy.errors import ConfigError, DataError, RtdaError
from rtda_deploy.files import file_error
from rtda_training.data.address import DataAddress
from rtda_training.data.readers.kinds import DATA_KINDS, data_kind
from rtda_training.labels import IGNORE_INDEX, ClassList, LabelMeaning, check_label, class_list, join_classes

__all__ = [
    "SAME_KEYS_HINT",
    "LabelledSet",
    "Pictures",
    "UnlabelledSet",
    "file_stamp",
    "files_read",
    "kinds",
    "labels_closed",
    "open_for_survey",
    "open_labelled",
    "open_unlabelled",
    "same_keys",
]

SAME_KEYS_HINT = "keep one of the two, or name the pictures that count, with their suffixes, in ?list=FILE"
Progress = Callable[[int, int], None]  # (done, total) while a set is being prepared


class Pictures(abc.ABC):
    """What a reader gives: pictures and labels by position. Readers subclass it; users get one of the sets below.

    Attributes:
        classes: The class list of the labels.
        split: The split that was taken where it is not the one asked for.
        where: The folder that was looked at, for messages.
        revision: What the pictures depend on besides their names and files.
        meaning: What a user said of the labels' values; None where the kind of set says it.
        without_partner: Classes of the set that ``classes`` has no partner for; their pixels are not labelled here.
        notes: What a person should know about the set.
    """

    classes: ClassList
    notes: Tuple[str, ...] = ()
    without_partner: Tuple[str, ...] = ()
    meaning: Optional[LabelMeaning] = None
    split: Optional[str] = None
    where: str = ""
    revision: str = ""

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

    def key(self, index: int) -> str:
        """The picture's relative name without a suffix."""
        return self.name(index).partition(":")[2] or self.name(index)

    def counted_label(self, index: int) -> Tuple[np.ndarray, int]:
        """A label, and how many of its pixels are labelled before classes are joined."""
        label = self.label(index)
        return label, int((label != IGNORE_INDEX).sum())

    def label_size(self, index: int) -> Tuple[int, int]:
        """(height, width) of a label."""
        height, width = self.label(index).shape[:2]
        return int(height), int(width)

    def label_name(self, index: int) -> str:
        """What to call a label in messages."""
        return self.name(index)

    def stamp(self, index: int) -> str:
        """Changes when the label changes."""
        return self.name(index)

    def missing_label(self, index: int) -> bool:
        """Whether the picture has no label."""
        return False

    def missing_hint(self) -> str:
        """What to do where labels are missing."""
        return "every picture needs a label of the same name; see docs/data.md"

    def without_picture(self) -> List[str]:
        """Labels that have no picture."""
        return []

    def left_out(self) -> Dict[str, List[str]]:
        """What lies among the pictures and was not taken, by the reason: links to nothing, hidden folders."""
        return {}

    def require_labels(self) -> None:  # noqa: B027 - a set that renders its labels has them all
        """Raise a DataError if a picture has no label."""


class UnlabelledSet:
    """Pictures without labels; the target domain of an adaptation run."""

    _check_option = " --target"

    def __init__(self, pictures: Pictures, address: DataAddress) -> None:
        self.__pictures = pictures
        taken = pictures.split if address.split is None else None
        self.address = dataclasses.replace(address, split=taken) if taken else address
        self.classes = pictures.classes
        self.meaning = pictures.meaning
        self.notes = pictures.notes

    def __len__(self) -> int:
        return len(self.__pictures)

    def name(self, index: int) -> str:
        """What to call a picture in messages."""
        return self.__pictures.name(index)

    @property
    def check_command(self) -> str:
        """What to type to see every fault of the set."""
        return f"rtda-deploy data check {shlex.quote(str(self.address))}{self._check_option}"

    def key(self, index: int) -> str:
        """The picture's relative name without a suffix; ``DIR/<key>.png`` is what ``?pictures=DIR`` looks for."""
        return self.__pictures.key(index)

    def frame(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3) BGR."""
        return self.__pictures.frame(index)

    def left_out(self) -> Dict[str, List[str]]:
        """What lies among the pictures and was not taken, by the reason."""
        return self.__pictures.left_out()


class LabelledSet(UnlabelledSet):
    """Pictures with labels; a source domain, or a set to measure on."""

    _check_option = ""

    def __init__(self, pictures: Pictures, address: DataAddress) -> None:
        super().__init__(pictures, address)
        self.__pictures = pictures
        self.without_partner = pictures.without_partner

    def label(self, index: int) -> np.ndarray:
        """uint8 (H, W), class ids of ``classes``, 255 where not labelled.

        Raises:
            DataError: If the label is not of this form.
        """
        name = self.__pictures.label_name(index)
        return check_label(self.__pictures.label(index), self.classes.num_classes, name)

    def counted_label(self, index: int) -> Tuple[np.ndarray, int]:
        """A label as :meth:`label` gives it, and how many of its pixels the set labels, in whatever class."""
        label, labelled = self.__pictures.counted_label(index)
        return check_label(label, self.classes.num_classes, self.__pictures.label_name(index)), labelled

    def label_name(self, index: int) -> str:
        """What to call a label in messages: its file, where it has one of its own."""
        return self.__pictures.label_name(index)

    def fingerprint(self) -> str:
        """Changes when a label of the set, its order or its classes change; no label is read."""
        digest = hashlib.sha256(f"{self.address}|{self.classes.names}|{self.__pictures.revision}".encode())
        for index in range(len(self)):
            digest.update(f"\n{self.name(index)}|{self.__pictures.stamp(index)}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def pair(self, index: int) -> Tuple[np.ndarray, np.ndarray]:
        """Frame and label of one picture.

        Raises:
            DataError: If the label is not one, or not of its picture's size.
        """
        frame, label, _ = self.counted_pair(index)
        return frame, label

    def counted_pair(self, index: int) -> Tuple[np.ndarray, np.ndarray, int]:
        """As :meth:`pair`, with the number of pixels as :meth:`counted_label` gives it."""
        frame, (label, labelled) = self.frame(index), self.counted_label(index)
        if frame.shape[:2] != label.shape:
            raise DataError(
                f"{self.name(index)}: picture is {frame.shape[1]}x{frame.shape[0]},"
                f" its label {label.shape[1]}x{label.shape[0]}",
                hint="labels must have their picture's size",
            )
        return frame, label, labelled


def open_labelled(
    text: str,
    *,
    split: str = "train",
    classes: Optional[ClassList] = None,
    progress: Optional[Progress] = None,
) -> LabelledSet:
    """Open a data set with its labels.

    Args:
        text: ``kind:path?key=value``.
        split: What is taken where the address names no split.
        classes: Give labels in this class list, joined by name; it goes before ``?classes=`` of the address.
        progress: Called with (done, total) where the set must be prepared: ToyTown rendered, frames of footage chosen.

    Raises:
        ConfigError: If the address makes no sense.
        DataError: If the set cannot be read, or shares no class with ``classes``.
    """
    address = DataAddress.parse(text)
    pictures = _open(address, split, labels=True, classes=classes, progress=progress)
    _require_one_each(pictures)
    pictures.require_labels()
    return LabelledSet(pictures, address)


def open_unlabelled(
    text: str,
    *,
    split: str = "train",
    classes: Optional[ClassList] = None,
    progress: Optional[Progress] = None,
) -> UnlabelledSet:
    """Open a data set without any way to its labels; arguments and errors as :func:`open_labelled`."""
    address = DataAddress.parse(text)
    pictures = _open(address, split, labels=False, classes=classes, progress=progress)
    _require_one_each(pictures)
    return UnlabelledSet(pictures, address)


def open_for_survey(
    text: str, *, split: str = "train", labels: bool = True, progress: Optional[Progress] = None
) -> Tuple[Pictures, DataAddress]:
    """Open a data set that may have faults: pictures without labels are kept, and nothing is checked."""
    address = DataAddress.parse(text)
    pictures = _open(address, split, labels=labels, classes=None, progress=progress)
    return pictures, address


def labels_closed(where: str) -> DataError:
    """The error of a label that is asked of a set opened without labels."""
    return DataError(
        f"{where} was opened without labels", hint="open it with open_labelled, in the place of open_unlabelled"
    )


def file_stamp(path: Path) -> str:
    """Changes when the file does.

    Raises:
        FileAccessError: If it is not there.
    """
    try:
        found = path.stat()
    except OSError as err:
        raise file_error(err, path, "read") from err
    return f"{path}|{found.st_size}|{found.st_mtime_ns}"


def same_keys(pictures: Pictures) -> List[str]:
    """Pictures that share a name: ``a.png`` and ``a.jpg`` would be trained on with one label, and written over one."""
    first: Dict[str, str] = {}
    for index in range(len(pictures)):
        first.setdefault(pictures.key(index), pictures.name(index))
    names = ((pictures.name(index), first[pictures.key(index)]) for index in range(len(pictures)))
    return [f"{name}: has the name of {other}" for name, other in dict.fromkeys(names) if name != other]


def _require_one_each(pictures: Pictures) -> None:
    twins = same_keys(pictures)
    if twins:
        raise DataError(f"{len(twins)} pictures have another's name; {twins[0]}", hint=SAME_KEYS_HINT)


def kinds() -> Tuple[str, ...]:
    """The kinds of address that can be opened."""
    return tuple(DATA_KINDS)


def files_read(text: str) -> List[str]:
    """The files and folders that a data set is read from; none for a text that is no address."""
    try:
        found = DataAddress.parse(text) if text else None
    except RtdaError:
        return []  # opening it reports what is wrong
    if found is None or (found.kind in DATA_KINDS and DATA_KINDS[found.kind].rendered):
        return []
    named = [found.options[key] for key in ("list", "pictures", "classes") if key in found.options]
    return [*map(str, _places(found)), *(str(Path(path).expanduser()) for path in named)]


def _places(address: DataAddress) -> List[Path]:
    """What its path names: a folder; of footage, several files and folders."""
    if address.kind in DATA_KINDS and not DATA_KINDS[address.kind].labelled:
        from rtda_training.data.footage.asked import places

        return places(address)
    return [Path(address.path).expanduser()]


def _open(
    address: DataAddress,
    split: str,
    *,
    labels: bool,
    classes: Optional[ClassList],
    progress: Optional[Progress],
) -> Pictures:
    hint = "check its path and options; rtda-deploy data check DATA says what a set holds"
    with parsing(DataError, f"{address} cannot be read", hint=hint):  # a name no file system takes, a NUL in it
        return _opened(address, split, labels, classes, progress)


def _opened(
    address: DataAddress, split: str, labels: bool, classes: Optional[ClassList], progress: Optional[Progress]
) -> Pictures:
    kind = data_kind(address.kind)
    if address.split is not None and address.split not in kind.splits:
        wide = ", ".join(name for name, other in DATA_KINDS.items() if address.split in other.splits)
        hint = f"{', '.join(kind.splits)}; {address.split!r} is for {wide}"
        raise ConfigError(f"{address}: split {address.split!r} is unknown", hint=hint)
    if labels and not kind.labelled:
        raise DataError(
            f"{address} is footage, which has no labels",
            hint=f"adapt to it with --target {shlex.quote(str(address))}; to measure on it, label its frames:"
            f" rtda-deploy data frames {shlex.quote(str(address))} --out DIR",
        )
    named = address.options.get("classes")
    own = address.without("pictures")
    if named is not None and not kind.labelled:
        raise ConfigError(
            f"{address}: footage has no labels that could be of other classes", hint="leave classes= away"
        )
    if named is not None and not (address.kind == "folder" and named.lower().endswith(".json")):
        own = own.without("classes")
        classes = classes or class_list(named)
    wanted = classes
    module, _, name = kind.reader.partition(":")
    reader = getattr(importlib.import_module(module), name)
    more = {"progress": progress} if kind.prepared else {}
    pictures: Pictures = reader.open(own, address.split or split, labels=labels, **more)
    if len(pictures) == 0:
        where = f" ({pictures.where} was looked at)" if pictures.where else ""
        raise DataError(
            f"{address} has no pictures in its {address.split or split} split{where}",
            hint="name another with ?split=, or the pictures with ?list=FILE",
        )
    if "pictures" in address.options:
        from rtda_training.data.derived import OtherPictures

        pictures = OtherPictures(pictures, Path(address.options["pictures"]).expanduser(), labels=labels)
    if wanted is not None and wanted != pictures.classes:
        from rtda_training.data.derived import JoinedPictures

        table = join_classes(pictures.classes, wanted) if labels else None
        pictures = JoinedPictures(pictures, wanted, table)
    return pictures
