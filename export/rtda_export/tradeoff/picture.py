"""Accuracy against time as a picture, the frontier marked."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

from rtda_deploy.files import atomic_path
from rtda_deploy.optional import require
from rtda_export.tradeoff.comparison import Comparison
from rtda_export.tradeoff.points import Point, frontier

__all__ = ["save_picture"]

_COLOURS = ("#1d4ed8", "#c2410c", "#047857", "#7c3aed", "#b91c1c", "#0e7490", "#a16207", "#be185d")
_MARKERS = {"fp32": "o", "fp16": "s", "int8": "D"}
_INK, _FAINT = "#1f2937", "#9ca3af"


def save_picture(found: Comparison, path: Path) -> Path:
    """Draw the points of a comparison that has accuracies.

    Args:
        found: Every point with ``miou``.
        path: ``.png`` or ``.svg`` to write, whole or not at all.

    Raises:
        FileAccessError: If it cannot be written.
        MissingPackageError: If matplotlib is not installed.
    """
    require("matplotlib", extra="training", purpose="to draw the picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 6.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(dict.fromkeys(point.variant.name for point in found.points))
    colours: Dict[str, str] = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    best = frontier(found.points)
    times, scores = [point.ms for point in best], [point.miou or 0.0 for point in best]
    axes.step(times, scores, where="post", color=_FAINT, lw=1.4, zorder=1)
    for point in found.points:
        _draw(axes, point, colours[point.variant.name], point in best)
    for name in names:
        axes.scatter([], [], color=colours[name], label=name)
    for precision in dict.fromkeys(point.variant.precision for point in found.points):
        axes.scatter([], [], marker=_MARKERS.get(precision, "o"), color=_INK, label=precision)
    axes.axvline(1e3 / found.per_second, color=_INK, ls="--", lw=1.0, zorder=0)
    axes.annotate(
        f" {found.per_second:g} a second",
        (1e3 / found.per_second, 0.01),
        xycoords=("data", "axes fraction"),
        color=_INK,
    )
    _labels(axes, best)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds " + ("from a frame to its mask" if found.whole_way else "of the network, estimated"))
    axes.set_ylabel(f"mIoU %, {found.pictures} pictures")
    axes.set_title(f"{found.machine}\n{found.sentence}", fontsize=11, color=_INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="both", color="#eef0f3", lw=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, place: f"{value:g}" if str(value)[0] in "25" else "")
    axes.legend(loc="lower right", fontsize=9, framealpha=0.95)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None} if temporary.suffix == ".png" else None)
    return path


def _draw(axes, point: Point, colour: str, best: bool) -> None:  # type: ignore[no-untyped-def]
    score = point.miou or 0.0
    axes.plot([point.low_ms, point.high_ms], [score, score], color=colour, lw=1.2, alpha=0.5, zorder=2)
    axes.scatter(
        [point.ms],
        [score],
        s=90 if best else 45,
        marker=_MARKERS.get(point.variant.precision, "o"),
        color=colour if best else "white",
        edgecolor=colour,
        linewidth=1.4,
        zorder=3,
    )


def _labels(axes, best: List[Point]) -> None:  # type: ignore[no-untyped-def]
    for point in best:
        height, width = point.variant.size_hw
        axes.annotate(
            f"{width}x{height}",
            (point.ms, point.miou or 0.0),
            xytext=(5, 7),
            textcoords="offset points",
            fontsize=9,
            color=_INK,
        )
