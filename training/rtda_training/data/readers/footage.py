"""``video:FILE`` and ``bag:FILE``: frames that are chosen from recordings, once, and kept in the cache as PNGs.

The footage is one timeline, its recordings in the order of their names. ``val`` is a contiguous piece at its end, 20 %
of the time unless ``hold_back=`` says otherwise, ``train`` what lies before it: frames of the same minute are in one of
the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.footage.asked import HoldBack
from rtda_training.data.footage.chosen import ChosenFrames, chosen_frames
from rtda_training.data.footage.record import FRAMES
from rtda_training.data.list_file import Pair, listed
from rtda_training.data.readers.paired import PairedPictures
from rtda_training.labels import CITYSCAPES
from rtda_training.readers import Progress, labels_closed

__all__ = ["FootageFrames"]

_FEW = 20  # frames; batch norms and a teacher learn the scene they show, not the robot's surroundings


class FootageFrames(PairedPictures):
    """Chosen frames in the order of their files, without labels."""

    classes = CITYSCAPES
    _left_out: Dict[str, List[str]] = {}  # noqa: RUF012 - replaced, never changed

    @classmethod
    def open(
        cls, address: DataAddress, split: str, *, labels: bool, progress: Optional[Progress] = None
    ) -> FootageFrames:
        """Open ``video:`` or ``bag:``, choosing frames first where the cache does not hold them.

        Raises:
            DataError: If no frame is left, or none in the split.
        """
        taken = "val" if split == "test" else split
        found = chosen_frames(address, progress)
        root = found.folder / FRAMES
        everything = [Pair(frame.key, found.path(frame)) for frame in found.record.frames]
        chosen = listed(address, root, everything, labels=False)
        if chosen is None:
            frames = found.record.part(taken, found.asked.hold_back)
            if not frames:
                raise _empty(address, taken, found)
            chosen = [Pair(frame.key, found.path(frame)) for frame in frames]
        pictures = cls(
            chosen,
            labelled=False,
            where=root,
            pool=everything,
            picture_folders=[],
            label_folders=[],
            split=taken if taken != split else None,
        )
        few = [f"{len(chosen)} frames are few to adapt to: some dozens are wanted"] if len(chosen) < _FEW else []
        pictures.notes = (_note(address, found), *few, *found.record.doubts())
        pictures._left_out = {f"dropped as {reason}": names for reason, names in found.record.dropped.items()}
        return pictures

    def read_label(self, path: Path) -> np.ndarray:
        raise labels_closed(self.where)

    def left_out(self) -> Dict[str, List[str]]:
        return dict(self._left_out)


def _empty(address: DataAddress, split: str, found: ChosenFrames) -> DataError:
    hold_back: HoldBack = found.asked.hold_back
    held_s = found.record.held_back_s(hold_back)
    if split == "val":
        what = f"the last {_seconds(held_s)}, which are held back, hold none" if held_s else "nothing is held back"
        hint = "hold more back: ?hold_back=30%"
    else:
        what = f"all of them lie in the last {_seconds(held_s)}, which are held back"
        hint = "hold less back, such as ?hold_back=10%, or nothing: ?hold_back=0"
    return DataError(
        f"{address} has no {split} frames: of {len(found.record.frames)} chosen, {what}",
        hint=f"{hint}; ?split=all takes every frame",
    )


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.3g} s"


def _note(address: DataAddress, found: ChosenFrames) -> str:
    record = found.record
    held_s = record.held_back_s(found.asked.hold_back)
    held = f"the last {_seconds(held_s)} are held back" if held_s else "nothing is held back"
    taken = "taken" if not found.asked.select else "chosen"
    return f"footage {address.kind}:{address.path}: {len(record.frames)} of {record.total} frames {taken}, {held}"
