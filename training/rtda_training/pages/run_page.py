"""``report.html`` of a training: the verdict, what the networks see, curves, scores, what the method did on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtda_deploy.errors import RtdaError
from rtda_deploy.optional import require
from rtda_deploy.report import ReportPage, short
from rtda_training.adapt.styles.fda import fourier_transfer
from rtda_training.checkpoint import read_checkpoint
from rtda_training.loop.diagnostics import warnings_of
from rtda_training.loop.events import TrainResult
from rtda_training.loop.validate import usable_frame
from rtda_training.pages.ranking_table import ranking_table
from rtda_training.pages.sheets import GAP_PX, WIDTH_PX, jpeg, tiled
from rtda_training.pages.sights import target_sights, val_sights
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.readers import open_unlabelled
from rtda_training.run_folder import loss_keys, read_record, read_rows

__all__ = ["curves", "write_run_page"]

_BETAS = (0.01, 0.05, 0.10)
_TITLES = {
    "val_miou": "Validation mIoU",
    "seg": "Segmentation loss, source",
    "adv": "Adversarial loss, weighted",
    "advent": "Adversarial loss on self-information, weighted",
    "disc": "Discriminator loss (0.693: cannot tell the domains apart)",
    "disc_right": "Share of the map that the discriminator gets right",
    "pseudo": "Loss on pseudo labels",
    "pseudo_share": "Share of the target's pixels labelled with confidence",
    "mixed": "Loss on mixed pictures",
    "entropy": "Entropy loss, target",
    "negative": "Negative learning, target",
    "target_entropy": "Entropy of the mean prediction on the target (falls where classes vanish)",
    "learning_rate": "Learning rate",
}


def write_run_page(plan: PlanConfig, folder: Path, result: TrainResult) -> Path:
    """Write ``report.html`` into the run's folder.

    Raises:
        FileAccessError: If it cannot be written.
    """
    rows = read_rows(folder)
    classes = read_checkpoint(folder / "last.pth").spec.class_names
    warnings = warnings_of(plan, rows, folder, classes)
    domains = " -> ".join(short(address) for address in (plan.source, plan.target) if address)
    page = ReportPage(f"Training: {plan.name}", f"{domains} · {plan.network_text} at {plan.size} · seed {plan.seed}")
    page.lead(result.verdict)
    if plan.target:
        _part(page, lambda: target_sights(page, plan, folder, result.ranking))
    if result.ranking:
        ranking_table(page, result.ranking)
    page.heading("The training")
    if plan.description:
        page.text(plan.description)
    _summary(page, plan, result)
    if warnings:
        page.heading("Warnings")
        page.table(
            ("stage", "step", "what and what to change"), [(w.stage, w.step or "start", w.text) for w in warnings]
        )
    _part(page, lambda: val_sights(page, plan, folder))
    _scores(page, rows, folder)
    curves(page, rows)
    for stage in plan.stages:
        _part(page, lambda stage=stage: _labels(page, stage, folder / "stages" / stage.name))  # type: ignore[misc]
        _translations(page, stage, folder / "stages" / stage.name)
    styled = next((stage for stage in plan.stages if stage.style == "fda"), None)
    if styled is not None:
        _part(page, lambda: _fda_strip(page, plan, styled, folder))
    found = [{"stage": w.stage, "step": w.step, "kind": w.kind, "text": w.text} for w in warnings]
    page.data({"plan": plan.to_dict(), "warnings": found, "rows": rows})
    return page.save(folder / "report.html")


def _part(page: ReportPage, build: Callable[[], None]) -> None:
    """A part that reads data sets: where one cannot be read any more, the page says so and goes on."""
    try:
        build()
    except RtdaError as err:
        page.text(f"Not shown: {err.message}")


def _summary(page: ReportPage, plan: PlanConfig, result: TrainResult) -> None:
    steps = ", ".join(f"{stage.name} {stage.steps}" for stage in plan.stages)
    validated = [
        ["best val mIoU, %", f"{100 * result.best_miou:.2f}  ({result.best_at})" if result.best_at else "none"],
        ["last val mIoU, %", "none" if math.isnan(result.last_miou) else f"{100 * result.last_miou:.2f}"],
        ["validated on", f"{short(plan.validation)} (val)"],
    ]
    own = [["steps", steps], ["seconds of this session", f"{result.seconds:.1f}"]]
    page.table(["", "value"], [*(validated if plan.validation else [["validated on", "nothing"]]), *own])


def curves(page: ReportPage, rows: Sequence[Mapping[str, Any]]) -> None:
    """One chart a figure, one line a stage; a stage keeps its colour where several share a chart."""
    page.heading("Curves")
    stages = list(dict.fromkeys(str(row["stage"]) for row in rows))
    for key in ["val_miou", *loss_keys(rows), "learning_rate"]:
        series = _series(rows, key, 100.0 if key == "val_miou" else 1.0)
        if key == "val_miou" and max(map(len, series.values()), default=0) < 2:
            continue  # one validation a stage: the bars say more
        caption, label = _TITLES.get(key, ""), "%" if key == "val_miou" else key.replace("_", " ")
        if len(series) > 1:
            page.lines({stage: series.get(stage, []) for stage in stages}, "step", label, caption=caption)
        elif series:
            where = f"stage {next(iter(series))}" if len(stages) > 1 else ""
            page.lines(series, "step", label, caption=" · ".join(text for text in (caption, where) if text))


def _scores(page: ReportPage, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    last = next((row for row in reversed(rows) if "val_iou" in row), None)
    if last is None:
        return
    known = {name: value for name, value in last["val_iou"].items() if value is not None}
    ordered = sorted(known, key=lambda name: -known[name])
    page.heading(f"IoU per class, last validation ({last['stage']} @{last['step']})")
    page.bars(ordered, [known[name] for name in ordered], unit="%")
    confusion = _json(folder / "confusion.json")
    if confusion:
        page.heading("Confusion, last validation")
        caption = "Rows: true class. Columns: predicted class. Percent of the row."
        page.matrix(confusion["classes"], confusion["counts"], caption=f"{caption} {short(confusion['data'])} (val)")


# what the method did


def _labels(page: ReportPage, stage: StageConfig, folder: Path) -> None:
    record = _json(folder / "labels.json")
    if "classes" not in record:
        return
    settings = ", ".join(f"{key} {_plain(value)}" for key, value in record.get("settings", {}).items())
    page.heading(f"Pseudo labels of stage {stage.name}")
    page.text(f"{100 * record['share']:.1f} % of the target's pixels got a label ({settings}).")
    total = sum(entry["predicted_pixels"] for entry in record["classes"].values()) or 1
    rows = [
        (
            name,
            f"{100 * entry['predicted_pixels'] / total:.2f} %",
            f"{entry['threshold']:.3f}",
            None if entry["kept_share"] is None else f"{100 * entry['kept_share']:.1f} %",
        )
        for name, entry in record["classes"].items()
    ]
    page.table(("class", "predicted", "threshold", "of these kept"), rows)


def _plain(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _translations(page: ReportPage, stage: StageConfig, folder: Path) -> None:
    if (folder / "grid.png").is_file():
        page.heading(f"Translations of stage {stage.name}")
        caption = "source picture, made into the target, made back again; and a target picture"
        page.picture(folder / "grid.png", caption=caption)


def _fda_strip(page: ReportPage, plan: PlanConfig, stage: StageConfig, folder: Path) -> None:
    """One source picture with a target picture's low frequencies, at the papers' betas."""
    cv2 = require("cv2", extra="training", purpose="to draw pictures")
    target = cv2.imread(str(folder / "verify" / "0.png"))
    if target is None:
        return
    height, width = plan.size_hw
    source = usable_frame(open_unlabelled(plan.source), 0)
    pair = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in (source, target)]
    inputs = [torch.from_numpy(picture).float().permute(2, 0, 1)[None] for picture in pair]
    styled = []
    for beta in _BETAS:
        pixels = fourier_transfer(inputs[0], inputs[1], beta)[0].permute(1, 2, 0)
        styled.append((f"beta {beta:.2f}", np.asarray(pixels.round().byte().numpy())))
    page.heading("FDA: the target's low frequencies on the source")
    top = tiled([("source", pair[0]), ("target", pair[1])], 2, (WIDTH_PX - GAP_PX) // 2)
    below = tiled(styled, 3, (WIDTH_PX - 2 * GAP_PX) // 3)
    below = cv2.copyMakeBorder(below, GAP_PX, 0, 0, top.shape[1] - below.shape[1], cv2.BORDER_REPLICATE)
    page.picture(jpeg(np.vstack([top, below])), caption=f"stage {stage.name} has beta {stage.settings['fda'].beta:g}")


# drawing


def _series(rows: Sequence[Mapping[str, Any]], key: str, factor: float) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = row.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            series.setdefault(str(row["stage"]), []).append((float(row["step"]), factor * float(value)))
    return series


def _json(path: Path) -> dict[str, Any]:
    return read_record(path, "remove it, it is written again")
