"""The pages of ``verify`` and ``eval``.

``verify.html``: how far two models are apart, on which picture, in which classes. ``report.html`` of ``eval``: a
model's scores on a labelled set, its worst and its best picture, what is taken for what.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import List, Tuple

import numpy as np

from rtda_deploy.files import writable_folder, write_text
from rtda_deploy.optional import require
from rtda_deploy.report import ReportPage, short
from rtda_deploy.spec import ModelSpec
from rtda_export.parity.extremes import ScoredPicture
from rtda_export.parity.report import ParityReport, exponent, percent
from rtda_export.parity.scoring import Evaluation

__all__ = ["disagreement_picture", "save_evaluation", "save_page", "scored_text"]

_MARK_BGR = (255, 0, 255)  # magenta: in no usual palette's road, sky or trees, and seen by every kind of colour vision
_TILE_WIDTH = 640


def save_page(
    path: Path, report: ParityReport, spec: ModelSpec, worst: Tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Path:
    """Write the page of a comparison; ``worst`` is the worst frame with both its masks."""
    sign = "=" if report.passed else "≠"
    page = ReportPage(f"{report.a} {sign} {report.b}", _subtitle(report, spec))
    page.text(_verdict(report))
    page.table(["", "found", "limit", ""], _limit_rows(report))
    name = report.frames[report.worst].name
    page.heading(f"Worst picture: {name}")
    page.picture(
        disagreement_picture(*worst, spec),
        f"The frame, the mask of {report.a}, the mask of {report.b}, and in magenta every pixel whose class differs "
        "(grown to be seen where few). Thin lines along edges are rounding; filled areas are a fault.",
    )
    page.heading("Pictures")
    rows = [[frame.name, exponent(frame.max_abs), percent(frame.agreement)] for frame in report.frames]
    page.table(["picture", "max |Δlogit|", "pixels agree"], rows)
    page.heading("Classes")
    page.table(["class", "pixels", "agree", "IoU of both masks"], _class_rows(report))
    page.matrix(
        spec.class_names,
        report.confusion,
        caption=f"Where each class of {report.a} (rows) went in {report.b} (columns), percent of the row.",
    )
    page.data(report.to_dict())
    return page.save(path)


def disagreement_picture(frame: np.ndarray, mask_a: np.ndarray, mask_b: np.ndarray, spec: ModelSpec) -> bytes:
    """PNG of four tiles: frame, both masks in the spec's palette, and where the masks differ.

    Args:
        frame: uint8 (H, W, 3) BGR.
        mask_a: uint8 (H, W), class of each pixel.
        mask_b: uint8 (H, W), class of each pixel.
        spec: For its palette.
    """
    cv2 = require("cv2", extra="runtime", purpose="to draw the comparison")
    height, width = frame.shape[:2]
    tile = (_TILE_WIDTH, max(1, round(height * _TILE_WIDTH / width)))
    colours = np.asarray(spec.palette, np.uint8)[:, ::-1]
    faint = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) // 3 + 32
    marks = (mask_a != mask_b).astype(np.uint8)
    grow = 2 * max(1, round(width / _TILE_WIDTH)) + 1
    if marks.mean() < 0.02:  # single pixels; larger areas are seen as they are
        marks = cv2.dilate(marks, np.ones((grow, grow), np.uint8))
    faint[marks > 0] = _MARK_BGR
    shrink = cv2.INTER_AREA if width > _TILE_WIDTH else cv2.INTER_NEAREST
    tiles = [
        cv2.resize(picture, tile, interpolation=shrink) for picture in (frame, colours[mask_a], colours[mask_b], faint)
    ]
    gap = np.full((tile[1], 6, 3), 128, np.uint8)
    rows = [np.hstack([left, gap, right]) for left, right in (tiles[:2], tiles[2:])]
    sheet = np.vstack([rows[0], np.full((6, rows[0].shape[1], 3), 128, np.uint8), rows[1]])
    encoded, content = cv2.imencode(".png", sheet)
    assert encoded, "OpenCV encodes every uint8 picture as PNG"
    return bytes(content)


def _subtitle(report: ParityReport, spec: ModelSpec) -> str:
    height, width = spec.size_hw
    return f"{len(report.frames)} pictures · network input {width}x{height} · {spec.num_classes} classes"


def _verdict(report: ParityReport) -> str:
    if report.missed:
        return f"{report.b} is past its limit ({report.limit.name}): {'; '.join(report.missed)}."
    if report.pixels_differing == 0:
        return f"All {report.pixels} pixels have the same class on both sides."
    return (
        f"{report.pixels_differing} of {report.pixels} pixels differ, which the limit for {report.limit.name} allows."
    )


def _limit_rows(report: ParityReport) -> list[list[str]]:
    agreement = [
        "pixels with the same class",
        percent(report.agreement),
        percent(report.limit.agreement),
        _mark(report.agreement >= report.limit.agreement),
    ]
    relative, logit = report.relative, report.limit.logit
    if relative is None or report.logit_range is None:  # a side gives masks only
        return [agreement]
    return [
        [
            "largest logit difference, share of the range",
            f"{relative:.1e}",
            "none" if logit is None else f"{logit:.0e}",
            "" if logit is None else _mark(relative <= logit),
        ],
        agreement,
        ["largest logit difference", exponent(report.max_abs), "", ""],
        ["logit range", f"{report.logit_range:.3g}", "", ""],
    ]


def _mark(good: bool) -> str:
    return "✓ kept" if good else "✗ missed"


def _class_rows(report: ParityReport) -> list[list[object]]:
    return [
        [
            entry.name,
            entry.pixels,
            None if entry.agreement is None else percent(entry.agreement),
            None if entry.iou is None else percent(entry.iou),
        ]
        for entry in report.classes
    ]


def save_evaluation(found: Evaluation, folder: Path) -> Path:
    """Write ``report.html`` and ``results.json``."""
    writable_folder(folder)
    write_text(folder / "results.json", json.dumps(found.to_dict(), indent=2) + "\n")
    _page(found).save(folder / "report.html")
    return folder


def scored_text(found: Evaluation) -> str:
    """What was scored of what is labelled, and the classes that have no partner on the other side."""
    text = f"scored {found.scored_percent:.2f} % of the labelled pixels"
    sides = {
        "data": "classes of the data that the model does not have",
        "model": "classes of the model that the data does not have",
    }
    told = [f"{sides[side]}: {', '.join(names)}" for side, names in found.without_partner.items() if names]
    return "; ".join([text, *told])


def _page(found: Evaluation) -> ReportPage:
    names, summary = list(found.scores.class_names), found.scores.to_dict()
    page = ReportPage(f"Evaluation of {Path(found.model).name}", f"{found.pictures} pictures of {short(found.data)}")
    rows = [[_figure_name(key), summary[key]] for key in summary if key not in ("iou", "pixels")]
    page.table(["", "%"], rows + _more_rows(found))
    text = scored_text(found)
    page.text(f"{text[0].upper()}{text[1:]}.")
    if found.joined:
        page.text(f"Classes differ; {found.joined[0]} were joined: {found.joined[1]}.")
    _sights(page, found)
    page.heading("IoU per class")
    known = sorted((name for name in names if summary["iou"][name] is not None), key=lambda name: -summary["iou"][name])
    page.bars(known, [summary["iou"][name] for name in known], unit="%")
    page.heading("Confusion matrix")
    page.matrix(
        names, found.confusion.tolist(), caption="Rows: true class. Columns: predicted class. Percent of the row."
    )
    page.data(found.to_dict())
    return page


def _more_rows(found: Evaluation) -> List[List[object]]:
    """Borders, calibration and groups, as far as they are known."""
    values = found.to_dict()
    rows: List[List[object]] = [
        ["boundary F1, mean over classes, within 0.75 % of the diagonal", values["boundary_f1"]],
        ["calibration error, confidence against the share that is right", values["calibration_error"]],
    ]
    if values["flicker"]:
        told = f"flicker: pixels that change class from frame to frame, {values['flicker']['pairs']} pairs"
        rows.append([f"{told} of {short(values['flicker']['footage'])}", values["flicker"]["percent"]])
    for name, figures in values["groups"].items():
        rows.append([f"IoU of {name} as one class", figures["iou"]])
        rows.append([f"false {name}: other pixels called {name}", figures["false_rate"]])
        rows.append([f"missed {name}: its pixels called something else", figures["missed_rate"]])
    return [row for row in rows if row[1] is not None]


def _figure_name(key: str) -> str:
    """A figure of the scores as people call it."""
    if key.startswith("miou"):
        return f"mIoU, mean over the papers' {key[4:]} classes" if key[4:] else "mIoU, mean over all classes"
    return {"pixel_accuracy": "pixel accuracy, share of the scored pixels that are right"}.get(key, key)


def _sights(page: ReportPage, found: Evaluation) -> None:
    """The worst and the best picture: with the mask over it, with the truth over it, and what is wrong."""
    from rtda_runtime.sinks.overlay import Overlay
    from rtda_training.pages.sheets import mistakes, sheet

    page.heading("The worst and the best picture" if len(found.extremes) > 1 else "The picture")
    spec = found.spec.replace(class_names=found.scores.class_names, palette=found.palette)
    for title, picture in zip(("Worst", "Best"), found.extremes):
        tiles = [
            ("picture", picture.frame),
            ("predicted", Overlay(spec, legend=False).draw(picture.frame, picture.mask)),
            ("truth", Overlay(spec, legend=False).draw(picture.frame, picture.truth)),
            ("wrong pixels in red", mistakes(picture.frame, picture.mask, picture.truth)),
        ]
        caption = f"{short(picture.name)}: {100 * picture.right:.1f} % of the scored pixels are right"
        page.picture(sheet(tiles, 2), caption=f"{title}: {caption}" if len(found.extremes) > 1 else caption)
    seen = sorted({int(index) for picture in found.extremes for index in _classes_of(picture)})
    page.legend([found.scores.class_names[index] for index in seen], [found.palette[index] for index in seen])


def _classes_of(picture: ScoredPicture) -> List[int]:
    """Indices that its mask or its truth holds, without 255, which is none."""
    held = np.union1d(picture.mask, picture.truth)
    return [int(index) for index in held if index != 255]
