"""Where the pictures and labels of a set are below its folder, and which of them belong to a split."""

from __future__ import annotations

import glob
import re
import zlib
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import DataError
from rtda_deploy.folders import Found, walk
from rtda_deploy.masking import mask_path
from rtda_training.data.address import SPLITS, DataAddress
from rtda_training.data.list_file import SUFFIXES, Pair, listed

__all__ = [
    "Layout",
    "files_below",
    "find_layout",
    "folder_of",
    "label_endings",
    "layout_pairs",
    "numbered_pairs",
    "pictures_below",
    "root_folder",
]

_PICTURE_END = "_leftImg8bit"
_EVERY = 20  # of twenty consecutive numbers, one is val, one is test


def root_folder(address: DataAddress, wants: str) -> Path:
    """The folder an address names.

    Raises:
        DataError: If it is none; ``wants`` says what it should hold.
    """
    root = Path(address.path).expanduser()
    if not root.exists():
        raise DataError(
            f"{mask_path(root)} is no folder: nothing of this name is there",
            hint=f"check the spelling; {address.kind}:PATH wants the folder that holds {wants}",
        )
    if not root.is_dir():
        from rtda_runtime.sources.footage.address import footage_kind

        kind = footage_kind(address.path)
        footage = f"; this is footage: type {kind}:{mask_path(address.path)}" if kind else ""
        raise DataError(
            f"{mask_path(root)} is no folder",
            hint=f"{address.kind}:PATH wants the folder that holds {wants}{footage}",
        )
    return root


def folder_of(address: DataAddress, folder: Path, wants: str) -> Path:
    """``folder``, if it is there.

    Raises:
        DataError: Naming it and what the layout wants.
    """
    if not folder.is_dir():
        raise DataError(
            f"{mask_path(folder)} is no folder", hint=f"{address.kind}:PATH wants {wants}; see docs/data.md"
        )
    return folder


def pictures_below(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> List[Path]:
    """Picture files of a folder and its sub-folders, in the order of their paths; see :func:`files_below`."""
    return files_below(folder, suffixes).files


def files_below(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> Found:
    """Files of these kinds below a folder, and what was left out: hidden and system folders, links to nothing."""
    endings = tuple(suffixes)
    return walk(folder, lambda name: name.lower().endswith(endings))


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
            for name in SPLITS
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


def numbered_pairs(address: DataAddress, root: Path, pairs: Sequence[Pair], split: str, labels: bool) -> List[Pair]:
    """The pictures of a split: those of ``?list=``, else of ``root/<split>.txt``, else by number; ``all`` is all.

    Raises:
        DataError: If there are split lists beside the pictures, but none for this split.
    """
    chosen = listed(address, root, pairs, labels)
    if chosen is not None:
        return chosen
    if split == "all":
        return list(pairs)
    lists = [name for name in SPLITS if (root / f"{name}.txt").is_file()]
    if not lists:
        return [pair for pair in pairs if _numbered_split(pair.key) == split]
    if split not in lists:
        raise DataError(
            f"{root} has {', '.join(f'{name}.txt' for name in lists)}, but no {split}.txt",
            hint=f"write the pictures of its {split} split there, one name a line, or type ?list=FILE",
        )
    return listed(address.with_option("list", f"{split}.txt"), root, pairs, labels) or []


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


def _numbered_split(key: str) -> str:
    """The split of a picture in a set that has none of its own, by the number that ends its name.

    Of twenty consecutive numbers the one divisible by 20 is val, the one ten later is test, the rest is train. A name
    without a number counts by its checksum. The same picture is in the same split on every machine.
    """
    digits = re.search(r"(\d+)\D*$", key.rpartition("/")[2])
    number = int(digits.group(1)) if digits else zlib.crc32(key.encode("utf-8"))
    return {0: "val", _EVERY // 2: "test"}.get(number % _EVERY, "train")
