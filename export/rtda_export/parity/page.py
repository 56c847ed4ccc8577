"""``verify.html``: how far two models are apart, on which picture, in which classes."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import numpy as np

from rtda_deploy.optional import require
from rtda_deploy.report import ReportPage
from rtda_deploy.spec import ModelSpec
from rtda_export.parity.report import ParityReport, exponent, percent

__all__ = ["disagreement_picture", "save_page"]

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
