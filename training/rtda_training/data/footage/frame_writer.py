"""Frames of footage as PNGs, written on a thread of its own beside what is decoded."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Deque, List

import numpy as np

from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.files import file_error
from rtda_deploy.optional import require

__all__ = ["FrameWriter", "cannot_keep"]

_AHEAD = 4  # frames that wait to be written


def cannot_keep(err: OSError, folder: Path, why: str) -> FileAccessError:
    """The error of a cache that cannot be written to."""
    return FileAccessError(
        file_error(err, folder, "write to").message,
        why=why,
        hint="name a folder on another disk with RTDA_CACHE=DIR, or take fewer: ?every=, ?count=",
    )


def _fast(cv2: Any) -> List[int]:
    """How PNG is packed: of a 720p street, 13 % larger than at OpenCV's level 1, which takes twice as long."""
    if not hasattr(cv2, "IMWRITE_PNG_FILTER"):
        return []  # what OpenCV does by itself is fast; only a level makes it slow
    packed = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    return [*packed, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]


class FrameWriter:
    """Writes frames losslessly while the next are decoded; a few may wait.

    Args:
        folder: What their names start from.
        total: How many there may be, to say how much room they take where there is none.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self._folder = folder
        self._total = total
        self._cv2: Any = require("cv2", extra="training", purpose="to keep frames")
        self._fast = _fast(self._cv2)
        self._pending: Deque[Future[None]] = deque()
        self._bytes = self._written = 0

    def __enter__(self) -> FrameWriter:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rtda-frames")
        return self

    def write(self, name: str, image: np.ndarray) -> None:
        """Write uint8 (H, W, 3) BGR; an earlier frame's error comes out here.

        Raises:
            FileAccessError: If the disk is full; it says how much is needed.
        """
        if len(self._pending) >= _AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._store, self._folder / name, image))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            while self._pending:
                done = self._pending.popleft()
                if error is not None:
                    done.cancel()
                else:
                    done.result()
        finally:
            self._pool.shutdown()

    def _store(self, path: Path, image: np.ndarray) -> None:
        encoded, content = self._cv2.imencode(".png", image, self._fast)
        if not encoded:
            raise DataError(f"cannot encode {path.name} as PNG", hint="memory may be short (free -h); run it again")
        self._bytes, self._written = self._bytes + len(content), self._written + 1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.tobytes())
        except OSError as err:
            needed = self._bytes / self._written * self._total / 1e6
            raise cannot_keep(
                err, self._folder.parent.parent, f"{self._total} frames are looked at, which may take {needed:.1f} MB"
            ) from err
