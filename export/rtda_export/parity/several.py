"""Several models on one set: a table with what each gains over the first, as data, as lines and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from rtda_deploy.files import writable_folder, write_text
from rtda_deploy.report import ReportPage, short
from rtda_export.parity.gains import gain_over
from rtda_export.parity.scoring import Evaluation
from rtda_training.labels import protocol_indices
from rtda_training.metrics import as_percent

__all__ = ["compared", "compared_lines", "remarks", "save_compared"]

_DASH = "–"


def compared(found: Sequence[Evaluation], protocol: Optional[int] = None) -> Dict[str, Any]:
    """JSON-ready: ``data``, ``pictures``, ``protocol``, and ``models``, whose first the others are held against.

    Each model has what ``eval --json`` prints of one, and ``gain``: None for the first and for a model that was scored
    in other classes, else ``points``, ``low`` and ``high`` (interval of 95 %) and ``certain`` (it excludes 0).
    """
    first = found[0]
    models = []
    for each in found:
        gain = gain_over(first, each, protocol) if each is not first else None
        chosen = protocol_indices(each.scores.class_names, protocol)
        borders = as_percent(each.boundary_f1(chosen))
        own = {"protocol_miou": as_percent(each.scores.miou(protocol)), "protocol_boundary_f1": borders}
        models.append({**each.to_dict(), **own, "gain": gain.to_dict() if gain else None})
    return {"data": first.data, "pictures": first.pictures, "protocol": protocol, "models": models}


def compared_lines(values: Mapping[str, Any]) -> Tuple[List[str], List[List[str]]]:
    """Headings, and a line per model; percent."""
    groups = list(values["models"][0]["groups"])
    heads = ["model", "mIoU", "gain", "95 % interval", "pixel accuracy", "boundary F1", "calibration error"]
    heads += [head for name in groups for head in (f"{name} IoU", f"false {name}")]
    heads += ["flicker"] if values["models"][0]["flicker"] else []
    lines = []
    for model in values["models"]:
        moving = [_figure(model["flicker"]["percent"])] if model["flicker"] else []
        figures = [model["protocol_miou"], model["pixel_accuracy"], model["protocol_boundary_f1"]]
        miou, accuracy, borders, error = (_figure(value) for value in (*figures, model["calibration_error"]))
        of_groups = [_figure(model["groups"][name][key]) for name in groups for key in ("iou", "false_rate")]
        lines.append(
            [str(model["model"]), miou, *_gain_cells(model["gain"]), accuracy, borders, error, *of_groups, *moving]
        )
    return heads, lines


def remarks(values: Mapping[str, Any]) -> List[str]:
    """What a reader of the table must know."""
    first, *others = values["models"]
    told = [f"{values['pictures']} pictures of {short(values['data'])}; gain: points of mIoU over {first['model']}."]
    if any(model["gain"] for model in others):
        told.append(
            "The interval is over pictures drawn anew, the same for both models. Pictures of one drive resemble each"
            " other: for other places it is wider."
        )
    if first["flicker"]:
        found = first["flicker"]
        left_out = f", {found['left_out']} left out" if found["left_out"] else ""
        told.append(
            f"flicker: percent of the pixels that change class from frame to frame, {found['pairs']} pairs of "
            f"{short(found['footage'])}{left_out}."
        )
    for model in others:
        if model["gain"] is None:
            told.append(f"{model['model']} was scored in other classes than {first['model']}: no gain can be told.")
        elif not model["gain"]["certain"]:
            told.append(f"{model['model']} is neither better nor worse than {first['model']} by more than chance.")
    return told


def save_compared(found: Sequence[Evaluation], values: Mapping[str, Any], folder: Path) -> Path:
    """Write ``report.html`` and ``results.json``."""
    writable_folder(folder)
    write_text(folder / "results.json", json.dumps(values, indent=2) + "\n")
    page = ReportPage(f"{len(found)} models compared", f"{values['pictures']} pictures of {short(values['data'])}")
    page.table(*compared_lines(values))
    for text in remarks(values):
        page.text(text)
    page.heading("IoU per class")
    names = list(dict.fromkeys(name for model in values["models"] for name in model["iou"]))
    rows = [[name, *(_figure(model["iou"].get(name)) for model in values["models"])] for name in names]
    page.table(["class", *(str(model["model"]) for model in values["models"])], rows)
    page.data(dict(values))
    page.save(folder / "report.html")
    return folder


def _gain_cells(gain: Optional[Mapping[str, Any]]) -> Tuple[str, str]:
    if gain is None:
        return _DASH, _DASH
    interval = _DASH if gain["low"] is None else f"{gain['low']:+.2f} to {gain['high']:+.2f}"
    return f"{gain['points']:+.2f}", interval


def _figure(value: Optional[float]) -> str:
    return _DASH if value is None else f"{value:.2f}"
