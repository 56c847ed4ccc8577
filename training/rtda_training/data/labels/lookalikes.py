"""Pictures that are labels: masks that lie among the pictures of a folder and would be trained on as such.

A label has few values in large flat regions, in a format that loses nothing. A photograph has neither, a grey or a
rendered one included: noise and shading make neighbours differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence, Set, Tuple

import numpy as np

from rtda_deploy.errors import RtdaError
from rtda_training.data.labels.files import read_mask

__all__ = ["part_labels"]

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
_MAX_VALUES = 64  # classes or colours in one label; photographs have hundreds
_FLAT = 0.85  # share of pixels that equal their right neighbour; photographs have up to a half
_SAMPLES = 3  # files of a group that are looked at
_MANY_GROUPS = 50  # from here on one file of a group is looked at
_PICTURE_ENDS = ("_leftImg8bit",)


def part_labels(paths: Sequence[Path], *, folders: bool = True) -> Tuple[List[Path], Dict[str, List[Path]]]:
    """``paths`` without what looks like labels, and the labels by the group that was judged as a whole.

    A group is a folder, or the files of a folder whose names are another's with an ending, such as ``_mask``. A group
    counts as labels where every sample of it does. Its name is ``folder`` or ``folder/*ending``. Without ``folders``,
    only files beside another are judged: the folder was named as one of pictures.
    """
    groups: Dict[str, List[Path]] = {}
    stems: Dict[Path, Set[str]] = {}
    for path in paths:
        stems.setdefault(path.parent, set()).update((path.stem, *_short(path.stem)))
    for path in paths:
        ending = _ending(path.stem, stems[path.parent])
        if ending or folders:
            groups.setdefault(f"{path.parent}/*{ending}" if ending else str(path.parent), []).append(path)
    samples = _SAMPLES if len(groups) < _MANY_GROUPS else 1
    labels = {name: group for name, group in groups.items() if _all_labels(group, samples)}
    taken = {path for group in labels.values() for path in group}
    return [path for path in paths if path not in taken], labels


def _short(stem: str) -> List[str]:
    return [stem[: -len(end)] for end in _PICTURE_ENDS if stem.endswith(end)]


def _ending(stem: str, stems: Set[str]) -> str:
    """What ``stem`` has more than another stem of its folder: ``_mask``; "" for a name of its own."""
    cuts = [place for place, letter in enumerate(stem) if letter in "_-." and place]
    return next((stem[cut:] for cut in cuts if stem[:cut] in stems and not stem.endswith(_PICTURE_ENDS)), "")


def _all_labels(group: Sequence[Path], samples: int) -> bool:
    if any(path.suffix.lower() not in _LOSSLESS for path in group):
        return False
    places = sorted({int(place) for place in np.linspace(0, len(group) - 1, samples)})
    values = []
    for place in places:
        try:
            values.append(_values(read_mask(group[place])))
        except RtdaError:
            return False
    return min(values) > 0 and max(values) > 1  # pictures of one value alone may be anything


def _values(mask: np.ndarray) -> int:
    """Number of values in a picture that is flat enough for a label; 0 for any other."""
    flat = mask if mask.ndim == 2 else mask.astype(np.int64) @ (1 << 32, 1 << 16, 1)
    if flat.shape[1] > 1 and float((flat[:, 1:] == flat[:, :-1]).mean()) < _FLAT:
        return 0
    count = len(np.unique(flat))
    return count if count <= _MAX_VALUES else 0
