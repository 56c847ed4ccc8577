"""``report.html`` of an adaptation to footage: the verdict, masks of both networks, the candidates, the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtda_deploy.optional import require
from rtda_deploy.report import ReportPage, short
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
from rtda_training.loop.choosing import contract_of
from rtda_training.loop.diagnostics import Finding, warnings_of
from rtda_training.loop.events import TrainResult
from rtda_training.loop.validate import colours, masks_of, spread_places
from rtda_training.pages.model_card import write_model_card
from rtda_training.pages.ranking_table import ranking_table
from rtda_training.pages.run_page import curves
from rtda_training.pages.sheets import sheet
from rtda_training.run_folder import CONFIG, read_rows, saved_plan
from rtda_training.source_free.adapting import GIVEN, AdaptResult
from rtda_training.source_free.request import AdaptRequest, adapt_plan

__all__ = ["collapses", "write_adapt_page", "write_adapt_pages"]

_PICTURES = 3


def write_adapt_pages(request: AdaptRequest, result: AdaptResult) -> None:
    """``report.html`` and ``MODEL_CARD.md``."""
    write_adapt_page(request, result)
    folder, model = result.folder, Path(request.model)
    trained = (folder / "last.pth").is_file()
    plan = saved_plan(folder) if trained else adapt_plan(request, read_checkpoint(model).spec, model)
    ended = TrainResult(folder, math.nan, "", math.nan, result.seconds, result.ranking)
    write_model_card(plan, folder, ended, trained=trained)


def write_adapt_page(request: AdaptRequest, result: AdaptResult) -> Path:
    """Write ``report.html`` into the run's folder.

    Raises:
        FileAccessError: If it cannot be written.
    """
    folder, ranking = result.folder, result.ranking
    page = ReportPage(
        f"Adaptation of {Path(request.model).name}", f"to {short(request.footage)}, without source pictures"
    )
    page.lead(result.verdict)
    _sights(page, request, result)
    ranking_table(page, ranking)
    found = collapses(folder)
    if found:
        page.heading("Noticed while it trained")
        page.table(("stage", "step", "what"), [(one.stage, one.step, one.text) for one in found])
    rows = read_rows(folder)
    if rows:
        curves(page, rows)
    page.data(
        {"request": vars(request), "ranking": ranking, "warnings": [one._asdict() for one in found], "rows": rows}
    )
    return page.save(folder / "report.html")


def collapses(folder: Path) -> list[Finding]:
    """What was noticed while a run trained; nothing where it did not."""
    if not (folder / CONFIG).is_file():
        return []
    classes = read_checkpoint(folder / "best.pth").spec.class_names
    return warnings_of(saved_plan(folder), read_rows(folder), folder, classes)


def _sights(page: ReportPage, request: AdaptRequest, result: AdaptResult) -> None:
    """Frames of the footage with the masks of the given network and, where it is another, of the chosen one."""
    cv2 = require("cv2", extra="training", purpose="to draw pictures")
    paths = sorted((result.folder / "verify").glob("*.png"), key=lambda path: (len(path.name), path.name))
    read = [cv2.imread(str(paths[place])) for place in spread_places(_PICTURES, len(paths))]
    frames = [frame for frame in read if frame is not None]
    networks = {GIVEN: Path(request.model), **({result.chosen: result.best} if result.better else {})}
    masks = {title: _masks(path, frames) for title, path in networks.items()}
    spec = read_checkpoint(result.best).spec
    page.heading("What it sees")
    for number, frame in enumerate(frames):
        tiles = [("picture", frame), *((title, colours(m[number], spec.palette)) for title, m in masks.items())]
        page.picture(sheet(tiles, len(tiles)), caption="of the footage")
    page.legend(spec.class_names, spec.palette)


def _masks(path: Path, frames: Sequence[Any]) -> list[Any]:
    found = read_checkpoint(path)
    return masks_of(model_from_checkpoint(found), frames, found.spec.size_hw, contract_of(found.spec))
