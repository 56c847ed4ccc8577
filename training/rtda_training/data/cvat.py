"""Labels to CVAT and back, in its format "Segmentation mask 1.1".

::

    labelmap.txt                          name:red,green,blue:: for each class; background:0,0,0:: is "no class"
    ImageSets/Segmentation/default.txt    the pictures' names without their suffix
    SegmentationClass/NAME.png            the colours of the classes, RGB

Colours that no line of the label map declares are refused by CVAT (issue 7847 of cvat-ai/cvat), also black (issue
8995), so every pixel that has no class is declared as background. What CVAT exports has the same form; its own label
map says what its colours mean. Source: CVAT's manual, "Segmentation Mask".
"""

from __future__ import annotations

import collections
import colorsys
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.border import parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import atomic_path, file_error, is_text, write_bytes
from rtda_deploy.optional import require
from rtda_training.data.labels.files import read_mask
from rtda_training.data.readers.folder import FolderPictures
from rtda_training.labels import IGNORE_INDEX, ClassList
from rtda_training.readers import Pictures, Progress, open_for_survey

__all__ = ["Corrected", "apply_corrections", "cvat_labels", "write_cvat"]

BACKGROUND = "background"
_BLACK = (0, 0, 0)
_LIST, _MAP, _MASKS = "ImageSets/Segmentation/default.txt", "labelmap.txt", "SegmentationClass/"
_LARGEST = 256 << 20  # bytes of one mask; a PNG of labels that is larger is none
_WHEN = (1980, 1, 1, 0, 0, 0)  # the same data set gives the same bytes

Colour = Tuple[int, int, int]


class Corrected(NamedTuple):
    """What came back from CVAT.

    Attributes:
        changed: Labels that are other than before, and were written.
        same: Those that are as they were.
        unknown: Masks in the archive that no picture of the set has the name of.
        pixels: Share of the pixels of all masks that came back whose class changed, 0 to 1.
    """

    changed: int
    same: int
    unknown: List[str]
    pixels: float


def cvat_labels(classes: ClassList) -> str:
    """The JSON for the "Raw" field where a task's labels are typed: names and colours as in the archive."""
    colours = _colours(classes)
    labels = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*colours[index]), "attributes": []}
        for index, name in enumerate(classes.names)
    ]
    return json.dumps(labels, ensure_ascii=False, indent=1) + "\n"


def write_cvat(data: str, path: Path, progress: Optional[Progress] = None) -> Tuple[int, ClassList]:
    """Write the labels of a data set as an archive that CVAT takes as annotations of a task with the same pictures.

    Args:
        data: ``kind:path?key=value``.
        path: The archive; replaced where it exists.
        progress: Called with (done, total).

    Returns:
        How many masks were written, and the classes.

    Raises:
        DataError: If a label cannot be read, or CVAT could not tell two pictures, or a class from no class.
        FileAccessError: If it cannot be written.
    """
    pictures = open_for_survey(data)[0]
    pictures.require_labels()
    colours, names = _colours(pictures.classes), _names(pictures)
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    with atomic_path(path) as temporary:
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                _add(archive, _MAP, _label_map(pictures.classes, colours).encode())
                _add(archive, _LIST, "".join(f"{name}\n" for name in names).encode())
                for index, name in enumerate(names):
                    label = pictures.label(index)
                    _refuse_two_backgrounds(label, pictures, index)
                    _add(archive, f"{_MASKS}{name}.png", _png(table[label]))
                    if progress is not None:
                        progress(index + 1, len(names))
        except OSError as err:
            raise file_error(err, path, "write") from err
    return len(names), pictures.classes


def apply_corrections(data: str, path: Path, progress: Optional[Progress] = None) -> Corrected:
    """Write masks that were corrected in CVAT over the labels of a ``folder:`` set; pictures are found by their names.

    Args:
        data: ``folder:PATH``.
        path: CVAT's export of the task, "Segmentation mask 1.1", with or without pictures.
        progress: Called with (done, total).

    Raises:
        DataError: If the archive is none, no mask belongs to the set, or a mask has another size or unknown classes.
        FileAccessError: If a file cannot be read or written.
    """
    pictures, address = open_for_survey(data)
    if not isinstance(pictures, FolderPictures):
        raise DataError(f"{address} is no folder of yours: its labels stay as they are", hint="name a folder:PATH")
    with tempfile.TemporaryDirectory() as scratch, parsing(
        DataError, f"{path} is no archive that CVAT exported", hint='export the task as "Segmentation mask 1.1"'
    ):
        try:
            archive = zipfile.ZipFile(path)
        except OSError as err:
            raise file_error(err, path, "read") from err
        with archive:
            return _applied(archive, pictures, Path(scratch), str(path), progress)


def _applied(
    archive: zipfile.ZipFile, pictures: FolderPictures, scratch: Path, path: str, progress: Optional[Progress]
) -> Corrected:
    table = _Table(_text(archive, _MAP, path), pictures.classes, path)
    _refuse_other_ids(pictures, scratch / "ids.png")
    places = {name: index for index, name in enumerate(_names(pictures))}
    members = [entry for entry in archive.infolist() if entry.filename.startswith(_MASKS) and not entry.is_dir()]
    members = [entry for entry in members if entry.filename.lower().endswith(".png")]
    unknown = [name for name in map(_stem, members) if name not in places]
    if len(unknown) == len(members):
        raise DataError(
            f"{path} holds {len(members)} masks, and none of them has the name of a picture of {pictures.where}",
            hint="export the task that was made of these pictures",
        )
    known = [entry for entry in members if _stem(entry) in places]
    for entry in known:  # all of them are looked at before one is written
        _mask(archive, entry, table, scratch / "mask.png", pictures, places[_stem(entry)])
    changed = same = pixels = total = 0
    for done, entry in enumerate(known):
        index = places[_stem(entry)]
        mask = _mask(archive, entry, table, scratch / "mask.png", pictures, index)
        before = None if pictures.missing_label(index) else pictures.label(index)
        differs = mask.size if before is None else int((before != mask).sum())
        pixels, total = pixels + differs, total + mask.size
        if differs:
            write_bytes(Path(pictures.label_name(index)), _png(mask))
        changed, same = changed + bool(differs), same + (not differs)
        if progress is not None:
            progress(done + 1, len(known))
    return Corrected(changed, same, unknown, pixels / max(1, total))


class _Table:
    """Colours, or numbers, of an archive's masks as class indices of a set."""

    def __init__(self, text: str, classes: ClassList, path: str) -> None:
        self._path = path
        self._names: List[str] = []
        self._colours: List[Colour] = []
        self._classes: List[int] = []
        for line in text.splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, colour = line.rsplit(":", 3)[0], line.rsplit(":", 3)[1]
            red, green, blue = (int(channel) for channel in colour.split(","))
            if name not in classes.names and name.lower() != BACKGROUND:
                raise DataError(
                    f"{path} has the label {name!r}, which is no class of the set",
                    hint=f"rename it in CVAT; the classes are {', '.join(classes.names)}",
                )
            self._names.append(name)
            self._colours.append((red, green, blue))
            self._classes.append(classes.names.index(name) if name in classes.names else IGNORE_INDEX)

    def apply(self, mask: np.ndarray, name: str) -> np.ndarray:
        """uint8 (H, W) class indices of a mask in colours (H, W, 3), or of places in the label map (H, W)."""
        if mask.ndim == 2:
            codes, known = mask.astype(np.int64), np.arange(len(self._classes))
        else:
            codes = mask[..., 0].astype(np.int64) << 16 | mask[..., 1].astype(np.int64) << 8 | mask[..., 2]
            known = np.array([red << 16 | green << 8 | blue for red, green, blue in self._colours])
        result = np.full(codes.shape, IGNORE_INDEX, np.uint8)
        left = np.ones(codes.shape, bool)
        for place, (code, index) in enumerate(zip(known, self._classes)):
            here = codes == code
            if (here & ~left).any() and (result[here] != index).any():
                self._refuse_shared_colour(name, place)
            result[here] = index
            left &= ~here
        if left.any():
            value = tuple(int(part) for part in np.atleast_1d(mask[left][0]))
            raise DataError(
                f"{self._path}: mask {name} has {value}, which its label map does not declare",
                hint="export the task again from CVAT",
            )
        return result

    def _refuse_shared_colour(self, mask: str, place: int) -> None:
        colour = self._colours[place]
        alike = [name for name, other in zip(self._names, self._colours) if other == colour]
        raise DataError(
            f"{self._path}: {' and '.join(alike)} have one colour, {colour}",
            why=f"mask {mask} does not say which of them it shows",
            hint="give each label a colour of its own in CVAT, and export the task again",
        )


def _mask(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    table: _Table,
    scratch: Path,
    pictures: FolderPictures,
    index: int,
) -> np.ndarray:
    """A mask of the archive as class indices, of the size of its picture."""
    if entry.file_size > _LARGEST:
        raise DataError(f"{entry.filename} has {entry.file_size} bytes", hint="export the task again from CVAT")
    scratch.write_bytes(archive.read(entry))
    mask = table.apply(read_mask(scratch), entry.filename)
    height, width = pictures.frame(index).shape[:2]
    if mask.shape != (height, width):
        raise DataError(
            f"mask {entry.filename} is {mask.shape[1]}x{mask.shape[0]}, its picture {width}x{height}",
            hint="export the task that was made of these pictures",
        )
    return mask


def _names(pictures: Pictures) -> List[str]:
    """What CVAT calls the pictures: their relative names without a suffix.

    Raises:
        DataError: If two are called alike, or a name is none for CVAT's list of them.
    """
    names = [pictures.key(index) for index in range(len(pictures))]
    counts = collections.Counter(names)
    for index, name in enumerate(names):
        if counts[name] > 1 or not _is_a_line(name):
            why = "another is called so" if counts[name] > 1 else "its list holds one name a line, in UTF-8"
            raise DataError(f"CVAT cannot hold the picture {pictures.name(index)!r}", why=why, hint="rename the file")
    return names


def _is_a_line(text: str) -> bool:
    return text.splitlines() == [text] and is_text(text)


def _stem(entry: zipfile.ZipInfo) -> str:
    return entry.filename[len(_MASKS) :].rpartition(".")[0]


def _colours(classes: ClassList) -> List[Colour]:
    """A colour for each class, its own where it can be: none twice, and black for background alone.

    Raises:
        DataError: If a name cannot stand in a label map.
    """
    taken = {_BLACK}
    found: List[Colour] = []
    for index, (name, colour) in enumerate(zip(classes.names, classes.palette)):
        if ":" in name or name.lstrip().startswith("#") or not _is_a_line(name):
            raise DataError(f"CVAT's label map cannot hold the name {name!r}", hint="rename it in classes.json")
        if name.lower() == BACKGROUND:
            found.append(_BLACK)
            continue
        turn = 0
        while tuple(colour) in taken:
            red, green, blue = colorsys.hsv_to_rgb((index + turn) * 0.618034 % 1.0, 0.75, 0.95)
            colour, turn = (int(255 * red), int(255 * green), int(255 * blue)), turn + 1
        taken.add((colour[0], colour[1], colour[2]))
        found.append((colour[0], colour[1], colour[2]))
    return found


def _label_map(classes: ClassList, colours: Sequence[Colour]) -> str:
    lines = ["# label:color_rgb:parts:actions"]
    if BACKGROUND not in [name.lower() for name in classes.names]:
        lines.append(f"{BACKGROUND}:0,0,0::")
    lines += [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip(classes.names, colours)]
    return "\n".join(lines) + "\n"


def _refuse_two_backgrounds(label: np.ndarray, pictures: Pictures, index: int) -> None:
    if BACKGROUND in [name.lower() for name in pictures.classes.names] and (label == IGNORE_INDEX).any():
        raise DataError(
            f"{pictures.label_name(index)} has a class background and pixels without a class",
            why="CVAT has one background",
            hint="rename the class in classes.json",
        )


def _refuse_other_ids(pictures: FolderPictures, scratch: Path) -> None:
    """Refuse a set whose files hold other values than class indices: they would be written in another language.

    Raises:
        DataError: If they do.
    """
    ids = np.array([[*range(pictures.classes.num_classes), IGNORE_INDEX]], np.uint8)
    write_bytes(scratch, _png(ids))
    try:
        same = bool((pictures.read_label(scratch) == ids).all())
    except DataError:
        same = False
    if not same:
        raise DataError(
            f"labels of {pictures.where} hold other values than 0, 1, 2 …, which corrections are written in",
            hint='unpack the export beside the pictures, and say its colours in classes.json: "colors" (docs/data.md)',
        )


def _png(picture: np.ndarray) -> bytes:
    """A PNG of uint8 (H, W) or RGB (H, W, 3)."""
    cv2: Any = require("cv2", extra="runtime", purpose="to write labels")
    content: bytes = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])[1].tobytes()
    return content


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _WHEN), content, zipfile.ZIP_DEFLATED)


def _text(archive: zipfile.ZipFile, name: str, path: str) -> str:
    if name not in archive.namelist():
        raise DataError(f"{path} has no {name}", hint='export the task as "Segmentation mask 1.1"')
    return archive.read(name).decode("utf-8-sig")
