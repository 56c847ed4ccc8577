"""Masks as PNG files in a folder, the class index as grey value, as evaluation tools read them."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, Union

from rtda_deploy.files import writable_folder, write_bytes
from rtda_deploy.own_masks import marked
from rtda_runtime._opencv import opencv
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sinks.kinds import SinkContext

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MaskFolder", "opener", "own_png"]

_CONFIDENCE = ".confidence"


def own_png(picture: np.ndarray) -> bytes:
    """A PNG of uint8 (H, W) that :func:`rtda_deploy.own_masks.is_own_mask` knows."""
    cv2: Any = opencv("to write masks")
    return marked(cv2.imencode(".png", picture)[1].tobytes())


def opener(address: str, context: SinkContext) -> Callable[[], MaskFolder]:
    """What opens the folder of ``run --masks``."""
    return functools.partial(MaskFolder, address, context.names)


class MaskFolder(Sink):
    """Writes a PNG per frame; an existing file of that name is replaced.

    Files are named by the frame's number (``000000.png``), or after the picture where the frames are picture files:
    ``left.png`` is the mask of ``left.jpg``; where two pictures would give the same name, whole names are kept
    (``a.jpg.png``, ``a.png.png``). Results with a confidence also give ``NAME.confidence.png``, where 255 is certain.

    Args:
        folder: Made where it is missing.
        names: File names of the frames by their number; empty: there are none.

    Raises:
        FileAccessError: If the folder cannot be made or written to.
    """

    name = "masks"
    keeps = True

    def __init__(self, folder: Union[str, Path], names: Sequence[str] = ()) -> None:
        self._folder = writable_folder(folder)
        stems = [Path(name).stem for name in names]
        clash = len(set(stems)) < len(stems) or any(stem.endswith(_CONFIDENCE) for stem in stems)
        self._names = list(names) if clash else stems

    def write(self, result: Result) -> Mapping[str, float]:
        start = time.perf_counter_ns()
        number = result.sequence
        stem = self._names[number] if number < len(self._names) else f"{number:06d}"
        for suffix, picture in (("", result.mask), (_CONFIDENCE, result.confidence)):
            if picture is not None:
                write_bytes(self._folder / f"{stem}{suffix}.png", own_png(picture))
        return {"encode": (time.perf_counter_ns() - start) / 1e6}

    def close(self) -> None:
        """Nothing to finish: each file is complete when it is written."""
