"""The networks of a ranking as a table of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtda_deploy.report import ReportPage, short

__all__ = ["ranking_table"]

_COLUMNS = {"ensemble-miou": "agreement", "views": "steadiness", "infomax": "InfoMax"}


def ranking_table(page: ReportPage, ranking: Mapping[str, Any]) -> None:
    """Every network with its measures, best first; what was dropped, and what makes it less sure.

    Args:
        page: Filled.
        ranking: What ``ranking.json`` holds.
    """
    page.heading("The ranking")
    rows = [_row(place + 1, entry, ranking) for place, entry in enumerate(ranking["entries"])]
    tested = ("check mIoU",) if any(entry["check_miou"] is not None for entry in ranking["entries"]) else ()
    heads = ("place", "network", *_COLUMNS.values(), "norms apart", "first in", *tested, "")
    page.table(heads, rows, caption=_caption(ranking))
    for found in ranking["dropped"]:
        page.text(f"Dropped: {found['name']}: {found['why']}.")
    for key, why in ranking.get("left_out", {}).items():  # runs of earlier versions have none
        page.text(f"Not counted: {key}, because {why}.")
    for text in ranking["notes"]:
        page.text(f"{text[:1].upper()}{text[1:]}.")


def _caption(ranking: Mapping[str, Any]) -> str:
    footage = f"on {ranking['frames']} of {ranking['which']} ({short(ranking['footage'])})"
    if ranking.get("by_labels"):  # runs of earlier versions do not say it: their labels changed no place
        what = f"By the mIoU on labelled frames ({short(ranking['labelled'])})"
        place = f"the other figures are measured without labels, {footage}, and decided nothing, so that few frames do"
    else:
        what, place = f"Without labels, {footage}", "the place is that of the mean over the measures"
    return (
        f"{what}, in {ranking['seconds']:.0f} s. Larger is better but for norms apart; {place}. First in: share of"
        " draws of the frames in which a network ranks first without labels. The others are compared with the"
        " reference."
    )


def _row(place: int, entry: Mapping[str, Any], ranking: Mapping[str, Any]) -> tuple[Any, ...]:
    scores = entry["scores"]
    values = [scores[key] for key in _COLUMNS]
    apart = scores["norms"]
    told = ["best.pth"] if entry["name"] == ranking["chosen"] else []
    told += ["reference"] if entry["name"] == ranking["first"] else []
    return (
        place,
        entry["name"],
        *("–" if value is None or value < -1 else f"{100 * value:.1f}" for value in values),
        "–" if apart is None else f"{-apart:.2f}",
        f"{100 * entry['first_share']:.0f} %",
        *([] if entry["check_miou"] is None else [f"{entry['check_miou']:.1f}"]),
        "; ".join([*told, *entry["warnings"], *entry["remarks"]]),
    )
