"""How far the masks of two networks of the same classes agree, added up over frames."""

from __future__ import annotations

from typing import Dict, Optional

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_deploy.spec import ModelSpec

__all__ = ["Agreement", "class_counts", "ious", "refuse_other_classes"]


class Agreement:
    """Pixels that two networks call alike, in all and by class.

    Args:
        spec: Of both.

    Attributes:
        frames: Added so far.
        newest: Share of the pixels of the last frame that both call alike, 0 to 1; None: there is none yet.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._names = tuple(spec.class_names)
        self._both = np.zeros((len(self._names),) * 2, np.int64)
        self._same = self._pixels = self.frames = 0
        self.newest: Optional[float] = None

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add a frame.

        Args:
            first: uint8 (H, W) class indices; 255 (no class) in both agrees, too.
            second: The same of the other network.
        """
        same = int(np.count_nonzero(first == second))
        self.newest = same / first.size
        self._same += same
        self._pixels += first.size
        self._both += class_counts(first, second, len(self._names))
        self.frames += 1

    @property
    def share(self) -> Optional[float]:
        """Of all pixels, 0 to 1; None: no frame was added."""
        return self._same / self._pixels if self._pixels else None

    @property
    def by_class(self) -> Dict[str, float]:
        """Of the pixels that either calls so, the share that both do, 0 to 1; without classes that neither uses."""
        return {name: float(share) for name, share in zip(self._names, ious(self._both)) if not np.isnan(share)}


def class_counts(rows: np.ndarray, columns: np.ndarray, classes: int) -> np.ndarray:
    """int64 (C, C), pixels by class in each of two uint8 (H, W) masks, without those that have no class in either."""
    known = (rows < classes) & (columns < classes)
    flat = rows[known].astype(np.int64) * classes + columns[known]
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def ious(counts: np.ndarray) -> np.ndarray:
    """float64 (C,) of :func:`class_counts`; NaN for a class that is in neither."""
    both = np.diag(counts).astype(np.float64)
    either = counts.sum(axis=0) + counts.sum(axis=1) - both
    found: np.ndarray = np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)
    return found


def refuse_other_classes(new: ModelSpec, old: ModelSpec, *, said: str, why: str, hint: str) -> None:
    """Refuse a network whose masks mean something else than those of another.

    Args:
        new: Of the network that may be refused.
        old: Of the other one.
        said: What happened, before the classes that differ.
        why: Why that is a fault.
        hint: What to do.

    Raises:
        ConfigError: If their classes, the order of these, or the index of "no class" differ.
    """
    if new.class_names == old.class_names and new.ignore_index == old.ignore_index:
        return
    lost = [name for name in old.class_names if name not in new.class_names]
    more = [name for name in new.class_names if name not in old.class_names]
    differ = [f"without {', '.join(lost)}"] * bool(lost) + [f"with {', '.join(more)}"] * bool(more)
    raise ConfigError(f"{said}: {'; '.join(differ) or 'in another order'}", why=why, hint=hint)
