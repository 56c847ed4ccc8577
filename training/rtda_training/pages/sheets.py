"""Pictures for reports: titled tiles in rows, and mistakes marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence, Tuple

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GAP_PX", "WIDTH_PX", "jpeg", "mistakes", "sheet", "tiled"]

WIDTH_PX, GAP_PX = 1286, 6  # of a sheet, and between its tiles


def mistakes(frame: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The picture in grey, wrong pixels in red; where there is no label, dark."""
    import cv2
    import numpy as np

    grey = cv2.cvtColor(cv2.resize(frame, truth.shape[::-1]), cv2.COLOR_BGR2GRAY)
    shown = cv2.cvtColor((96 + grey // 3).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    shown[truth == 255] //= 3
    shown[(mask != truth) & (truth != 255)] = (60, 50, 214)
    return np.asarray(shown)


def sheet(tiles: Sequence[Tuple[str, np.ndarray]], columns: int) -> bytes:
    """A JPEG of titled pictures, uint8 (h, w, 3) BGR, so many in a row."""
    return jpeg(tiled(tiles, columns, (WIDTH_PX - (columns - 1) * GAP_PX) // columns))


def tiled(tiles: Sequence[Tuple[str, np.ndarray]], columns: int, width: int) -> np.ndarray:
    """Titled pictures in rows, all as wide as asked and as high as the first makes them."""
    import cv2
    import numpy as np

    first = tiles[0][1]
    height = max(1, round(width * first.shape[0] / first.shape[1]))
    drawn = []
    for title, picture in tiles:
        way = cv2.INTER_NEAREST if picture.shape[1] < width else cv2.INTER_AREA
        drawn.append(_titled(cv2.resize(picture, (width, height), interpolation=way), title))
    rows = []
    for start in range(0, len(drawn), columns):
        row = drawn[start : start + columns]
        row += [np.full_like(row[0], 127)] * (columns - len(row))
        rows.append(np.hstack([part for tile in row for part in (tile, _bar(height, GAP_PX))][:-1]))
    wide = rows[0].shape[1]
    return np.vstack([part for row in rows for part in (row, _bar(GAP_PX, wide))][:-1])


def _bar(height: int, width: int) -> np.ndarray:
    import numpy as np

    return np.full((height, width, 3), 127, np.uint8)  # grey, between both of the page's backgrounds


def _titled(picture: np.ndarray, title: str) -> np.ndarray:
    """The picture with its title on a dark band in the corner."""
    import cv2

    (wide, high), _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    shown = picture.copy()
    shown[: high + 16, : wide + 20] = shown[: high + 16, : wide + 20] // 4
    cv2.putText(shown, title, (10, high + 7), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return shown


def jpeg(picture: np.ndarray) -> bytes:
    """A picture, uint8 (h, w, 3) BGR, as a file's content."""
    import cv2

    encoded, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert encoded
    return bytes(content.tobytes())
