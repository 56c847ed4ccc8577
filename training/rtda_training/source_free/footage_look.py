"""A look at footage before a network is adapted to it: how many scenes it shows, and how sure the network is of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rtda_deploy.card import BINS, Card
from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.optional import require
from rtda_training.readers import Progress, UnlabelledSet

__all__ = ["LEAST_SCENES", "doubts", "refuse_few_scenes", "scenes_of"]

LEAST_SCENES = 8  # as many frames as networks are judged on at least
_LOOKED_AT = 200  # frames, spread over the footage
_GLANCE_WH = (16, 12)  # cells; noise of the sensor is averaged away in them
_OTHER = 4.0  # grey levels, mean over the cells with the brightness taken out: more is another scene
_LESS_SURE = 0.75  # of the mean confidence on the source: below it something is wrong


class Scenes(NamedTuple):
    """How many different scenes were found among how many frames."""

    scenes: int
    frames: int


def scenes_of(footage: UnlabelledSet, progress: Progress | None = None) -> Scenes:
    """Count scenes: a frame shows a new one where it differs from each that was found before.

    It stops at ``LEAST_SCENES``. Frames that cannot be read are left out.
    """
    cv2 = require("cv2", extra="training", purpose="to look at the footage")
    found: list[np.ndarray] = []
    frames, count = 0, min(len(footage), _LOOKED_AT)
    for done, index in enumerate(np.linspace(0, len(footage) - 1, count).round().astype(int).tolist()):
        try:
            frame = footage.frame(index)
        except (DataError, FileAccessError):
            continue
        frames += 1
        grey = cv2.resize(frame, _GLANCE_WH, interpolation=cv2.INTER_AREA).mean(axis=2)
        glance = grey - grey.mean()
        if all(float(np.abs(glance - other).mean()) > _OTHER for other in found):
            found.append(glance)
        if progress is not None:
            progress(done + 1, count)
        if len(found) >= LEAST_SCENES:
            break
    return Scenes(len(found), frames)


def refuse_few_scenes(footage: UnlabelledSet, progress: Progress | None = None) -> None:
    """Refuse footage of one place: batch-norm statistics and labels of it would fit that place and nothing else.

    Raises:
        DataError: With the number that is there, and the one that is needed.
    """
    scenes, frames = scenes_of(footage, progress)
    if scenes >= LEAST_SCENES:
        return
    shows = "one scene" if scenes == 1 else f"{scenes} different scenes"
    raise DataError(
        f"{footage.address} shows {shows} in {frames} frame{'s' * (frames != 1)}: statistics of so few would fit them"
        " alone, and spoil the network everywhere else",
        hint=f"at least {LEAST_SCENES} different scenes are needed, hundreds are better: record while the robot moves",
    )


def doubts(card: Card | None, sure: float) -> list[str]:
    """What speaks against adapting, without labels.

    Args:
        card: Of the network; None where it has none.
        sure: Mean probability of the winning class on the footage, 0..1.
    """
    if card is None:
        return [
            f"the model has no calibration card: it is {100 * sure:.0f} % sure of the footage on average, and how sure"
            " it is of its own pictures is not known (a card is measured where a training ends, on labelled pictures)"
        ]
    own = float(np.asarray(card.confidence) @ ((np.arange(BINS) + 0.5) / BINS))
    if sure >= _LESS_SURE * own:
        return []
    return [
        f"the model is {100 * sure:.0f} % sure of the footage on average, {100 * own:.0f} % of its own pictures: the"
        " footage may show little that it knows, and its labels of it cannot be trusted. See masks of it first"
        " (rtda-deploy run), and give some labelled frames: --check DATA"
    ]
