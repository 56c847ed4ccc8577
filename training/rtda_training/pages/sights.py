"""What a run's networks see: target pictures side by side, and val pictures with their truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtda_deploy.optional import require
from rtda_deploy.report import ReportPage
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint
from rtda_training.labels import ClassList, class_list
from rtda_training.loop.choosing import held_back
from rtda_training.loop.run_ranking import contenders_of
from rtda_training.loop.validate import colours, masks_of, spread_places, usable_frame
from rtda_training.pages.sheets import mistakes, sheet
from rtda_training.plan import PlanConfig
from rtda_training.readers import open_labelled, open_unlabelled

__all__ = ["target_sights", "val_sights"]

_VAL_PICTURES, _TARGET_PICTURES = 3, 3
Opener = Callable[[], Checkpoint]


def target_sights(page: ReportPage, plan: PlanConfig, folder: Path, ranking: Mapping[str, Any] | None) -> None:
    """Target pictures beside the masks of the source-only network, the last and the one that ranks first.

    Where nothing was ranked, beside those of the network that the last stage started from, and the last.
    """
    if ranking is None:
        networks, frames = _last_two(plan, folder), _verify_frames(folder)
        caption = "training pictures; no label of them was read"
    else:
        networks, footage = _ranked(plan, folder, ranking), held_back(open_unlabelled(plan.target))
        places = spread_places(_TARGET_PICTURES, len(footage.pictures))
        frames = [usable_frame(footage.pictures, place) for place in places]
        caption = f"of {footage.what}; no label was read"
    if not frames:
        return
    page.heading("What it sees on the target")
    spec = read_checkpoint(folder / "last.pth").spec
    masks = {title: _masks(opened, frames, plan) for title, opened in networks.items()}
    for number, frame in enumerate(frames):
        tiles = [("picture", frame)]
        tiles += [(title, colours(found[number], spec.palette)) for title, found in masks.items()]
        last = number + 1 == len(frames)
        page.picture(sheet(tiles, len(tiles)), caption=caption * last)
    page.legend(spec.class_names, spec.palette)


def val_sights(page: ReportPage, plan: PlanConfig, folder: Path) -> None:
    """Val pictures with their truth."""
    if not plan.validation:
        return
    asked: dict[str, Any] = {"classes": class_list(plan.classes)} if plan.classes else {}
    if not plan.source:
        spec = read_checkpoint(folder / "last.pth").spec
        asked = {"classes": ClassList(spec.class_names, spec.palette)}
    data = open_labelled(plan.validation, split="val", **asked)
    palette = data.classes.palette
    page.heading("What it sees on the validation set")
    if plan.target and plan.validation == plan.source:
        page.text(
            "Pictures of the source. What is adapted to the target may score lower here and still be better there."
        )
    places = spread_places(_VAL_PICTURES, len(data))
    frames, truths = [data.frame(place) for place in places], [data.label(place) for place in places]
    masks = {title: _masks(opened, frames, plan) for title, opened in _last_two(plan, folder).items()}
    for number, place in enumerate(places):
        tiles = [("picture", frames[number])]
        tiles += [(title, colours(found[number], palette)) for title, found in masks.items()]
        tiles.append(("truth", colours(truths[number], palette)))
        if len(tiles) % 2:
            tiles.append(("wrong", mistakes(frames[number], list(masks.values())[-1][number], truths[number])))
        page.picture(sheet(tiles, 2), caption=f"{data.name(place)}: {', '.join(title for title, _ in tiles)}")
    if not plan.target:
        page.legend(data.classes.names, palette)


def _ranked(plan: PlanConfig, folder: Path, ranking: Mapping[str, Any]) -> dict[str, Opener]:
    """Titles and checkpoints; one that is two of them stands once."""
    first, chosen = ranking["first"], ranking["chosen"]
    networks = {one.name: one.open for one in contenders_of(plan, folder).networks}
    found: dict[str, Opener] = {}
    title = "source-only" if ranking["source_only"] and first != "start" else first
    if first in networks and first != "last":
        found[title] = networks[first]
    found["adapted"] = lambda: read_checkpoint(folder / "last.pth")
    for own, name in ((title, first), ("adapted", "last")):
        if name == chosen and own in found:
            return {(f"{own}: ranked best" if key == own else key): opened for key, opened in found.items()}
    return {**found, "ranked best": lambda: read_checkpoint(folder / "best.pth")}


def _last_two(plan: PlanConfig, folder: Path) -> dict[str, Opener]:
    """Titles and checkpoints: what the last stage started from or was taught by, where there is one, and the last."""
    last = plan.stages[-1]
    found: dict[str, Path] = {}
    earlier = [stage.name for stage in plan.stages[:-1]]
    if last.start not in ("previous", "scratch"):
        earlier = [last.start]
    for name in reversed(earlier):
        path = folder / f"stage-{name}.pth"
        if path.is_file():
            found[name] = path
            break
    if not found and plan.init and last.start == "previous":
        found["start"] = Path(plan.init)
    found[last.name if found else ("adapted" if last.uses_target else "trained")] = folder / "last.pth"
    return {title: (lambda path=path: read_checkpoint(path)) for title, path in found.items()}  # type: ignore[misc]


def _verify_frames(folder: Path) -> list[np.ndarray]:
    """A few of the target pictures that the run kept."""
    cv2 = require("cv2", extra="training", purpose="to draw pictures")
    stored = sorted((folder / "verify").glob("*.png"), key=lambda path: (len(path.name), path.name))
    read = [cv2.imread(str(stored[place])) for place in spread_places(_TARGET_PICTURES, len(stored))]
    return [frame for frame in read if frame is not None]


def _masks(opened: Opener, frames: Sequence[np.ndarray], plan: PlanConfig) -> list[np.ndarray]:
    cuda = torch.cuda.is_available() and plan.device != "cpu"
    model = model_from_checkpoint(opened()).to("cuda" if cuda else "cpu")
    return masks_of(model, frames, plan.size_hw, plan.input)
