"""``report.html`` of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtda_deploy.report import ReportPage
from rtda_training.grids.table import gain_lines, heat_lines, notes, shown_mious

__all__ = ["write_grid_page"]


def write_grid_page(results: Mapping[str, Any], folder: Path) -> Path:
    """Write the page of a grid's ``results.json`` into its folder.

    Raises:
        FileAccessError: If it cannot be written.
    """
    page = ReportPage(f"Ablation: {results['name']}", f"{results['source']} -> {results['target']}")
    if results["description"]:
        page.text(results["description"])
    key, heading = shown_mious(results)[0]
    known = [row for row in results["rows"] if row.get(key, {}).get("mean") is not None]
    if known:
        page.bars(
            [row["label"] for row in known],
            [row[key]["mean"] for row in known],
            unit="%",
            caption=f"{heading} on {results['scored_on']}, mean over seeds",
        )
    page.heading("Gain and cost")
    page.table(*gain_lines(results))
    page.heading("IoU per class")
    columns, names, values = heat_lines(results)
    page.matrix(names, values, columns, normalise=False, caption="Percent, means over seeds; below, as printed.")
    page.heading("Notes")
    for text in notes(results):
        page.text(text)
    page.data(results)
    return page.save(folder / "report.html")
