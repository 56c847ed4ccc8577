"""Flicker: how many pixels change their class from a frame to the next, once what moved is put back in its place.

A mask that is right in each frame changes only where something moves. Optical flow says where each pixel was one frame
earlier; pixels that were hidden there, or that the flow is not sure of, are left out.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.optional import require

__all__ = ["Flicker", "Flow", "changes", "flicker_of", "flow_between"]

LEAST_PAIRS = 5  # of neighbouring frames that a figure is given on
_SIDE = 384  # pixels of the longer side that flow is computed at; larger frames are shrunk
_RELATIVE, _ABSOLUTE = (
    0.01,
    0.5,
)  # of a forward and backward flow that contradict each other: share of squares, pixels^2
_FOLLOWED = 0.5  # share of the pixels that has to be found again; else the frames are no neighbours


class Flow(NamedTuple):
    """Where each pixel of a frame was in the frame before.

    Attributes:
        place: float32 (h, w, 2): column and row in the frame before.
        known: bool (h, w): it was visible there.
    """

    place: np.ndarray
    known: np.ndarray


@dataclasses.dataclass(frozen=True)
class Flicker:
    """How a network's masks of consecutive frames change; C classes.

    Attributes:
        class_names: Of the masks.
        pairs: Pairs of neighbouring frames that were compared.
        left_out: Pairs whose frames show too little of the same: a cut, or frames that lie too far apart.
        followed: Pixels by the class they had, int64 (C,).
        changed: Those of them that have another class in the next frame, int64 (C,).
    """

    class_names: Tuple[str, ...]
    pairs: int
    left_out: int
    followed: np.ndarray
    changed: np.ndarray

    @property
    def share(self) -> float:
        """Of all followed pixels, 0..1."""
        return float(self.changed.sum() / max(1, self.followed.sum()))

    @property
    def by_class(self) -> Dict[str, Optional[float]]:
        """Share of the pixels of each class that lose it, 0..1; None for a class that was never seen."""
        parts = zip(self.class_names, self.followed.tolist(), self.changed.tolist())
        return {name: changed / followed if followed else None for name, followed, changed in parts}

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready, percent."""
        return {
            "pairs": self.pairs,
            "left_out": self.left_out,
            "percent": round(100.0 * self.share, 3),
            "by_class": {name: None if one is None else round(100.0 * one, 3) for name, one in self.by_class.items()},
        }


def flow_between(before: np.ndarray, after: np.ndarray) -> Flow:
    """The flow from a frame back to the one before it.

    Args:
        before: uint8 (H, W, 3) BGR.
        after: The next frame, of the same size.

    Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search (ECCV 2016), OpenCV's; what contradicts itself
    is hidden, as in Sundaram et al., Dense Point Trajectories (ECCV 2010), equation 5.
    """
    cv2 = require("cv2", extra="runtime", purpose="to follow pixels from frame to frame")
    size = _size(before.shape[:2])
    one, two = (
        cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        for frame in (before, after)
    )
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back, forth = method.calc(two, one, None), method.calc(one, two, None)
    rows, columns = np.mgrid[: size[1], : size[0]].astype(np.float32)
    place = np.stack([columns, rows], axis=2) + back
    returned = cv2.remap(forth, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    squares = (back**2).sum(axis=2) + (returned**2).sum(axis=2)
    agrees = ((back + returned) ** 2).sum(axis=2) <= _RELATIVE * squares + _ABSOLUTE
    inside = (place >= 0).all(axis=2) & (place[..., 0] <= size[0] - 1) & (place[..., 1] <= size[1] - 1)
    return Flow(place, agrees & inside)


def changes(before: np.ndarray, after: np.ndarray, flow: Flow, classes: int) -> Tuple[np.ndarray, np.ndarray]:
    """Pixels that were followed, by the class they had, and those that changed it: int64 (C,) each.

    Args:
        before: uint8 (H, W), mask of the frame before; values that are no class are left out.
        after: Mask of the frame.
        flow: Between the two frames.
        classes: C.
    """
    cv2 = require("cv2", extra="runtime", purpose="to follow pixels from frame to frame")
    size = flow.known.shape[1], flow.known.shape[0]
    old, new = (cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) for mask in (before, after))
    was = cv2.remap(old, flow.place, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    used = flow.known & (was < classes) & (new < classes)
    other = used & (was != new)
    return tuple(np.bincount(was[of], minlength=classes).astype(np.int64) for of in (used, other))  # type: ignore[return-value]


def flicker_of(
    masks: Sequence[Callable[[np.ndarray], np.ndarray]],
    class_names: Sequence[Tuple[str, ...]],
    frames: Iterable[np.ndarray],
    *,
    progress: Optional[Callable[[int], None]] = None,
) -> List[Flicker]:
    """Run networks over consecutive frames; each frame and its flow is computed once for all.

    Args:
        masks: From a frame, uint8 (H, W, 3) BGR, to a mask, uint8 (H, W), of each network.
        class_names: Of each network.
        frames: In the order they were taken.
        progress: Called with the number of frames that are done.

    Raises:
        DataError: If fewer than ``LEAST_PAIRS`` pairs of frames show the same scene.
    """
    counts = [np.zeros((2, len(names)), np.int64) for names in class_names]
    before: Optional[np.ndarray] = None
    earlier: List[np.ndarray] = []
    pairs = left_out = 0
    for done, frame in enumerate(frames):
        found = [np.asarray(mask(frame)) for mask in masks]
        if before is not None:
            flow = flow_between(before, frame) if before.shape == frame.shape else None
            if flow is None or flow.known.mean() < _FOLLOWED:
                left_out += 1
            else:
                pairs += 1
                for count, old, new in zip(counts, earlier, found):
                    count += np.stack(changes(old, new, flow, count.shape[1]))
        before, earlier = frame.copy(), [mask.copy() for mask in found]
        if progress is not None:
            progress(done + 1)
    if pairs < LEAST_PAIRS:
        raise DataError(
            f"{pairs} pairs of frames show the same scene one after the other, too few to tell how much masks flicker",
            why=f"{left_out} were left out: less than half of their pixels were found again" if left_out else "",
            hint="give consecutive frames of a drive: a video, a bag, or a folder with every frame",
        )
    return [Flicker(tuple(names), pairs, left_out, *count) for names, count in zip(class_names, counts)]


def _size(size_hw: Tuple[int, ...]) -> Tuple[int, int]:
    """Width and height, the longer at most ``_SIDE``."""
    factor = min(1.0, _SIDE / max(size_hw))
    return max(16, round(size_hw[1] * factor)), max(16, round(size_hw[0] * factor))
