"""Masks that other programs made: what their ids mean, which of ours each is, and how sure the program was."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Mapping, Optional, Sequence

import numpy as np

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.data.class_map import class_map, describe_map
from rtda_training.data.labels.classes_file import ClassesFile
from rtda_training.data.labels.files import read_mask
from rtda_training.data.pseudo_set import RECORD
from rtda_training.labels import IGNORE_INDEX, ClassList, check_label

__all__ = ["CLASSES", "GivenMasks", "given_masks"]

CLASSES = "classes.json"  # beside the masks: what their ids mean


@dataclasses.dataclass(frozen=True, eq=False)
class GivenMasks:
    """How a mask file becomes a label of the network's classes.

    Attributes:
        classes: What the ids of the masks mean, as they are stored.
        table: uint8 (256,): the network's class of each of those, 255 for none.
        network: The network's classes.
        confidences: Of each mask file, the 8-bit picture that says how sure each pixel is; empty: nothing says.
        least: Confidence, 0..255, below which a pixel is not labelled.
    """

    classes: ClassesFile
    table: np.ndarray
    network: ClassList
    confidences: Mapping[Path, Path] = dataclasses.field(default_factory=dict)
    least: float = 0.0

    def read(self, path: Path) -> np.ndarray:
        """uint8 (H, W) of the network's classes, 255 where not labelled.

        Raises:
            DataError: If the mask holds ids that its class list has not, or its confidences are of another size.
        """
        own = check_label(self.classes.apply(read_mask(path), path), self.classes.classes.num_classes, str(path))
        label: np.ndarray = self.table[own]
        if path not in self.confidences:
            return label
        other = self.confidences[path]
        confidence = read_mask(other)
        if confidence.dtype != np.uint8 or confidence.shape != label.shape:
            height, width = label.shape
            raise DataError(
                f"confidences {other} are {confidence.dtype} {confidence.shape}, their mask is {width}x{height}",
                hint="one 8-bit grey PNG of the mask's size for each: 0 is a guess, 255 is sure",
            )
        return np.where(confidence >= self.least, label, np.uint8(IGNORE_INDEX))

    @property
    def text(self) -> str:
        """Which class of the masks is which of the network's, for people."""
        return describe_map(self.classes.classes, self.network, self.table)


def given_masks(
    root: Path, network: ClassList, *, classes: str = "", typed: Sequence[str] = (), setting: str = "folder.map"
) -> Optional[GivenMasks]:
    """How the masks of a folder are read; None where nothing says what their ids mean, so that they are the network's.

    Args:
        root: The folder.
        network: The network's classes.
        classes: A classes file, as ``docs/data.md`` has it; empty: ``classes.json`` in the folder, if it is there.
        typed: ``their class=ours`` texts, as :func:`class_map` takes them.
        setting: What holds them, for messages.

    Raises:
        ConfigError: If a name is of neither list, or nothing is in common.
        DataError: If the classes file is none.
    """
    named = Path(classes).expanduser() if classes else root / CLASSES
    if not classes and not named.is_file():
        if typed:
            raise ConfigError(
                f"{setting} is given, and nothing says what the ids in {root} mean",
                hint=f'write {named}, such as {{"names": ["road", "sky"]}}, or name it: folder.classes=FILE',
            )
        return None
    file = ClassesFile.load(root, named)
    return GivenMasks(file, class_map(file.classes, network, typed, str(named), setting), network)


def is_own(root: Path) -> bool:
    """Whether a labeler of ours wrote the folder: its labels are stretched to the network's size."""
    return (root / RECORD).is_file() or (root.parent / RECORD).is_file()
