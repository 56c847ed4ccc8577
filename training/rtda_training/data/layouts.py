"""Where ``folder:`` and ``carla:`` look for pictures and labels: with splits or without."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.list_file import listed
from rtda_training.data.listing import Pair, pictures_below

__all__ = ["Layout", "find_layout", "label_endings", "layout_pairs"]

_SPLITS = ("train", "val", "test")
_PICTURE_END = "_leftImg8bit"


class Layout(NamedTuple):
    """The folders of one split; ``split`` is None for a set that has none, and then every split is the whole set."""

    images: Path
    labels: Path
    split: Optional[str]


def find_layout(
    address: DataAddress, root: Path, split: str, names: Sequence[Tuple[str, str]]
) -> Tuple[List[Layout], Tuple[str, str]]:
    """The folders to read: ``root/<split>/images``, ``root/images/<split>`` or ``root/images``.

    Where ``test`` was not typed and is not there, ``val`` is taken. With a list, all are read: it means the whole set.

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
        if "list" in address.options:
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
    address: DataAddress,
    root: Path,
    layouts: Sequence[Layout],
    labels: bool,
    sift: Optional[Callable[[List[Path]], List[Path]]] = None,
) -> Tuple[List[Pair], List[Pair]]:
    """Every picture of the layouts, and those that are meant; a label has its picture's relative name and ``.png``.

    With ``label_suffix=_L`` in the address, the label of ``a.jpg`` is ``a_L.png``, and no ``a_L.png`` is a picture.
    ``sift`` says which of the files are pictures.
    """
    suffix = address.options.get("label_suffix", "")
    pool = []
    for layout in layouts:
        paths = [
            path for path in pictures_below(layout.images) if not suffix or not path.stem.endswith(Path(suffix).stem)
        ]
        for path in sift(paths) if sift else paths:
            below = path.relative_to(layout.images).with_suffix("").as_posix()
            key = f"{layout.split}/{below}" if layout.split and len(layouts) > 1 else below
            pool.append(Pair(key, path, _label(layout, path, below, suffix) if labels else None))
    chosen = listed(address, root, pool, labels)
    return pool, pool if chosen is None else chosen


def label_endings(pair: Pair, folders: Sequence[Path]) -> List[Tuple[Path, str]]:
    """Files that may be a picture's label under a longer name, each with what ``label_suffix`` would find it by."""
    stem = _stems(pair.picture.stem)[-1]
    places = dict.fromkeys((*([pair.label.parent] if pair.label else []), *folders, pair.picture.parent))
    found = (path for folder in places if folder.is_dir() for path in sorted(folder.glob(f"{glob.escape(stem)}?*.png")))
    return [(path, path.stem[len(stem) :]) for path in found if path.stem[len(stem)] in "_-." and path != pair.picture]


def _label(layout: Layout, picture: Path, below: str, suffix: str) -> Path:
    ending = suffix if Path(suffix).suffix else f"{suffix}.png"
    usual = layout.labels / f"{below}{ending}"
    if not suffix:
        return usual
    folders = ((layout.labels / below).parent, picture.parent)
    candidates = [folder / f"{stem}{ending}" for folder in folders for stem in _stems(picture.stem)]
    return next((path for path in candidates if path.is_file()), usual)


def _stems(stem: str) -> List[str]:
    """A picture's name as its labels may spell it: Cityscapes' have an ending of their own in its place."""
    return [stem, stem[: -len(_PICTURE_END)]] if stem.endswith(_PICTURE_END) else [stem]
