"""The mask in the colours of the data set over the frame, with a legend of what is seen and how much of it."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, FrameError
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.groups import class_shares
from rtda_runtime.mask.preprocess import check_frame
from rtda_runtime.result import Result
from rtda_runtime.sinks.outline import Outline
from rtda_runtime.threads.buffers import BufferPool

__all__ = ["Overlay", "colorize"]

_LEAST_SHARE = 0.001  # classes below a thousandth are left out of the legend
_MOST_ENTRIES = 12  # of the legend; the picture matters more than the classes that fill hardly any of it
_LINES_PER_PICTURE = 27  # text size: so many lines would fill the height
_LEAST_LINE_PX, _MOST_LINE_PX = 12, 40  # below: unreadable; above: in the way
_FONT_PX = 21.0  # height of a capital letter of FONT_HERSHEY_SIMPLEX at scale 1
_SHADE = 0.35  # brightness left under a text box
_WHITE = (255, 255, 255)


class Overlay:
    """Draws results. One thread at a time.

    Args:
        spec: Class names and palette.
        alpha: 0: the frame alone, 1: the mask alone.
        legend: Whether to list the classes seen, largest first, with their share of the labelled pixels.
        titles: What stands below the masks of two networks that are compared.
        outline: True: a line around every region; False: none; None: around regions of classes that are hard to see
            in this picture, see :class:`Outline`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        alpha: float = 0.5,
        *,
        legend: bool = True,
        titles: Tuple[str, str] = ("", ""),
        outline: Optional[bool] = None,
    ) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha must lie between 0 and 1, got {alpha}", hint="0.5 shows both")
        self._spec = spec
        self._alpha = alpha
        self._legend = legend
        self._titles = titles
        self._outline = None if outline is False else Outline(spec.num_classes, always=outline is True)
        self._table = _bgr_table(spec.palette)
        self._scratch = BufferPool()

    def draw(
        self,
        frame: np.ndarray,
        mask: np.ndarray,
        *,
        fps: Optional[float] = None,
        age_ms: Optional[float] = None,
        out: Optional[np.ndarray] = None,
    ) -> np.ndarray:
        """Blend ``mask`` over ``frame``.

        Args:
            frame: uint8 (H, W, 3) BGR; not modified.
            mask: uint8 (H, W) class index. Other values, such as ``ignore_index``, leave the frame as it is.
            fps: Shown in the upper right corner, if given.
            age_ms: Capture to mask; shown beside it.
            out: uint8 (H, W, 3) to draw into; None: a new array.

        Raises:
            FrameError: If the arrays do not fit each other.
        """
        check_frame(frame)
        if mask.dtype != np.uint8 or mask.shape != frame.shape[:2]:
            raise FrameError(
                f"mask is {mask.dtype} {mask.shape}, expected uint8 {frame.shape[:2]} as the frame",
                hint="draw a mask over the frame that it was made of: result.frame and result.mask",
            )
        picture = self._blend(frame, mask, out)
        line_px = _line_px(frame.shape[0])
        if self._legend:
            self._draw_legend(picture, mask, line_px)
        _draw_numbers(picture, fps, age_ms, line_px)
        return picture

    def draw_result(
        self, result: Result, *, fps: Optional[float] = None, out: Optional[np.ndarray] = None
    ) -> np.ndarray:
        """:meth:`draw` for a result, with its age where it has one and is live.

        With the mask of a second network the picture is twice as wide: uint8 (H, 2 W, 3), the second on the right.
        Without ``out`` the picture is in memory of the overlay, which is reused once nothing refers to the picture.
        """
        age_ms = result.timing.get("age") if result.live else None
        height, width = result.mask.shape
        if result.compared is None:
            picture = self._scratch.take((height, width, 3)) if out is None else out
            return self.draw(result.frame, result.mask, fps=fps, age_ms=age_ms, out=picture)
        picture = self._scratch.take((height, 2 * width, 3)) if out is None else out
        for place, mask in enumerate((result.mask, result.compared)):
            half = picture[:, place * width : (place + 1) * width]
            drawn = self.draw(result.frame, mask, fps=fps, age_ms=age_ms, out=self._scratch.take(half.shape))
            _draw_title(drawn, self._titles[place], _line_px(height))
            half[:] = drawn
        return picture

    def _blend(self, frame: np.ndarray, mask: np.ndarray, out: Optional[np.ndarray]) -> np.ndarray:
        cv2: Any = opencv("to draw overlays")
        colours = cv2.applyColorMap(mask, self._table, self._scratch.take(frame.shape))
        unknown = np.greater_equal(mask, self._spec.num_classes, out=self._scratch.take(mask.shape, bool))
        if unknown.any():
            cv2.copyTo(frame, unknown.view(np.uint8), colours)
        picture: np.ndarray = cv2.addWeighted(frame, 1.0 - self._alpha, colours, self._alpha, 0.0, dst=out)
        if self._outline is not None:
            self._outline.draw(picture, frame, mask, colours)
        return picture

    def _draw_legend(self, picture: np.ndarray, mask: np.ndarray, line_px: int) -> None:
        cv2: Any = opencv("to draw overlays")
        entries = self._entries(mask)
        fitting = min(_MOST_ENTRIES, max(1, picture.shape[0] // line_px - 2))
        hidden = len(entries) - fitting
        if hidden > 0:
            entries = entries[: fitting - 1]
        shares = [f"{share:.0%}" if share >= 0.01 else "<1%" for _, share in entries]
        names = [_plain(self._spec.class_names[index]) for index, _ in entries]
        if hidden > 0:
            names.append(f"and {hidden + 1} more")
            shares.append("")
        if not names:
            return
        pad, swatch = line_px // 3, line_px * 2 // 3
        name_px = max(_text_px(name, line_px) for name in names)
        share_px = max(_text_px(share, line_px) for share in shares)
        width = swatch + name_px + share_px + 5 * pad
        left, top = pad, pad
        _shade(picture, left, top, width, line_px * len(names) + pad)
        for row, (name, share) in enumerate(zip(names, shares)):
            base = top + pad // 2 + line_px * (row + 1)
            if row < len(entries):
                colour = tuple(reversed(self._spec.palette[entries[row][0]]))
                end = (left + pad + swatch, base - line_px // 10)
                corner = (left + pad, end[1] - swatch)
                cv2.rectangle(picture, corner, end, colour, cv2.FILLED)
                cv2.rectangle(picture, corner, end, _WHITE, 1)
            _write(picture, name, left + swatch + 2 * pad, base, line_px)
            _write(picture, share, left + width - pad - _text_px(share, line_px), base, line_px)

    def _entries(self, mask: np.ndarray) -> List[Tuple[int, float]]:
        """Classes seen with their share of the labelled pixels, largest first."""
        shares = enumerate(class_shares(mask, self._spec).values())
        return sorted((entry for entry in shares if entry[1] >= _LEAST_SHARE), key=lambda entry: -entry[1])


def colorize(mask: np.ndarray, palette: Sequence[Tuple[int, int, int]], out: Optional[np.ndarray] = None) -> np.ndarray:
    """A class mask uint8 (H, W) in colours: uint8 (H, W, 3) BGR, ready for ``cv2.imwrite``.

    Args:
        palette: RGB per class, as in :class:`ModelSpec`. Indices beyond it become black.
        out: uint8 (H, W, 3) to write into; None: a new array.
    """
    cv2: Any = opencv("to colour masks")
    picture: np.ndarray = cv2.applyColorMap(np.ascontiguousarray(mask), _bgr_table(palette), out)
    return picture


def _bgr_table(palette: Sequence[Tuple[int, int, int]]) -> np.ndarray:
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(palette), 0] = np.asarray(palette, np.uint8)[:, ::-1]
    return table


def _draw_numbers(picture: np.ndarray, fps: Optional[float], age_ms: Optional[float], line_px: int) -> None:
    lines = [f"{fps:.1f} fps"] if fps is not None else []
    lines += [f"age {age_ms:.0f} ms"] if age_ms is not None else []
    if not lines:
        return
    pad = line_px // 3
    width = max(_text_px(line, line_px) for line in lines) + 2 * pad
    left = picture.shape[1] - width - pad
    _shade(picture, left, pad, width, line_px * len(lines) + pad)
    for row, line in enumerate(lines):
        _write(picture, line, left + pad, pad + pad // 2 + line_px * (row + 1), line_px)


def _draw_title(picture: np.ndarray, title: str, line_px: int) -> None:
    if not title:
        return
    text, pad = _plain(title), line_px // 3
    top = picture.shape[0] - line_px - 2 * pad
    _shade(picture, pad, top, _text_px(text, line_px) + 2 * pad, line_px + pad)
    _write(picture, text, 2 * pad, top + pad // 2 + line_px, line_px)


def _line_px(height: int) -> int:
    return max(_LEAST_LINE_PX, min(_MOST_LINE_PX, height // _LINES_PER_PICTURE))


def _scale(line_px: int) -> float:
    return 0.6 * line_px / _FONT_PX  # capitals take six tenths of a line


def _text_px(text: str, line_px: int) -> int:
    cv2: Any = opencv("to draw overlays")
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _scale(line_px), 1)[0][0])


def _write(picture: np.ndarray, text: str, left: int, base: int, line_px: int) -> None:
    cv2: Any = opencv("to draw overlays")
    thickness = 1 if line_px < 28 else 2
    at = (left, base - line_px // 8)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, _scale(line_px), _WHITE, thickness, cv2.LINE_AA)


def _shade(picture: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    """Darken a box, so that white text reads on any picture."""
    cv2: Any = opencv("to draw overlays")
    box = picture[max(0, top) : top + height, max(0, left) : left + width]
    if box.size:
        cv2.addWeighted(box, _SHADE, box, 0.0, 0.0, dst=box)


def _plain(name: str) -> str:
    """The font has ASCII only."""
    return name.encode("ascii", "replace").decode("ascii")
