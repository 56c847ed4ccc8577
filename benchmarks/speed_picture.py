"""The picture of ``speed_page.py``: bars of the whole way from frame to mask, on a white ground of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from rtda_deploy.files import atomic_path
from rtda_deploy.optional import require

__all__ = ["save_picture"]

Found = Dict[str, Any]
# Okabe and Ito's colours, told apart by colour-blind readers; others' bars are paler.
_STAGES = {"preprocess": "#e69f00", "network": "#0072b2", "postprocess": "#cc3311"}
_PRECISIONS = ("fp32", "bf16", "int8")
_PALE = 0.45  # opacity of others' bars
_WIDTH_IN, _ROW_IN = 10.0, 0.26  # about as wide as a page shows it, and a bar
_SETTINGS = {"svg.hashsalt": "speed", "font.size": 9.0}  # the same figures give the same file


def save_picture(found: Found, path: Path) -> bool:
    """Draw the ways of ``peers.json``, a panel for each network.

    Args:
        found: As :func:`speed_page.load` gives it.
        path: ``.svg`` to write, whole or not at all.

    Returns:
        Whether there was anything to draw; nothing is written if not.

    Raises:
        FileAccessError: If it cannot be written.
        MissingPackageError: If matplotlib is not installed.
    """
    networks = found.get("peers", {}).get("networks", [])
    if not networks:
        return False
    matplotlib: Any = require("matplotlib", extra="training", purpose="to draw the picture")
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ways = bar_order(networks)
    with matplotlib.rc_context(_SETTINGS):
        size = (_WIDTH_IN, _ROW_IN * len(ways) + 1.2)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        made = found["peers"]
        title = f"From a {made['frame']} frame to its mask, networks at {made['size']}: milliseconds, and times as fast"
        figure.suptitle(f"{title} as the best tuned float32 peer", fontsize=10, x=0.01, ha="left")
        panels = figure.subplots(1, len(networks), sharex=True, sharey=True, squeeze=False)[0]
        for axes, network in zip(panels, networks):
            _draw(axes, network, ways)
        panels[0].set_xlim(0, 1.42 * max(way["ms"] for network in networks for way in network["ways"]))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        known = dict(zip(labels, handles))
        figure.legend(known.values(), known, loc="outside lower left", ncols=5, frameon=False, fontsize=8.5)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
            temporary.write_text(_numbered(temporary.read_text(encoding="utf-8")), encoding="utf-8")
    return True


def bar_order(networks: Sequence[Found]) -> List[Tuple[str, str]]:
    """``(precision, way)`` of every bar from top to bottom: by precision, the fastest first; bare networks last."""
    best: Dict[Tuple[str, str], Tuple[int, int, float]] = {}
    for network in networks:
        for way in network["ways"]:
            place = _PRECISIONS.index(way["precision"]), int(way["group"] == "bare"), way["ms"]
            best.setdefault((way["precision"], way["way"]), place)
    return sorted(best, key=lambda named: best[named])


def _draw(axes: Any, network: Found, ways: Sequence[Tuple[str, str]]) -> None:
    known = {(way["precision"], way["way"]): way for way in network["ways"]}
    for place, way in ((place, known[named]) for place, named in enumerate(ways) if named in known):
        ours, left = way["group"] == "ours", 0.0
        for stage, colour in _STAGES.items():
            spent = way.get(f"{stage}_ms") or 0.0
            label = stage if ours else f"_{stage}"  # the legend shows ours
            axes.barh(place, spent, left=left, height=0.68, color=colour, alpha=1 if ours else _PALE, label=label)
            left += spent
        ratio = f"  {way['ratio']:.2f}x" if way.get("ratio") is not None else ""
        text = f" {way['ms']:.{0 if way['ms'] >= 100 else 1}f}{ratio}"
        axes.text(max(left, way["ms"]), place, text, va="center", fontsize=8.5, weight="bold" if ours else "normal")
    for precision in _PRECISIONS:
        places = [place for place, (found, _) in enumerate(ways) if found == precision]
        peak = network["peak_gflops"].get(precision)
        if places and peak:
            floor, ends = 1e3 * network["gflop"] / peak, [places[0] - 0.45, places[-1] + 0.45]
            axes.plot([floor] * 2, ends, color="black", lw=1.1, ls=":", label="floor: operations at the measured peak")
    axes.set_ylim(len(ways) - 0.4, -0.6)
    axes.set_yticks(range(len(ways)), [name for _, name in ways])
    backbone = network["backbone"].replace("resnet", "R")
    axes.set_title(f"BiSeNet-{backbone} {network['variant']}, {network['gflop']:.0f} GFLOP", loc="left", fontsize=9.5)
    axes.spines[["top", "right"]].set_visible(False)


def _numbered(svg: str) -> str:
    """Clip paths named in their order, since matplotlib names some by where they lay in memory; thousandths of a point,
    since its layout adds up in an order of its own.
    """
    names: Dict[str, str] = {}
    svg = re.sub(r"\b[1-9]\d*\.\d{4,}", lambda found: f"{float(found.group()):.3f}", svg)
    return re.sub(
        r"(url\(#|clipPath id=\")(p[0-9a-f]{10})",
        lambda found: found.group(1) + names.setdefault(found.group(2), f"clip{len(names)}"),
        svg,
    )
