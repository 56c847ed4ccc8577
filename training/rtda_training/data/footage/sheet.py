"""A picture of a choice: what of the footage was kept, what was dropped and why, seen in five seconds.

On top the whole footage as a strip, each column of it as high as what became of its frames; below the frames that were
kept, in the order of time, and examples of those that were dropped, a row for each reason.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from rtda_deploy.optional import require
from rtda_training.data.footage.thumbnails import Thumbnails

__all__ = ["contact_sheet", "jpeg"]

_KEPT = ""  # the reason of a frame that is kept
_COLUMNS, _KEPT_ROWS = 8, 6  # of small pictures
_TILE_PX, _GAP_PX, _MARGIN_PX = 160, 8, 24
_WIDTH_PX = 2 * _MARGIN_PX + _COLUMNS * _TILE_PX + (_COLUMNS - 1) * _GAP_PX
_STRIP_PX = 64
_LINE_PX = 22
_QUALITY = 85  # of JPEG
_PAPER, _INK, _SOFT, _EDGE = (255, 255, 255), (40, 34, 30), (120, 112, 106), (214, 208, 204)
# BGR, after Okabe and Ito, which people who are colour-blind can tell apart; drawn in this order, from below.
_COLOURS: Dict[str, Tuple[int, int, int]] = {
    _KEPT: (115, 158, 0),
    "less diverse": (233, 180, 86),
    "near-duplicate": (205, 198, 192),
    "blurred": (0, 110, 230),
    "bright": (66, 228, 240),
    "dark": (70, 58, 54),
}
_OTHER = (167, 121, 204)  # of a reason that has no colour here


def contact_sheet(
    title: str,
    times_s: Sequence[float],
    reasons: Sequence[str],
    thumbnails: Thumbnails,
    *,
    why: Mapping[str, str] = {},
    recordings: Sequence[Tuple[str, float]] = (),
) -> np.ndarray:
    """Draw what was chosen.

    Args:
        title: What the footage is called.
        times_s: When each frame that was looked at is shown, ascending, all recordings one behind the other.
        reasons: Why each was dropped; empty for those that were kept.
        thumbnails: Pictures by the places of these frames; those that are missing are not shown.
        why: What a reason means.
        recordings: Name and beginning of each, in seconds, where there are several.

    Returns:
        uint8 (H, 1384, 3) BGR.
    """
    counts = Counter(reasons)
    order = [reason for reason in _COLOURS if counts[reason]] + sorted(set(counts) - set(_COLOURS))
    long = bool(times_s) and times_s[-1] >= 3600
    parts = [_heading(title, counts[_KEPT], times_s, long), _strip(times_s, reasons, order, recordings, long)]
    parts.append(_legend(order, counts))
    for reason in [_KEPT, *(reason for reason in order if reason)]:
        places = [place for place, own in enumerate(reasons) if own == reason]
        shown = _spread([place for place in places if place in thumbnails], _COLUMNS * (1 if reason else _KEPT_ROWS))
        if shown:
            parts.append(_section(reason, len(places), len(shown), why.get(reason, "")))
            parts.append(_tiles([(_clock(times_s[place], long), thumbnails.picture(place)) for place in shown]))
    parts.append(_paper(_MARGIN_PX - _GAP_PX))
    return np.vstack(parts)


def jpeg(drawn: np.ndarray) -> bytes:
    """A sheet as the content of a file."""
    cv2: Any = require("cv2", extra="training")
    return bytes(cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())


def _heading(title: str, kept: int, times_s: Sequence[float], long: bool) -> np.ndarray:
    part = _paper(_MARGIN_PX + 58)
    _write(part, _fitting(title, _WIDTH_PX - 2 * _MARGIN_PX, 0.85), (_MARGIN_PX, _MARGIN_PX + 20), _INK, 0.85, 2)
    length = f", over {_clock(times_s[-1], long, short=True)}" if len(times_s) > 1 else ""
    text = f"kept {kept:,} of {len(times_s):,} frames that were looked at{length}"
    _write(part, text, (_MARGIN_PX, _MARGIN_PX + 46), _SOFT)
    return part


def _strip(
    times_s: Sequence[float],
    reasons: Sequence[str],
    order: Sequence[str],
    recordings: Sequence[Tuple[str, float]],
    long: bool,
) -> np.ndarray:
    """The footage from left to right: of each column's frames, the shares of what became of them."""
    width = _WIDTH_PX - 2 * _MARGIN_PX
    named = len(recordings) > 1
    top = _LINE_PX if named else 4
    part = _paper(top + _STRIP_PX + _LINE_PX + 4)
    end = (times_s[-1] * len(times_s) / max(1, len(times_s) - 1) if times_s else 0.0) or 1.0
    levels = _levels(np.asarray(times_s) / end * width, reasons, order, width)
    rows = np.arange(_STRIP_PX - 0.5, 0, -1)[:, None] / _STRIP_PX
    for low, high, reason in zip([np.zeros(width), *levels], levels, order):
        where = (rows >= low) & (rows < high)
        part[top : top + _STRIP_PX, _MARGIN_PX : _MARGIN_PX + width][where] = _colour(reason)
    step = _tick(end)
    for number in range(int(end / step) + 1):
        x = _MARGIN_PX + round(number * step / end * width)
        part[top + _STRIP_PX : top + _STRIP_PX + 5, min(x, _MARGIN_PX + width - 1)] = _SOFT
        text = _clock(number * step, long, short=True)
        if x + 40 < _WIDTH_PX:
            _write(part, text, (x, top + _STRIP_PX + _LINE_PX - 3), _SOFT, 0.42)
    for place, (name, begins_s) in enumerate(recordings if named else ()):
        x = _MARGIN_PX + round(begins_s / end * width)
        until = recordings[place + 1][1] if place + 1 < len(recordings) else end
        part[2 : top + _STRIP_PX, min(x, _MARGIN_PX + width - 1)] = _INK
        _write(part, _fitting(name, (until - begins_s) / end * width - 10), (x + 5, _LINE_PX - 7), _INK, 0.42)
    return part


def _levels(at: np.ndarray, reasons: Sequence[str], order: Sequence[str], width: int) -> List[np.ndarray]:
    """For each reason the height that it reaches up to in each column, 0 to 1, on top of those before it."""
    if not len(at):
        return [np.zeros(width) for _ in order]
    kinds = np.array([order.index(reason) for reason in reasons])
    counts = np.zeros((len(order), width))
    np.add.at(counts, (kinds, np.minimum(at.astype(int), width - 1)), 1.0)
    columns = np.arange(width)
    before = np.maximum(np.searchsorted(at, columns, side="right") - 1, 0)
    empty = counts.sum(axis=0) == 0
    counts[kinds[before[empty]], columns[empty]] = 1.0  # between two frames the one before lasts
    return list(np.cumsum(counts / counts.sum(axis=0), axis=0) + 1e-9)


def _legend(order: Sequence[str], counts: Mapping[str, int]) -> np.ndarray:
    part = _paper(_LINE_PX + 10)
    x = _MARGIN_PX
    for reason in order:
        part[6:18, x : x + 12] = _colour(reason)
        x = _write(part, f"{reason or 'kept'} {counts[reason]:,}", (x + 18, 17), _INK) + 24
    return part


def _section(reason: str, count: int, shown: int, why: str) -> np.ndarray:
    part = _paper(_LINE_PX + 16)
    part[12:28, _MARGIN_PX : _MARGIN_PX + 5] = _colour(reason)
    few = f"{count:,}, of which {shown}" if shown < count else f"{count:,}"
    x = _write(part, f"{reason or 'kept'}", (_MARGIN_PX + 13, 26), _INK, 0.58, 2)
    x = _write(part, few, (x + 10, 26), _INK)
    if why:
        _write(part, _fitting(why, _WIDTH_PX - _MARGIN_PX - x - 24), (x + 18, 26), _SOFT)
    return part


def _tiles(tiles: Sequence[Tuple[str, np.ndarray]]) -> np.ndarray:
    """Small pictures in rows, each with its time."""
    cv2: Any = require("cv2", extra="training")
    height = max(24, min(2 * _TILE_PX, max(round(_TILE_PX * tile.shape[0] / tile.shape[1]) for _, tile in tiles)))
    rows = []
    for start in range(0, len(tiles), _COLUMNS):
        row = _paper(height + _GAP_PX)
        for column, (text, picture) in enumerate(tiles[start : start + _COLUMNS]):
            x = _MARGIN_PX + column * (_TILE_PX + _GAP_PX)
            own = min(height, max(1, round(_TILE_PX * picture.shape[0] / picture.shape[1])))
            tile = cv2.resize(picture, (_TILE_PX, own), interpolation=cv2.INTER_AREA)
            row[:own, x : x + _TILE_PX] = tile
            cv2.rectangle(row, (x, 0), (x + _TILE_PX - 1, own - 1), _EDGE, 1)
            wide = _text_px(text, 0.4)
            row[height - 16 : height, x : x + wide + 8] = row[height - 16 : height, x : x + wide + 8] // 4
            _write(row, text, (x + 4, height - 4), _PAPER, 0.4)
        rows.append(row)
    return np.vstack(rows)


def _write(
    part: np.ndarray, text: str, at: Tuple[int, int], colour: Tuple[int, int, int], scale: float = 0.5, bold: int = 1
) -> int:
    """Write a line in place, its left end on the base line at x, y; gives where it ends."""
    cv2: Any = require("cv2", extra="training")
    plain = _ascii(text)
    cv2.putText(part, plain, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, bold, cv2.LINE_AA)
    return at[0] + _text_px(plain, scale, bold)


def _text_px(text: str, scale: float, bold: int = 1) -> int:
    cv2: Any = require("cv2", extra="training")
    return int(cv2.getTextSize(_ascii(text), cv2.FONT_HERSHEY_SIMPLEX, scale, bold)[0][0])


def _ascii(text: str) -> str:
    """The font of OpenCV 4 has nothing else."""
    return text.encode("ascii", "replace").decode()


def _fitting(text: str, width: float, scale: float = 0.5) -> str:
    while text and _text_px(text, scale) > width:
        text = text[:-4] + "..." if len(text) > 4 else ""
    return text


def _clock(seconds: float, long: bool, short: bool = False) -> str:
    """``1:23.4``, in a long recording ``1:02:03``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    if long:
        return f"{minutes // 60}:{minutes % 60:02}:{rest // 10:02}"
    return f"{minutes}:{rest // 10:02}" if short and not rest % 10 else f"{minutes}:{rest / 10:04.1f}"


def _tick(length_s: float) -> float:
    """Seconds between the times below the strip, about ten of them."""
    for step in (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600):
        if length_s / step <= 14:
            return float(step)
    return 3600.0 * max(1, round(length_s / 3600 / 12))


def _spread(places: Sequence[int], most: int) -> List[int]:
    if len(places) <= most:
        return list(places)
    return [places[number] for number in np.linspace(0, len(places) - 1, most).round().astype(int)]


def _colour(reason: str) -> Tuple[int, int, int]:
    return _COLOURS.get(reason, _OTHER)


def _paper(height: int) -> np.ndarray:
    return np.full((height, _WIDTH_PX, 3), 255, np.uint8)
