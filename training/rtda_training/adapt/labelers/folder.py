"""Labels from a folder: masks of any program, or those that another run wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from rtda_deploy.errors import ConfigError, DataError, FileAccessError
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.labelers.prepared import PreparedLabels
from rtda_training.adapt.labelers.shares import shares_text
from rtda_training.adapt.slots import component, number
from rtda_training.data.given_masks import GivenMasks, given_masks, is_own
from rtda_training.data.index import count_pixels, in_order
from rtda_training.data.labelled_folder import labelled_folder, unpack_labels
from rtda_training.data.labels.files import read_mask
from rtda_training.data.pseudo_set import PseudoLabelledSet, label_files
from rtda_training.labels import ClassList
from rtda_training.readers import UnlabelledSet

__all__ = ["FolderConfig", "FolderLabeler"]

_FITS = 1.0  # pixels that a side may be off where a mask has another size than its picture: programs round


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """A folder of masks, and what they mean.

    Attributes:
        path: Holds a PNG of class ids (255: not labelled) of each target picture's name; or what ``label`` wrote.
        classes: A classes file that says what the ids mean; empty: ``classes.json`` in the folder, and where there is
            none, they are the network's own.
        map: ``their class=ours`` texts, ``their class=ignore`` for what has no partner; the others go by name.
        confidences: A folder of 8-bit PNGs of the same names, 255 where the program was sure; empty: none.
        threshold: Share of 255 that a pixel's confidence must reach to be a label.
    """

    path: str = ""
    classes: str = ""
    map: tuple[str, ...] = ()
    confidences: str = ""
    threshold: float = number(0.0, 0.0, 1.0)


@component("labeler", "folder", FolderConfig)
class FolderLabeler(PreparedLabels):
    """Pseudo labels that are there already; also the folder of another run's ``offline`` stage. Each weighs 1.

    All masks are looked at before the first step, so that a wrong one stops no training in its midst; how much of each
    class they hold is told.
    """

    def __init__(self, config: FolderConfig, stage: StageContext) -> None:
        _check(config)
        self._config = config
        self._stage = stage

    @classmethod
    def preflight(cls, config: FolderConfig, classes: ClassList) -> None:
        _check(config)
        if not Path(config.path).expanduser().is_dir():
            raise DataError(f"{config.path} is no folder", hint="name the folder that holds one mask per picture")
        root = labelled_folder(Path(config.path).expanduser())
        given_masks(root, classes, classes=config.classes, typed=config.map)

    @classmethod
    def files_read(cls, config: FolderConfig) -> tuple[Path, ...]:
        return tuple(Path(text).expanduser() for text in (config.path, config.classes, config.confidences) if text)

    def prepare(self, target: UnlabelledSet) -> PseudoLabelledSet:
        config, classes = self._config, self._stage.classes
        root = self._pngs(config.path, "masks", target)
        labels = label_files(root, target)
        masks = given_masks(root, classes, classes=config.classes, typed=config.map)
        if config.confidences:
            sure = label_files(self._pngs(config.confidences, "confidences", target), target, what="confidences")
            masks = dataclasses.replace(
                masks or _as_they_are(classes),
                confidences=dict(zip(labels, sure, strict=True)),
                least=255.0 * config.threshold,
            )
        found = PseudoLabelledSet(target, labels, classes, masks.read if masks else read_mask)
        if masks is not None:
            self._stage.tell(f"masks   {masks.text}")
        self._look(found, labels, None if is_own(root) else self._stage.as_stored(target))
        return found

    def _pngs(self, path: str, kind: str, target: UnlabelledSet) -> Path:
        """The folder with a PNG for each picture; what ``label`` wrote into shards is unpacked into the stage's."""
        keys = (target.key(index) for index in range(len(target)))
        return unpack_labels(labelled_folder(Path(path).expanduser(), kind), keys, self._stage.folder / kind)

    def _look(self, found: PseudoLabelledSet, labels: list[Path], pictures: UnlabelledSet | None) -> None:
        """Read every mask, hold its size to its picture's, and tell what share of the pixels each class has."""
        names = found.classes.names

        def counted(index: int) -> np.ndarray:
            label = found.label(index)
            if pictures is not None:
                _check_aspect(label.shape, pictures, index, str(labels[index]))
            return count_pixels(label, len(names))

        total = np.sum(list(in_order(counted, len(found))), axis=0)
        if not total[:-1].any():
            raise DataError(
                f"no pixel of the {len(found)} masks in {self._config.path} is labelled with a class of the network",
                hint="look at folder.map, folder.threshold, and the classes.json of the folder",
            )
        self._stage.tell(f"labels  {self._config.path}: {shares_text(total, names)}")


def _check(config: FolderConfig) -> None:
    if not config.path:
        raise ConfigError("the folder labeler has no folder", hint="--set folder.path=DIR")
    if bool(config.confidences) != (config.threshold > 0):
        missing, given = ("threshold", "confidences") if config.confidences else ("confidences", "threshold")
        raise ConfigError(
            f"folder.{given} is given and folder.{missing} is not: it would do nothing",
            hint="give both: --set folder.confidences=DIR --set folder.threshold=0.9",
        )


def _as_they_are(classes: ClassList) -> GivenMasks:
    """Masks whose ids are the network's own."""
    from rtda_training.data.labels.classes_file import ClassesFile

    table = np.full(256, 255, np.uint8)
    table[: classes.num_classes] = np.arange(classes.num_classes)
    return GivenMasks(ClassesFile(classes), table, classes)


def _check_aspect(shape: tuple[int, ...], pictures: UnlabelledSet, index: int, name: str) -> None:
    """Refuse a mask that is not its picture at another size; a picture that cannot be read is the training's matter."""
    try:
        frame = pictures.frame(index)
    except (DataError, FileAccessError):
        return
    (height, width), (rows, columns) = frame.shape[:2], shape[:2]
    scale = min(rows / height, columns / width)
    if abs(rows - height * scale) > _FITS or abs(columns - width * scale) > _FITS:
        raise DataError(
            f"mask {name} is {columns}x{rows}, its picture {pictures.name(index)} is {width}x{height}:"
            " another aspect, so its pixels are not those of the picture",
            hint="write masks at the picture's size, or at one of the same aspect; were they cropped or padded?",
        )
