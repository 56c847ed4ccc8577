"""Where ``folder:`` and ``carla:`` look for pictures and labels: with splits or without."""

from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.listing import Pair, listed, pictures_below

__all__ = ["Layout", "find_layout", "layout_pairs"]

_SPLITS = ("train", "val", "test")


class Layout(NamedTuple):
    """The folders of one split; ``split`` is None for a set that has none, and then every split is the whole set."""

    images: Path
    labels: Path
    split: Optional[str]


def find_layout(
    address: DataAddress, root: Path, split: str, names: Sequence[Tuple[str, str]]
) -> Tuple[List[Layout], Tuple[str, str]]:
    """The folders to read: ``root/<split>/images``, ``root/images/<split>`` or ``root/images``.

    Where ``test`` was not typed and is not there, ``val`` is taken. With a list and no typed split, all are read.

    Args:
        address: Its split and list are looked at.
        root: The data set's folder.
        split: The split asked for.
        names: Names of the picture and label folders to try, in order.

    Returns:
        One layout per split that is read, and the names that were found.

    Raises:
        DataError: If there are splits, but not this one; or nothing of the kind.
    """
    for images, labels in names:
        by_split = {
            name: layout
            for name in _SPLITS
            for layout in (
                Layout(root / name / images, root / name / labels, name),
                Layout(root / images / name, root / labels / name, name),
            )
            if layout.images.is_dir()
        }
        if not by_split:
            if (root / images).is_dir():
                return [Layout(root / images, root / labels, None)], (images, labels)
            continue
        if "list" in address.options and address.split is None:
            return list(by_split.values()), (images, labels)
        if split == "test" and split not in by_split and address.split is None and "val" in by_split:
            return [by_split["val"]], (images, labels)
        if split not in by_split:
            raise DataError(
                f"{root} has no {split} split: there is no {root / split / images} and no {root / images / split}",
                hint=f"it has {', '.join(by_split)}; name one with ?split=, or the pictures with ?list=FILE",
            )
        return [by_split[split]], (images, labels)
    return [], names[0]


def layout_pairs(
    address: DataAddress, root: Path, layouts: Sequence[Layout], labels: bool
) -> Tuple[List[Pair], List[Pair]]:
    """Every picture of the layouts, and those that are meant; a label has its picture's relative name and ``.png``."""
    pool = []
    for layout in layouts:
        for path in pictures_below(layout.images):
            below = path.relative_to(layout.images).with_suffix("").as_posix()
            key = f"{layout.split}/{below}" if layout.split and len(layouts) > 1 else below
            pool.append(Pair(key, path, layout.labels / f"{below}.png" if labels else None))
    chosen = listed(address, root, pool, labels)
    return pool, pool if chosen is None else chosen
