"""The contact sheet: the strip is the footage, the rows are what was kept and dropped."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np
import pytest
from training.data.footage.drives import dark, drive, write_drive

from rtda_training.data.address import DataAddress
from rtda_training.data.footage.chosen import chosen_frames
from rtda_training.data.footage.sheet import contact_sheet
from rtda_training.data.footage.thumbnails import Thumbnails

cv2 = pytest.importorskip("cv2")

KEPT, GREY, ORANGE, DARK = (115, 158, 0), (205, 198, 192), (0, 110, 230), (70, 58, 54)
MARGIN, WIDTH = 24, 1384


def pictures(reasons: Sequence[str], height: int = 90) -> Thumbnails:
    """Of one grey level each, that tells the place."""
    found = Thumbnails()
    for place, reason in enumerate(reasons):
        found.add(place, np.full((height, 160, 3), 50 + place % 200, np.uint8), reason or None)
    return found


def sheet(reasons: Sequence[str], thumbnails: Optional[Thumbnails] = None, step_s: float = 1.0) -> np.ndarray:
    times = [step_s * place for place in range(len(reasons))]
    return contact_sheet("drive.mp4", times, reasons, pictures(reasons) if thumbnails is None else thumbnails)


def tiles(drawn: np.ndarray) -> List[int]:
    """The grey levels of the small pictures, row by row: flat squares where a picture's middle is."""
    found = []
    for top in range(170, drawn.shape[0] - 40):
        for column in range(8):
            left = MARGIN + column * 168 + 60
            square = drawn[top : top + 40, left : left + 40]
            flat = square.min() == square.max() and 50 <= square.max() < 250
            above = drawn[top - 1, left : left + 40]
            if flat and not np.array_equal(above, square[0]):
                found.append(int(square[0, 0, 0]))
    return found


def strip(drawn: np.ndarray, share: float) -> np.ndarray:
    """The colours of the strip from its bottom up, so far along the footage."""
    top = MARGIN + 58 + 4
    column: np.ndarray = drawn[top : top + 64, MARGIN + int(share * (WIDTH - 2 * MARGIN))]
    return column[::-1]


def test_the_strip_shows_what_became_of_each_part_of_the_footage() -> None:
    drawn = sheet(["", *["near-duplicate"] * 4, *["blurred"] * 3, "dark", ""])
    for share, colour in ((0.05, KEPT), (0.3, GREY), (0.65, ORANGE), (0.85, DARK), (0.95, KEPT)):
        assert (strip(drawn, share) == colour).all(), share


def test_a_column_that_stands_for_many_frames_shows_their_shares() -> None:
    drawn = sheet(["", "near-duplicate", "near-duplicate", "dark"] * 5000, step_s=0.04)
    column = strip(drawn, 0.5).astype(int)
    shares = [(column == colour).all(axis=1).mean() for colour in (KEPT, GREY, DARK)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.1)
    assert (column[0] == KEPT).all() and (column[-1] == DARK).all()


def test_kept_frames_stand_in_the_order_of_time_and_below_them_those_dropped() -> None:
    reasons = ["dark", "", "near-duplicate", "", "near-duplicate", ""]
    assert tiles(sheet(reasons)) == [51, 53, 55, 52, 54, 50]


def test_of_many_frames_as_many_are_shown_as_fit_evenly_spread() -> None:
    drawn = sheet([*[""] * 190, *["dark"] * 10])
    shown = tiles(drawn)
    assert len(shown) == 48 + 8 and drawn.shape[0] < 1300
    assert shown[:48] == sorted(shown[:48]) and shown[0] == 50 and shown[47] == 50 + 189
    assert max(np.diff(shown[:48])) <= 5


def test_one_frame_makes_a_sheet_and_so_do_none_and_an_unknown_reason() -> None:
    assert tiles(sheet([""])) == [50]
    assert sheet([]).shape[1] == WIDTH
    assert tiles(sheet(["", "rain"])) == [50, 51]


def test_a_frame_without_a_picture_is_counted_and_not_shown() -> None:
    assert tiles(sheet(["", ""], Thumbnails())) == []


@pytest.mark.parametrize("height", [20, 284])
def test_pictures_of_any_shape_fit(height: int) -> None:
    drawn = sheet(["", ""], pictures(["", ""], height))
    assert drawn.dtype == np.uint8 and drawn.shape[0] < 700


def test_a_long_footage_of_several_recordings_is_drawn() -> None:
    times = [20.0 * place for place in range(500)]
    names = [("first.mp4", 0.0), ("a name far too long for the place that it has.mp4", 3600.0), ("ünï.mp4", 4000.0)]
    drawn = contact_sheet("x" * 300, times, [""] * 500, pictures([""] * 500), recordings=names, why={"": "w" * 500})
    assert drawn.shape[1] == WIDTH


def test_pictures_of_dropped_frames_are_few_and_evenly_spread() -> None:
    found = pictures(["near-duplicate"] * 10_000)
    kept = [place for place in range(10_000) if place in found]
    assert 32 <= len(kept) <= 64 and len(set(np.diff(kept))) == 1 and kept[-1] > 9_500
    assert abs(int(found.picture(kept[3])[0, 0, 0]) - (50 + kept[3] % 200)) <= 2


def test_the_sheet_of_footage_lies_beside_its_frames(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    video = write_drive(tmp_path / "drive.mp4", [*drive(2), *[dark()] * 10])
    chosen = chosen_frames(DataAddress.parse(f"video:{video}"))
    drawn = cv2.imread(str(chosen.sheet))
    assert drawn.shape[1] == WIDTH
    for share, colour in ((0.1, KEPT), (0.97, DARK)):
        assert np.abs(strip(drawn, share)[20:40].astype(int) - colour).max() < 20
    assert not chosen_frames(DataAddress.parse(f"video:{video}?select=none")).sheet.exists()
