"""The page of ``eval``: its figures by their names, the worst and the best picture, short addresses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
from runtime.models import tiny_spec

from rtda_deploy.report import short
from rtda_export.parity.extremes import Extremes, ScoredPicture
from rtda_export.parity.page import save_evaluation
from rtda_export.parity.scoring import Evaluation
from rtda_training.metrics import ConfusionMatrix

ADDRESS = "folder:/home/somebody/a/very/long/way/down/to/footage?split=test"


def picture(extremes: Extremes, name: str, wrong_rows: int, *, labelled: bool = True) -> None:
    """Forty rows of class 1, of which so many are taken for class 2."""
    truth = np.full((40, 60), 1 if labelled else 255, np.uint8)
    mask = np.full((40, 60), 1, np.uint8)
    mask[:wrong_rows] = 2
    extremes.add(name, np.full((40, 60, 3), wrong_rows, np.uint8), mask, truth)


def extremes_of(*wrong_rows: int) -> tuple[ScoredPicture, ...]:
    extremes = Extremes()
    for number, rows in enumerate(wrong_rows):
        picture(extremes, f"/home/somebody/a/very/long/way/down/to/footage/{number}.png", rows)
    return extremes.pictures()


def test_the_worst_and_the_best_picture_are_kept() -> None:
    worst, best = extremes_of(10, 30, 4, 20)
    assert (worst.name[-5:], best.name[-5:]) == ("1.png", "2.png")
    assert (worst.right, best.right) == (0.25, 0.9)
    assert (worst.frame == 30).all() and (worst.mask[:30] == 2).all() and (worst.truth == 1).all()


def test_a_picture_without_a_scored_pixel_is_neither() -> None:
    extremes = Extremes()
    picture(extremes, "blank", 0, labelled=False)
    assert extremes.pictures() == ()
    picture(extremes, "only", 10)
    assert [kept.name for kept in extremes.pictures()] == ["only"]


def test_wide_pictures_are_kept_small() -> None:
    extremes = Extremes()
    truth = np.zeros((1024, 2048), np.uint8)
    extremes.add("wide", np.zeros((512, 1024, 3), np.uint8), truth, truth)
    kept = extremes.pictures()[0]
    assert kept.frame.shape == (320, 640, 3) and kept.mask.shape == kept.truth.shape == (320, 640)


def page_of(tmp_path: Path, extremes: tuple[ScoredPicture, ...]) -> str:
    spec = tiny_spec()
    confusion = ConfusionMatrix(spec.num_classes)
    for kept in extremes:
        confusion.add(kept.truth, kept.mask)
    scores = confusion.scores(spec.class_names)
    found = Evaluation(
        model="/home/somebody/last.pth",
        data=ADDRESS,
        pictures=len(extremes),
        scores=scores,
        confusion=confusion.counts,
        spec=spec,
        palette=spec.palette,
        extremes=extremes,
        labelled=scores.pixels,
    )
    save_evaluation(found, tmp_path)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_both_pictures_and_names_its_figures(tmp_path: Path) -> None:
    page = page_of(tmp_path, extremes_of(10, 30, 4, 20))
    assert "Worst: …/a/very/long/way/down/to/footage/1.png: 25.0 % of the scored pixels are right" in page
    assert "Best: …/a/very/long/way/down/to/footage/2.png: 90.0 % of the scored pixels are right" in page
    assert page.count('<img alt="') == 2 and "mIoU, mean over all classes" in page
    shown, data = page.split('<script type="application/json"')
    assert "pixel_accuracy" not in shown and "/home/somebody" not in shown and ADDRESS in data
    assert json.loads((tmp_path / "results.json").read_text())["data"] == ADDRESS
    assert [name for name in tiny_spec().class_names if f"</span>{name}</li>" in shown] == ["building", "sky"]


def test_wrong_pixels_are_red_in_the_last_tile(tmp_path: Path) -> None:
    import base64

    page = page_of(tmp_path, extremes_of(10, 30))
    content = re.search(r"data:image/jpeg;base64,([^\"]+)", page)
    assert content
    sheet = cv2.imdecode(np.frombuffer(base64.b64decode(content[1]), np.uint8), cv2.IMREAD_COLOR).astype(int)
    tile = sheet[sheet.shape[0] // 2 + 3 :, sheet.shape[1] // 2 + 3 :]
    red = (tile[..., 2] > 180) & (tile[..., 1] < 90)
    assert abs(red.mean() - 0.75) < 0.06, "30 of 40 rows, but for the title"


def test_long_addresses_keep_their_kind_and_their_end() -> None:
    assert short("toytown:target?split=test") == "toytown:target?split=test"
    assert short(ADDRESS) == "folder:…/long/way/down/to/footage?split=test"
    assert short("/home/somebody/a/very/long/way/down/to/footage/a.png", 30) == "…/way/down/to/footage/a.png"
    assert short("camvid:/x/y?list=" + "z" * 60) == "camvid:…/y?list=" + "z" * 60
