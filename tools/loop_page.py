"""The page of ``make loop``: what happened on the way, in pictures, figures and the commands that were typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import cv2
import numpy as np

from rtda_deploy.cli.lineage import drawn_lineage
from rtda_deploy.report import ReportPage
from rtda_runtime import Segmenter, colorize
from rtda_runtime.shift.support import duration_text
from rtda_training.pages.sheets import sheet

__all__ = ["save_page"]

_SHOWN = (3, 17, 29)  # of the labelled pictures
_COLLECTED = 8
_MEASURES = {"ensemble-miou": "agreement", "views": "steadiness", "infomax": "InfoMax"}


def save_page(folder: Path, found: Mapping[str, Any], models: Mapping[str, Path]) -> Path:
    """Write ``report.html``.

    Args:
        folder: Of the loop.
        found: What ``summary.json`` holds.
        models: ``before`` and ``after``.
    """
    page = ReportPage("From noon into rain", "ToyTown · alarm, collect, adapt, rank, compare, promote")
    page.lead(_verdict(found))
    page.table(
        ("labelled frames nobody trained on", "before, mIoU %", "after, mIoU %", "points", "95 % interval"),
        [
            (weather, f"{row['before']:.1f}", f"{row['after']:.1f}", f"{row['after'] - row['before']:+.1f}", _span(row))
            for weather, row in found["miou"].items()
        ],
    )
    page.text(
        "The network was trained on labelled pictures of a simulator and adapted to the robot's city at noon. Rain is"
        " drawn over the same city; neither the rain nor a label of the city was in any training."
    )
    _alarm(page, found)
    _collected(page, folder, found)
    _adapted(page, found)
    _seen(page, folder, models)
    _agreement(page, found)
    page.heading("Where the network comes from")
    page.code(
        "\n".join(drawn_lineage(found["inspect"]["spec"]["provenance"].get("ancestry"), found["inspect"]["sha256"]))
    )
    page.heading("What was typed")
    page.table(("for", "seconds"), [(row["for"], row["seconds"]) for row in found["commands"]])
    page.code("\n".join(row["typed"] for row in found["commands"]))
    page.data(dict(found))
    return page.save(folder / "report.html")


def _span(row: Mapping[str, Any]) -> str:
    return "–" if row["low"] is None else f"{row['low']:+.1f} to {row['high']:+.1f}"


def _verdict(found: Mapping[str, Any]) -> str:
    tried, rain = found["promote"], found["miou"]["rain"]
    if tried is None:
        return (
            "No candidate ranked surely before the deployed network: adapting gave it back as it was, and the robot"
            " keeps it. What stands below as after is the same network."
        )
    points = f"{rain['after'] - rain['before']:+.1f} points"
    then = "the robot has it now" if tried["promoted"] else f"refused: {'; '.join(tried['missed'])}"
    return f"The candidate that ranked first without labels changes mIoU in rain by {points}; {then}."


def _alarm(page: ReportPage, found: Mapping[str, Any]) -> None:
    page.heading("1. The alarm")
    drive, rain_s = found["drive"], found["rain_s"]
    end_s = found["seconds_of_film"]
    said = [f"{row['state']} at about {row['at_s']:.0f} s ({row['signal']})" for row in drive["alarms"]]
    page.text(
        f"It rains from second {rain_s:g} of {end_s} on. The alarm, set to one false alarm in"
        f" {duration_text(drive['shift']['apart_s'])}, said: {', then '.join(said) or 'nothing'}."
        f" At the end: {drive['shift']['state']}."
    )
    if drive["evidence"]:
        rains = [(0.0, 0.0), (rain_s, 0.0), (rain_s, 1.0), (end_s, 1.0)]
        page.lines(
            {"evidence": drive["evidence"], "rain": rains},
            "seconds of the drive",
            "evidence",
            caption="Evidence of a shift; 1 raises the alarm",
        )


def _collected(page: ReportPage, folder: Path, found: Mapping[str, Any]) -> None:
    sink = found["drive"]["collected"]
    page.heading("2. What was collected")
    page.text(f"{sink['frames']} frames, {sink['bytes'] / 1e6:.1f} MB, without labels.")
    pictures = sorted((folder / "hard" / "images").iterdir())
    places = np.unique(np.linspace(0, len(pictures) - 1, min(_COLLECTED, len(pictures))).astype(int))
    tiles = [(f"{place + 1} of {len(pictures)}", _read(pictures[place])) for place in places.tolist()]
    page.picture(sheet(tiles, columns=4), caption="frames of the drive, in the order of time")


def _adapted(page: ReportPage, found: Mapping[str, Any]) -> None:
    page.heading("3. Adapted and ranked, without labels")
    page.text(found["adapt"]["verdict"])
    entries = found["adapt"]["entries"]
    page.table(
        ("candidate, the first one first", *_MEASURES.values(), "remarks"),
        [
            (
                entry["name"],
                *(
                    "–" if entry["scores"].get(key) is None else f"{100 * entry['scores'][key]:.1f}"
                    for key in _MEASURES
                ),
                "; ".join([*entry["warnings"], *entry["remarks"]]),
            )
            for entry in entries
        ],
    )
    ranked = found["rank"]
    page.text(f"rank, asked of the two alone on {ranked['frames']} frames: {ranked['verdict']}.")


def _seen(page: ReportPage, folder: Path, models: Mapping[str, Path]) -> None:
    page.heading("4. What both see in rain")
    with Segmenter.open(models["before"]) as before, Segmenter.open(models["after"]) as after:
        paths = sorted((folder / "labelled-rain" / "images").iterdir())
        for place in sorted({place % len(paths) for place in _SHOWN}):
            frame, truth = (
                _read(paths[place]),
                _read(folder / "labelled-rain" / "labels" / paths[place].name, grey=True),
            )
            masks = {"before": before.segment(frame).mask, "after": after.segment(frame).mask, "truth": truth}
            tiles = [("frame", frame), *((name, colorize(mask, after.spec.palette)) for name, mask in masks.items())]
            page.picture(sheet(tiles, columns=2), caption=f"labelled picture {paths[place].stem}, of no training")
        page.legend(after.spec.class_names, after.spec.palette)


def _agreement(page: ReportPage, found: Mapping[str, Any]) -> None:
    page.heading("5. Both on the drive, and the promotion")
    shadow, tried = found["shadow"], found["promote"]
    if shadow["compared"]:
        page.text(
            f"As a shadow it agreed with the deployed network in {100 * shadow['agreement']:.1f} % of the pixels of"
            f" {shadow['compared']} frames; {shadow['dropped']} were left out."
        )
    if tried is not None:
        agreed = f"{100 * tried['agreement']:.1f} % of the pixels agree"
        then = "promoted" if tried["promoted"] else f"refused: {'; '.join(tried['missed'])}"
        page.text(f"models promote, on {tried['frames']} labelled frames of rain: {agreed}; {then}.")
    rows = [(row["digest"], row["role"] or "–", row["last"]) for row in found["models"]]
    page.table(("model of the robot", "", "last"), rows)


def _read(path: Path, *, grey: bool = False) -> Any:
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
