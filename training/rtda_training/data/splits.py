"""Splits of data sets that are given without one: from a list beside the pictures, else by number."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.list_file import listed
from rtda_training.data.listing import Pair, numbered_split

__all__ = ["numbered_pairs"]

_SPLITS = ("train", "val", "test")


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
    lists = [name for name in _SPLITS if (root / f"{name}.txt").is_file()]
    if not lists:
        return [pair for pair in pairs if numbered_split(pair.key) == split]
    if split not in lists:
        raise DataError(
            f"{root} has {', '.join(f'{name}.txt' for name in lists)}, but no {split}.txt",
            hint=f"write the pictures of its {split} split there, one name a line, or type ?list=FILE",
        )
    return listed(address.with_option("list", f"{split}.txt"), root, pairs, labels) or []
