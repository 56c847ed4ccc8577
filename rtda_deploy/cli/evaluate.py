"""``rtda-deploy eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

import typer

if TYPE_CHECKING:
    import numpy as np

    from rtda_deploy.report import ReportPage
    from rtda_export.parity.extremes import ScoredPicture
    from rtda_export.parity.scoring import Evaluation
    from rtda_training.readers import LabelledSet

__all__ = ["evaluate", "save_evaluation", "scored_text"]

_LITTLE = 80.0  # percent of the labelled pixels: below it, the figures are of a part of the pictures


def evaluate(
    model: Path = typer.Argument(..., help="A .pth, an .onnx or an engine."),
    data: str = typer.Option(..., help="Labelled set, kind:path?key=value; its test split unless it says otherwise."),
    protocol: Optional[int] = typer.Option(None, help="19, 16 or 13: the papers' classes (default: all)."),
    max_pictures: int = typer.Option(0, min=0, help="Score at most this many, spread evenly (default: all)."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a file without one."),
    out: Optional[Path] = typer.Option(None, help="Report folder (default: runs/eval/<time>)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Score a model on labelled pictures: mIoU, IoU per class, pixel accuracy, confusion matrix.

    Example: rtda-deploy eval last.pth --data "toytown:target?split=test"
    """
    from rtda_deploy.cli.outputs import check_eval
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_table, warn
    from rtda_deploy.run_folders import new_run_folder
    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity.scoring import evaluate as score
    from rtda_training.labels import protocol_indices
    from rtda_training.readers import open_labelled

    check_eval(model, data, spec, out)
    with ProgressLines() as lines:
        pictures = open_labelled(
            data, split="test", progress=lambda done, total: lines.update(f"render  {data}", done, total)
        )
        found = score(
            model,
            pictures,
            spec=ModelSpec.load(spec) if spec else None,
            max_pictures=max_pictures,
            progress=lambda done, total: lines.update("eval", done, total),
        )
    chosen = protocol_indices(found.scores.class_names, protocol)
    values = {**found.to_dict(), "protocol": protocol, "protocol_miou": round(100 * found.scores.miou(protocol), 2)}
    folder = save_evaluation(found, out or new_run_folder("eval"))
    if json_:
        print_json({**values, "folder": str(folder)})
    else:
        rows = [(found.scores.class_names[index], 100 * found.scores.iou[index]) for index in chosen]
        print_table(("class", "IoU %"), rows)
        absent = [name for name in found.scores.absent() if name in {row[0] for row in rows}]
        left_out = f" ({', '.join(absent)} not in the labels)" if absent else ""
        print(f"mIoU {values['protocol_miou']:.2f} % over {len(chosen) - len(absent)} classes{left_out}")
        print(f"pixel accuracy {100 * found.scores.pixel_accuracy:.2f} %, {found.pictures} pictures of {found.data}")
        print(scored_text(found))
        if found.joined:
            print(f"{found.joined[0]} joined: {found.joined[1]}")
    if pictures.meaning is not None and pictures.meaning.assumed:
        note(f"no {pictures.meaning.file}: the labels are taken for Cityscapes' 19 classes")
    for text in _doubts(found, pictures):
        warn(text)
    note(f"wrote   {folder}/{{report.html,confusion_matrix.png,results.json}}")


def scored_text(found: Evaluation) -> str:
    """What was scored of what is labelled, and the classes that have no partner on the other side."""
    text = f"scored {found.scored_percent:.2f} % of the labelled pixels"
    sides = {
        "data": "classes of the data that the model does not have",
        "model": "classes of the model that the data does not have",
    }
    told = [f"{sides[side]}: {', '.join(names)}" for side, names in found.without_partner.items() if names]
    return "; ".join([text, *told])


def _doubts(found: Evaluation, pictures: LabelledSet) -> List[str]:
    """What makes the figures say less than they seem to."""
    from rtda_training.data.labels.faults import doubt

    told = []
    if found.scored_percent < _LITTLE:
        share = f"{found.scored_percent:.2f} %"
        told.append(f"only {share} of the labelled pixels were scored: the figures are of those alone")
    against = doubt(found.label_counts, found.pictures, pictures.meaning) if not pictures.without_partner else ""
    return [*told, against] if against else told


def save_evaluation(found: Evaluation, folder: Path) -> Path:
    """Write ``report.html``, ``confusion_matrix.png`` (where matplotlib is installed) and ``results.json``."""
    import json

    from rtda_deploy.files import writable_folder, write_text
    from rtda_deploy.optional import available

    writable_folder(folder)
    write_text(folder / "results.json", json.dumps(found.to_dict(), indent=2) + "\n")
    _page(found).save(folder / "report.html")
    if available("matplotlib"):
        _confusion_picture(found.confusion, list(found.scores.class_names), folder / "confusion_matrix.png")
    return folder


def _page(found: Evaluation) -> ReportPage:
    from rtda_deploy.report import ReportPage, short

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
    from rtda_deploy.report import short
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
    import numpy as np

    held = np.union1d(picture.mask, picture.truth)
    return [int(index) for index in held if index != 255]


def _confusion_picture(confusion: np.ndarray, names: List[str], path: Path) -> None:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from rtda_deploy.files import atomic_path

    share = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    side = 2.5 + 0.42 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="viridis", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row in range(len(names)):
        for column in range(len(names)):
            if share[row, column] >= 0.01:
                colour = "black" if share[row, column] > 0.6 else "white"
                text = f"{100 * share[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
