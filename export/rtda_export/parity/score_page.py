"""The page of ``eval``: a model's scores on a labelled set, its worst and its best picture, what is taken for what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List

import numpy as np

from rtda_deploy.files import writable_folder, write_text
from rtda_deploy.report import ReportPage, short
from rtda_export.parity.scoring import Evaluation, ScoredPicture

__all__ = ["save_evaluation", "scored_text"]


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
    page.table(["", "%"], [[_figure_name(key), summary[key]] for key in summary if key not in ("iou", "pixels")])
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
