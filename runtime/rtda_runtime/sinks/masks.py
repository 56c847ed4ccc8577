"""A folder of masks as PNG, the class index as grey value: what evaluation tools read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Mapping, Union

from rtda_deploy.files import writable_folder, write_bytes
from rtda_runtime._opencv import opencv
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink

__all__ = ["MaskFolder"]


class MaskFolder(Sink):
    """Writes ``000000.png``, ``000001.png`` ... named by the frame's sequence number; a file of that name is replaced.

    Results that say how sure the network is also give ``000000.confidence.png``: 255 is certain.

    Raises:
        FileAccessError: If the folder cannot be made or written to.
    """

    name = "masks"
    keeps = True

    def __init__(self, folder: Union[str, Path]) -> None:
        self._folder = writable_folder(folder)

    def write(self, result: Result) -> Mapping[str, float]:
        cv2: Any = opencv("to write masks")
        start = time.perf_counter_ns()
        for suffix, picture in (("", result.mask), (".confidence", result.confidence)):
            if picture is not None:
                _, content = cv2.imencode(".png", picture)
                write_bytes(self._folder / f"{result.sequence:06d}{suffix}.png", content.tobytes())
        return {"encode": (time.perf_counter_ns() - start) / 1e6}

    def close(self) -> None:
        """Nothing is left to finish: each file was whole when written."""
