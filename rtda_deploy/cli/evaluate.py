"""``rtda-deploy eval``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, List, Mapping, Optional, Sequence

import typer

if TYPE_CHECKING:
    from rtda_deploy.cli.terminal.console import ProgressLines
    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity.scoring import Evaluation
    from rtda_training.judge.flicker import Flicker
    from rtda_training.readers import LabelledSet

__all__ = ["evaluate"]

_LITTLE = 80.0  # percent of the labelled pixels: below it, the figures are of a part of the pictures


def evaluate(
    models: List[Path] = typer.Argument(
        ..., help="A .pth, an .onnx or an engine; several are compared with the first."
    ),
    data: str = typer.Option(..., help="Labelled set, kind:path?key=value; its test split unless it says otherwise."),
    protocol: Optional[int] = typer.Option(None, help="19, 16 or 13: the papers' classes (default: all)."),
    group: Optional[List[str]] = typer.Option(
        None, help="Score these classes as one too: drivable=road,parking. May be repeated."
    ),
    flicker: str = typer.Option(
        "", help="Consecutive footage (a video, a bag, DATA): also how many pixels change class from frame to frame."
    ),
    max_pictures: int = typer.Option(0, min=0, help="Score at most this many, spread evenly (default: all)."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a file without one."),
    out: Optional[Path] = typer.Option(None, help="Report folder (default: runs/eval/<time>)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Score a model on labelled pictures: mIoU, IoU per class, accuracy, borders, calibration, confusion matrix.

    Several models get one table, with what each gains over the first and a paired interval over the pictures.

    Example: rtda-deploy eval last.pth --data "toytown:target?split=test"
    """
    from rtda_deploy.cli.outputs import check_eval
    from rtda_deploy.cli.terminal.console import ProgressLines, note, warn
    from rtda_deploy.run_folders import new_run_folder
    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity.scoring import evaluate as score
    from rtda_training.readers import open_labelled

    check_eval(models, data, spec, out, flicker)
    found: List[Evaluation] = []
    own_spec = ModelSpec.load(spec) if spec else None
    with ProgressLines() as lines:
        pictures = open_labelled(
            data, split="test", progress=lambda done, total: lines.update(f"render  {data}", done, total)
        )
        measured = _flicker(models, flicker, own_spec, lines)  # first: footage that cannot be used costs no scores
        for model in models:
            name = "eval" if len(models) == 1 else f"eval    {model}"
            found.append(
                score(
                    model,
                    pictures,
                    spec=own_spec,
                    max_pictures=max_pictures,
                    groups=group or (),
                    progress=lambda done, total, name=name: lines.update(name, done, total),  # type: ignore[misc]
                )
            )
        found = [dataclasses.replace(each, flicker=(own, flicker)) for each, own in zip(found, measured)] or found
    folder = (_tell_one if len(found) == 1 else _tell_several)(found, protocol, out or new_run_folder("eval"), json_)
    if pictures.meaning is not None and pictures.meaning.assumed:
        note(f"no {pictures.meaning.file}: the labels are taken for Cityscapes' 19 classes")
    for text in dict.fromkeys(text for each in found for text in _doubts(each, pictures)):
        warn(text)
    note(f"wrote   {folder}/{{report.html,results.json}}")


def _flicker(models: Sequence[Path], footage: str, spec: Optional[ModelSpec], lines: ProgressLines) -> List[Flicker]:
    """How much each model flickers, on at most ten seconds of the footage; nothing without any."""
    from rtda_export.parity.flickering import measure_flicker

    if not footage:
        return []
    return measure_flicker(models, footage, spec=spec, progress=lambda done, most: lines.update("flicker", done, most))


def _tell_one(models: Sequence[Evaluation], protocol: Optional[int], folder: Path, json_: bool) -> Path:
    from rtda_deploy.cli.terminal.console import print_json
    from rtda_export.parity.page import save_evaluation
    from rtda_training.labels import protocol_indices

    (found,) = models
    chosen = protocol_indices(found.scores.class_names, protocol)
    values = {**found.to_dict(), "protocol": protocol, "protocol_miou": round(100 * found.scores.miou(protocol), 2)}
    save_evaluation(found, folder)
    if json_:
        print_json({**values, "folder": str(folder)})
    else:
        _show(found, chosen, values["protocol_miou"])
    return folder


def _tell_several(found: Sequence[Evaluation], protocol: Optional[int], folder: Path, json_: bool) -> Path:
    from rtda_deploy.cli.terminal.console import print_json, print_table
    from rtda_export.parity.several import compared, compared_lines, remarks, save_compared

    values = compared(found, protocol)
    save_compared(found, values, folder)
    if json_:
        print_json({**values, "folder": str(folder)})
        return folder
    print_table(*compared_lines(values))
    for text in remarks(values):
        print(text)
    return folder


def _show(found: Evaluation, chosen: Sequence[int], miou: float) -> None:
    from rtda_deploy.cli.terminal.console import print_table
    from rtda_export.parity.page import scored_text

    rows = [(found.scores.class_names[index], 100 * found.scores.iou[index]) for index in chosen]
    print_table(("class", "IoU %"), rows)
    absent = [name for name in found.scores.absent() if name in {row[0] for row in rows}]
    left_out = f" ({', '.join(absent)} not in the labels)" if absent else ""
    print(f"mIoU {miou:.2f} % over {len(chosen) - len(absent)} classes{left_out}")
    print(f"pixel accuracy {100 * found.scores.pixel_accuracy:.2f} %, {found.pictures} pictures of {found.data}")
    borders, error = found.to_dict()["boundary_f1"], found.to_dict()["calibration_error"]
    if borders is not None:
        print(f"boundary F1 {borders:.2f} %, mean over classes")
    print("calibration error " + ("not known: the model gives masks only" if error is None else f"{error:.2f} %"))
    if found.flicker:
        print(_flicker_text(*found.flicker))
    for group in found.groups:
        print(_group_text(group.name, group.to_dict()))
    print(scored_text(found))
    if found.joined:
        print(f"{found.joined[0]} joined: {found.joined[1]}")


def _flicker_text(flicker: Flicker, footage: str) -> str:
    known = [(value, name) for name, value in flicker.by_class.items() if value is not None]
    worst = ", ".join(f"{name} {100 * value:.1f}" for value, name in sorted(known, reverse=True)[:3])
    left_out = f", {flicker.left_out} left out" if flicker.left_out else ""
    return (
        f"flicker {100 * flicker.share:.2f} % of the pixels change class from frame to frame ({worst}); "
        f"{flicker.pairs} pairs of {footage}{left_out}"
    )


def _group_text(name: str, percent: Mapping[str, Optional[float]]) -> str:
    told = {"iou": "IoU", "false_rate": f"of the other pixels called {name}", "missed_rate": "of its own missed"}
    parts = [f"{text} –" if percent[key] is None else f"{percent[key]:.2f} % {text}" for key, text in told.items()]
    return f"{name}: {', '.join(parts)}"


def _doubts(found: Evaluation, pictures: LabelledSet) -> List[str]:
    """What makes the figures say less than they seem to."""
    from rtda_training.data.labels.faults import doubt
    from rtda_training.judge.own_masks import uncorrected

    told = list(uncorrected(pictures))
    if found.scored_percent < _LITTLE:
        share = f"{found.scored_percent:.2f} %"
        told.append(f"only {share} of the labelled pixels were scored: the figures are of those alone")
    against = doubt(found.label_counts, found.pictures, pictures.meaning) if not pictures.without_partner else ""
    return [*told, against] if against else told
