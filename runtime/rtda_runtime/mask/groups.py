"""The classes of a mask: how much it shows of each, and classes joined by name, such as ``drivable``."""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, FrameError
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.regions import RegionOfInterest

__all__ = ["ClassCounts", "ClassGroups", "check_mask", "class_hint", "class_index", "class_shares", "count_classes"]


class ClassCounts(NamedTuple):
    """What is in a mask, or in a region of it.

    Attributes:
        shares: Class name to share of the labelled pixels, 0..1, in the spec's order, adding up to 1; all 0 where no
            pixel has a class.
        unlabelled: Share of all pixels that have no class, 0..1: ``ignore_index``, such as outside ``--region``.
    """

    shares: Dict[str, float]
    unlabelled: float


def count_classes(mask: np.ndarray, spec: ModelSpec, region: Optional[RegionOfInterest] = None) -> ClassCounts:
    """Count the pixels of each class, in a third of a millisecond at 1280x720.

    Args:
        mask: uint8 (H, W) class indices.
        spec: Whose ``class_names`` are the keys, in order.
        region: None: all of the picture.

    Raises:
        FrameError: If ``mask`` is no uint8 (H, W).
    """
    check_mask(mask)
    cv2: Any = opencv("to count classes")
    part = mask if region is None else mask[region.slices((mask.shape[0], mask.shape[1]))]
    pixels = cv2.calcHist([part], [0], None, [256], [0, 256]).reshape(256)[: spec.num_classes].astype(np.float64)
    labelled = float(pixels.sum())
    shares = pixels / max(1.0, labelled)
    return ClassCounts(dict(zip(spec.class_names, shares.tolist())), 1.0 - labelled / max(1, part.size))


def class_shares(mask: np.ndarray, spec: ModelSpec, region: Optional[RegionOfInterest] = None) -> Dict[str, float]:
    """:func:`count_classes`, the shares alone: of each class among the labelled pixels, adding up to 1."""
    return count_classes(mask, spec, region).shares


def check_mask(mask: np.ndarray) -> None:
    """Check that ``mask`` is one.

    Raises:
        FrameError: If it is no uint8 (H, W).
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise FrameError(
            f"a mask is uint8 (H, W), this is {mask.dtype} {mask.shape}", hint="give result.mask, or one like it"
        )


REST = "other"  # every class that no group names
_REST_COLOUR = (96, 96, 96)


@dataclasses.dataclass(frozen=True)
class ClassGroups:
    """Classes joined by name. A class belongs to one group at most; the rest is ``other``.

    Attributes:
        names: Of the groups, in the order given, then ``other`` where a class is left.
        table: uint8 (256,): class index to group index; 255 stays 255.
    """

    names: Tuple[str, ...]
    table: np.ndarray

    @classmethod
    def parse(cls, texts: Iterable[str], spec: ModelSpec) -> ClassGroups:
        """``walkable=road,sidewalk`` per group; case and the difference of space, - and _ do not matter.

        Raises:
            ConfigError: If a class is unknown (with the nearest name), in two groups, or a group is named twice.
        """
        table = np.full(256, 255, np.uint8)
        names: List[str] = []
        for text in texts:
            group, equals, members = text.partition("=")
            group = group.strip()
            if not group or not equals or not members.strip():
                raise ConfigError(f"group {text!r} is not NAME=CLASS,CLASS", hint="--group walkable=road,sidewalk")
            if group in names or group == REST:
                raise ConfigError(
                    f"group {group} is named twice"
                    if group in names
                    else f"{REST} is what every other class is called",
                    hint="one --group NAME=CLASS,CLASS for each, under a name of its own",
                )
            for member in members.split(","):
                index = class_index(member, spec.class_names)
                if index is None:
                    hint = class_hint(member, spec.class_names)
                    raise ConfigError(f"group {group}: there is no class {member.strip()!r}", hint=hint)
                if table[index] != 255:
                    other = (*names, group)[int(table[index])]
                    raise ConfigError(
                        f"{spec.class_names[index]} is named twice: in {other} and in {group}",
                        hint="a class belongs to one group",
                    )
                table[index] = len(names)
            names.append(group)
        if not names:
            raise ConfigError("no group was named", hint="--group walkable=road,sidewalk")
        rest = table[: spec.num_classes]
        if (rest == 255).any():
            rest[rest == 255] = len(names)
            names.append(REST)
        return cls(tuple(names), table)

    def mask(self, mask: np.ndarray, out: Optional[np.ndarray] = None) -> np.ndarray:
        """Group index per pixel.

        Args:
            mask: uint8 (H, W) class indices.
            out: uint8 (H, W) to write into, which may be ``mask`` itself; None: a new array.
        """
        check_mask(mask)
        cv2: Any = opencv("to join classes")
        grouped: np.ndarray = cv2.LUT(mask, self.table, dst=out)
        return grouped

    def spec(self, spec: ModelSpec) -> ModelSpec:
        """The spec of a mask of groups: their names, each in the colour of its first class, the rest grey."""
        first = [int(np.flatnonzero(self.table[: spec.num_classes] == index)[0]) for index in range(len(self.names))]
        colours = [_REST_COLOUR if name == REST else spec.palette[at] for name, at in zip(self.names, first)]
        return spec.replace(class_names=self.names, palette=tuple(colours))


def class_index(name: str, class_names: Sequence[str]) -> Optional[int]:
    """The class of this name; case and the difference of space, - and _ do not matter. None: there is none."""
    wanted = _plain(name)
    return next((index for index, known in enumerate(class_names) if _plain(known) == wanted), None)


def class_hint(name: str, class_names: Sequence[str]) -> str:
    """What to type where no class is called ``name``: the nearest one, else all of them."""
    near = difflib.get_close_matches(name.strip().lower(), list(class_names), 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(class_names)}"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.strip().lower())
