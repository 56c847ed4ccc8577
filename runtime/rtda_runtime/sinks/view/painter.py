"""A result as a picture for the view: overlay, mask, side by side, or two models beside each other."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import numpy as np

from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.result import Result
from rtda_runtime.sinks.overlay import Overlay, colorize

__all__ = ["MODES", "Painter"]

MODES = ("overlay", "mask", "side", "compare")

_DIMMED = 0.45  # brightness left in a picture that is not live
_RED = (38, 38, 190)  # BGR
_WHITE = (255, 255, 255)
_FONT_PX = 21.0  # height of a capital letter of FONT_HERSHEY_SIMPLEX at scale 1


class Painter:
    """Draws into memory of its own, which is allocated again only when the size changes. One thread at a time.

    Args:
        spec: Palette.
        alpha: Weight of the mask's colours in the overlay.
        outline: Lines around regions: True, False, or None: where they are hard to see.

    Raises:
        ConfigError: If alpha is not between 0 and 1.
    """

    def __init__(self, spec: ModelSpec, alpha: float = 0.5, outline: Optional[bool] = None) -> None:
        self._blend = Overlay(spec, alpha, legend=False, outline=outline)
        self._table = colorize(np.arange(256, dtype=np.uint8).reshape(256, 1), spec.palette)  # (256, 1, 3) BGR
        self._buffers: Dict[str, np.ndarray] = {}

    def draw(self, result: Result, mode: str, max_width: Optional[int] = None) -> np.ndarray:
        """The picture of one mode, uint8 (h, w, 3) BGR; the next call writes over it.

        Args:
            mode: ``overlay``; ``mask``; ``side``: camera | mask; ``compare``: overlay of the first | of the second
                model, or the overlay alone where the result has no second mask.
            max_width: The whole picture is at most so wide; never enlarged.
        """
        compared = result.compared
        second = mode == "side" or (mode == "compare" and compared is not None)
        height, width = result.mask.shape
        panes = 2 if second else 1
        size_wh = _fit((width, height), None if max_width is None else max_width // panes)
        picture = self._buffer("picture", (size_wh[1], panes * size_wh[0], 3))
        left, right = picture[:, : size_wh[0]], picture[:, size_wh[0] :]
        if mode == "mask":
            self._colours(self._small_mask(result.mask, size_wh), left)
        elif mode == "side":
            self._small_frame(result.frame, size_wh, left)
            self._colours(self._small_mask(result.mask, size_wh), right)
        else:
            self._overlay(result.frame, result.mask, size_wh, left)
            if second and compared is not None:
                self._overlay(result.frame, compared, size_wh, right)
        return picture

    def mark(self, picture: np.ndarray, text: str) -> np.ndarray:
        """Take the colours out of a picture and write over it why it is old; changed in place.

        Args:
            text: ASCII; the font has nothing else.
        """
        cv2: Any = opencv("for the view")
        grey = self._buffer("grey", (*picture.shape[:2], 1))[..., 0]
        cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY, dst=grey)
        cv2.convertScaleAbs(grey, dst=grey, alpha=_DIMMED)
        cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR, dst=picture)
        height, width = picture.shape[:2]
        line_px = max(16, min(56, height // 10))
        scale = 0.6 * line_px / _FONT_PX
        text_px = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
        if text_px > 0.94 * width:
            scale *= 0.94 * width / text_px
            text_px = int(0.94 * width)
        top = height // 2 - line_px
        cv2.rectangle(picture, (0, top), (width, top + 2 * line_px), _RED, cv2.FILLED)
        at = ((width - text_px) // 2, height // 2 + round(scale * _FONT_PX / 2))
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, 2 if line_px > 24 else 1, cv2.LINE_AA)
        return picture

    def _overlay(self, frame: np.ndarray, mask: np.ndarray, size_wh: Tuple[int, int], out: np.ndarray) -> None:
        small = self._small_frame(frame, size_wh, self._buffer("frame", (size_wh[1], size_wh[0], 3)))
        self._blend.draw(small, self._small_mask(mask, size_wh), out=out)

    def _small_frame(self, frame: np.ndarray, size_wh: Tuple[int, int], out: np.ndarray) -> np.ndarray:
        cv2: Any = opencv("for the view")
        if frame.shape[:2] == out.shape[:2]:
            np.copyto(out, frame)
        else:
            cv2.resize(frame, size_wh, dst=out, interpolation=cv2.INTER_AREA)
        return out

    def _small_mask(self, mask: np.ndarray, size_wh: Tuple[int, int]) -> np.ndarray:
        cv2: Any = opencv("for the view")
        if (mask.shape[1], mask.shape[0]) == size_wh:
            return np.ascontiguousarray(mask)
        out = self._buffer("mask", (size_wh[1], size_wh[0], 1))[..., 0]
        cv2.resize(mask, size_wh, dst=out, interpolation=cv2.INTER_NEAREST)
        return out

    def _colours(self, mask: np.ndarray, out: np.ndarray) -> None:
        cv2: Any = opencv("for the view")
        cv2.applyColorMap(mask, self._table, dst=out)

    def _buffer(self, name: str, shape: Tuple[int, ...]) -> np.ndarray:
        found = self._buffers.get(name)
        if found is None or found.shape != shape:
            found = self._buffers[name] = np.empty(shape, np.uint8)
        return found


def _fit(size_wh: Tuple[int, int], max_width: Optional[int]) -> Tuple[int, int]:
    if max_width is None or size_wh[0] <= max_width:
        return size_wh
    return max_width, max(1, round(size_wh[1] * max_width / size_wh[0]))
