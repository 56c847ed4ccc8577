"""Labels to CVAT and back, in its format "Segmentation mask 1.1".

::

    labelmap.txt                          name:red,green,blue:: for each class; background:0,0,0:: is "no class"
    ImageSets/Segmentation/default.txt    the pictures' names without their suffix
    SegmentationClass/NAME.png            the colours of the classes, RGB

What CVAT exports has the same form; its own label map says what its colours mean (:mod:`.cvat_label_map`). Source:
CVAT's manual, "Segmentation Mask".
"""

from __future__ import annotations

import collections
import tempfile
import zipfile
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.border import parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import atomic_path, file_error, write_bytes
from rtda_deploy.optional import require
from rtda_deploy.own_masks import is_own_mask
from rtda_training.data.cvat_label_map import BACKGROUND, LabelMap, class_colours, is_a_line, label_map_text
from rtda_training.data.labels.files import read_mask
from rtda_training.data.readers.folder import FolderPictures
from rtda_training.labels import IGNORE_INDEX, ClassList
from rtda_training.readers import Pictures, Progress, open_for_survey

__all__ = ["Corrected", "apply_corrections", "write_cvat"]

_LIST, _MAP, _MASKS = "ImageSets/Segmentation/default.txt", "labelmap.txt", "SegmentationClass/"
_LARGEST = {_MAP: 1 << 20, _MASKS: 256 << 20}  # bytes; a file of labels that is larger is none
_WHEN = (1980, 1, 1, 0, 0, 0)  # the same data set gives the same bytes


class Corrected(NamedTuple):
    """What came back from CVAT.

    Attributes:
        changed: Labels that are other than before, and were written.
        same: Those that are as they were.
        own: Of these, masks as a network wrote them, which nobody changed yet.
        unknown: Masks in the archive that no picture of the set has the name of.
        pixels: Share of the pixels of all masks that came back whose class changed, 0 to 1.
    """

    changed: int
    same: int
    own: int
    unknown: List[str]
    pixels: float


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
    colours, names = class_colours(pictures.classes), _names(pictures)
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    with atomic_path(path) as temporary:
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                _add(archive, _MAP, label_map_text(pictures.classes, colours).encode())
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
    label_map = LabelMap(_map_text(archive, path), pictures.classes, path)
    _refuse_other_ids(pictures, scratch / "ids.png")
    places = {name: index for index, name in enumerate(_names(pictures))}
    entries = [entry for entry in archive.infolist() if entry.filename.startswith(_MASKS) and not entry.is_dir()]
    masks = {_stem(entry): entry for entry in entries if entry.filename.lower().endswith(".png")}
    unknown = [name for name in masks if name not in places]
    if len(unknown) == len(masks):
        raise DataError(
            f"{path} holds {len(masks)} masks, and none of them has the name of a picture of {pictures.where}",
            hint="export the task that was made of these pictures",
        )

    def read(name: str) -> np.ndarray:
        (scratch / "mask.png").write_bytes(_content(archive, masks[name], _MASKS))
        return label_map.apply(read_mask(scratch / "mask.png"), masks[name].filename)

    known = {name: places[name] for name in masks if name in places}
    for name, index in known.items():  # all of them are looked at before one is written
        _refuse_other_size(read(name), masks[name].filename, pictures.frame(index))
    changed = same = own = pixels = total = 0
    for done, (name, index) in enumerate(known.items(), start=1):
        mask = read(name)
        before = None if pictures.missing_label(index) else pictures.label(index)
        differs = mask.size if before is None else int((before != mask).sum())
        pixels, total = pixels + differs, total + mask.size
        if differs:
            write_bytes(Path(pictures.label_name(index)), _png(mask))
        changed, same = changed + bool(differs), same + (not differs)
        own += is_own_mask(pictures.label_name(index))
        if progress is not None:
            progress(done, len(known))
    return Corrected(changed, same, own, unknown, pixels / max(1, total))


def _refuse_other_size(mask: np.ndarray, name: str, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    if mask.shape != (height, width):
        raise DataError(
            f"mask {name} is {mask.shape[1]}x{mask.shape[0]}, its picture {width}x{height}",
            hint="export the task that was made of these pictures",
        )


def _names(pictures: Pictures) -> List[str]:
    """What CVAT calls the pictures: their relative names without a suffix.

    Raises:
        DataError: If two are called alike, or a name is none for CVAT's list of them.
    """
    names = [pictures.key(index) for index in range(len(pictures))]
    counts = collections.Counter(names)
    for index, name in enumerate(names):
        if counts[name] > 1 or not is_a_line(name):
            why = "another is called so" if counts[name] > 1 else "its list holds one name a line, in UTF-8"
            raise DataError(f"CVAT cannot hold the picture {pictures.name(index)!r}", why=why, hint="rename the file")
    return names


def _stem(entry: zipfile.ZipInfo) -> str:
    return entry.filename[len(_MASKS) :].rpartition(".")[0]


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


def _map_text(archive: zipfile.ZipFile, path: str) -> str:
    if _MAP not in archive.namelist():
        raise DataError(f"{path} has no {_MAP}", hint='export the task as "Segmentation mask 1.1"')
    return _content(archive, archive.getinfo(_MAP), _MAP).decode("utf-8-sig")


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, kind: str) -> bytes:
    if entry.file_size > _LARGEST[kind]:
        raise DataError(f"{entry.filename} has {entry.file_size} bytes", hint="export the task again from CVAT")
    return archive.read(entry)
