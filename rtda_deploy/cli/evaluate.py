"""``rtda-deploy eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence

import typer

if TYPE_CHECKING:
    from rtda_export.parity.scoring import Evaluation
    from rtda_training.readers import LabelledSet

__all__ = ["evaluate"]

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
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, warn
    from rtda_deploy.run_folders import new_run_folder
    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity.page import save_evaluation
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
        _show(found, chosen, values["protocol_miou"])
    if pictures.meaning is not None and pictures.meaning.assumed:
        note(f"no {pictures.meaning.file}: the labels are taken for Cityscapes' 19 classes")
    for text in _doubts(found, pictures):
        warn(text)
    note(f"wrote   {folder}/{{report.html,results.json}}")


def _show(found: Evaluation, chosen: Sequence[int], miou: float) -> None:
    from rtda_deploy.cli.terminal.console import print_table
    from rtda_export.parity.page import scored_text

    rows = [(found.scores.class_names[index], 100 * found.scores.iou[index]) for index in chosen]
    print_table(("class", "IoU %"), rows)
    absent = [name for name in found.scores.absent() if name in {row[0] for row in rows}]
    left_out = f" ({', '.join(absent)} not in the labels)" if absent else ""
    print(f"mIoU {miou:.2f} % over {len(chosen) - len(absent)} classes{left_out}")
    print(f"pixel accuracy {100 * found.scores.pixel_accuracy:.2f} %, {found.pictures} pictures of {found.data}")
    print(scored_text(found))
    if found.joined:
        print(f"{found.joined[0]} joined: {found.joined[1]}")


def _doubts(found: Evaluation, pictures: LabelledSet) -> List[str]:
    """What makes the figures say less than they seem to."""
    from rtda_training.data.labels.faults import doubt

    told = []
    if found.scored_percent < _LITTLE:
        share = f"{found.scored_percent:.2f} %"
        told.append(f"only {share} of the labelled pixels were scored: the figures are of those alone")
    against = doubt(found.label_counts, found.pictures, pictures.meaning) if not pictures.without_partner else ""
    return [*told, against] if against else told
