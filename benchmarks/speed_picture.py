"""The picture of ``speed_page.py``: bars of the whole way from frame to mask, and below them how cost grows.

It has a white ground of its own, so that it reads the same on a light and on a dark page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Sequence, Tuple

from rtda_deploy.files import atomic_path
from rtda_deploy.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["save_picture"]

Found = Dict[str, Any]

_INK, _FAINT, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
# Okabe and Ito's colours, told apart by colour-blind readers; of others' bars the same, paler.
_STAGES = {"preprocess": "#e69f00", "network": "#0072b2", "postprocess": "#cc3311"}
_PHASES = {"python": "#999999", "import": "#e69f00", "open": "#0072b2", "mask": "#cc3311"}
_LIBRARIES = {"ONNX Runtime": "#0072b2", "OpenVINO": "#e69f00"}
_MARKERS = {"ONNX Runtime": "o", "OpenVINO": "s"}
_PRECISIONS = ("fp32", "bf16", "int8")
_NETWORKS = {"resnet18": "R18", "resnet101": "R101"}
_WIDTH_IN = 10.0  # about as wide as a page shows it, so that 9 points are 9 points there
_ROW_IN = 0.26  # a bar
_SETTINGS = {
    "svg.hashsalt": "speed",  # the same figures give the same file
    "font.size": 9.0,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}

Panel = Callable[["Axes"], None]


def save_picture(found: Found, path: Path) -> bool:
    """Draw what there is.

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
    panels = growth_panels(found)
    if not networks and not panels:
        return False
    matplotlib: Any = require("matplotlib", extra="training", purpose="to draw the picture")
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ways = bar_order(networks)
    heights = ([_ROW_IN * len(ways) + 1.2] if networks else []) + [2.9] * ((len(panels) + 2) // 3)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_IN, sum(heights)), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
        if networks:
            _draw_bars(parts.pop(0), found["peers"], ways)
        for number, part in enumerate(parts):
            for axes, panel in zip(part.subplots(1, 3, squeeze=False)[0], [*panels, *[_nothing] * 2][3 * number :]):
                panel(axes)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
            text = temporary.read_text(encoding="utf-8")
            temporary.write_text(_numbered(text), encoding="utf-8")
    return True


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


def bar_order(networks: Sequence[Found]) -> List[Tuple[str, str]]:
    """``(precision, way)`` of every bar from top to bottom: by precision, the fastest first; bare networks last."""
    best: Dict[Tuple[str, str], Tuple[int, int, float]] = {}
    for network in networks:
        for way in network["ways"]:
            place = _PRECISIONS.index(way["precision"]), int(way["group"] == "bare"), way["ms"]
            best.setdefault((way["precision"], way["way"]), place)
    return sorted(best, key=lambda named: best[named])


def growth_panels(found: Found) -> List[Panel]:
    """What there is to draw below the bars, in order."""
    growth, panels = found.get("growth", {}), []  # type: Tuple[Found, List[Panel]]
    drawn: Dict[str, Callable[[Axes, Any], None]] = {
        "size": _draw_size,
        "batch": _draw_batch,
        "backbone": _draw_backbone,
    }
    for name, draw in drawn.items():
        if name in growth:
            panels.append(lambda axes, draw=draw, made=growth[name]: draw(axes, made))  # type: ignore[misc]
    if found.get("cameras", {}).get("cameras"):
        panels.append(lambda axes: _draw_cameras(axes, found["cameras"]["cameras"]))
    if "start" in growth:
        panels.append(lambda axes: _draw_start(axes, growth["start"]))
    return panels


def _draw_bars(part: Any, made: Found, ways: Sequence[Tuple[str, str]]) -> None:
    networks = made["networks"]
    part.suptitle(
        f"From a {made['frame']} frame to its mask, networks at {made['size']}: milliseconds, and times as fast as the"
        " best tuned float32 peer",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    right = 1.42 * max(way["ms"] for network in networks for way in network["ways"])
    ours = {way["way"] for network in networks for way in network["ways"] if way["group"] == "ours"}
    for number, (axes, network) in enumerate(zip(part.subplots(1, len(networks), squeeze=False)[0], networks)):
        known = {(way["precision"], way["way"]): way for way in network["ways"]}
        for place, named in enumerate(ways):
            if named in known:
                _draw_bar(axes, place, known[named])
        _draw_floors(axes, network, ways)
        axes.set_xlim(0, right)
        axes.set_ylim(len(ways) - 0.4, -0.6)
        names = [name for _, name in ways] if number == 0 else [""] * len(ways)
        axes.set_yticks(range(len(ways)), names)
        axes.tick_params(axis="y", length=0)
        for label, (_, name) in zip(axes.get_yticklabels(), ways):
            label.set_fontweight("bold" if name in ours else "normal")
        title = f"BiSeNet-{_NETWORKS.get(network['backbone'], network['backbone'])} {network['variant']}"
        axes.set_title(f"{title}, {network['gflop']:.0f} GFLOP", loc="left", fontsize=9.5, fontweight="bold")
        _plain(axes, "x")
    _stage_legend(part)


def _draw_bar(axes: Axes, place: int, way: Found) -> None:
    ours = way["group"] == "ours"
    if ours:
        axes.axhspan(place - 0.5, place + 0.5, color="#e0f2fe", zorder=0)
    left = 0.0
    for stage, colour in _STAGES.items():
        spent = way.get(f"{stage}_ms") or 0.0
        axes.barh(place, spent, left=left, height=0.68, color=colour if ours else _pale(colour), zorder=2)
        left += spent
    ratio = f"  {way['ratio']:.2f}x" if way.get("ratio") is not None else ""
    axes.text(
        max(left, way["ms"]), place, f" {_ms(way['ms'])}{ratio}", va="center", fontsize=8.5,
        fontweight="bold" if ours else "normal", zorder=4,
    )  # fmt: skip


def _draw_floors(axes: Axes, network: Found, ways: Sequence[Tuple[str, str]]) -> None:
    """What the operations alone would take, behind the bars of each precision; and lines between precisions."""
    for precision in _PRECISIONS:
        places = [place for place, (found, _) in enumerate(ways) if found == precision]
        peak = network["peak_gflops"].get(precision)
        if places and peak:
            floor = 1e3 * network["gflop"] / peak
            axes.plot([floor, floor], [places[0] - 0.45, places[-1] + 0.45], color=_INK, lw=1.1, ls=":", zorder=3)
        if places and places[0] > 0:
            axes.axhline(places[0] - 0.5, color=_FAINT, lw=0.7, zorder=1)


def _stage_legend(part: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: List[Any] = [Patch(color=colour, label=stage) for stage, colour in _STAGES.items()]
    handles.append(Patch(color=_pale(_STAGES["network"]), label="the same, of others"))
    handles.append(Line2D([], [], color=_INK, lw=1.1, ls=":", label="floor: operations at the measured peak"))
    part.legend(handles=handles, loc="outside lower left", ncols=5, frameon=False, fontsize=8.5)


def _draw_size(axes: Axes, made: Found) -> None:
    slopes = {fit["library"]: fit["network_exponent"] for fit in made["fits"]}
    for library, rows in _by_library(made["rows"]).items():
        pixels, times = [row["pixels"] for row in rows], [row["network_ms"] for row in rows]
        _line(axes, library, pixels, times, f"{library}, slope {slopes[library]:.2f}")
    pixels = sorted({row["pixels"] for row in made["rows"]})
    least = min(row["network_ms"] / row["pixels"] for row in made["rows"])
    axes.plot(pixels, [0.75 * least * value for value in pixels], color=_FAINT, lw=0.9, ls="--", label="slope 1")
    axes.set(xscale="log", yscale="log", xlabel=f"pixels, times {made['base']}", ylabel="network, ms")
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    _log_ticks(axes, [row["network_ms"] for row in made["rows"]])
    axes.minorticks_off()
    _finish(axes, "Input size")


def _log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Ticks at 1, 2 and 5 of each power of ten, as plain numbers."""
    known = [digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5)]
    shown = [value for value in known if 0.5 * min(values) <= value <= 2.0 * max(values)]
    axes.set_yticks(shown, [f"{value:g}" for value in shown])


def _draw_batch(axes: Axes, made: Sequence[Found]) -> None:
    for library, rows in _by_library(made).items():
        _line(axes, library, [row["batch"] for row in rows], [row["ms"] for row in rows], library)
    counts = sorted({row["batch"] for row in made})
    axes.set(xscale="log", xlabel="pictures at a time", ylabel="ms a picture")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(0, 1.45 * max(row["ms"] for row in made))
    _finish(axes, "Batch, bare sessions")


def _draw_backbone(axes: Axes, made: Sequence[Found]) -> None:
    libraries = _by_library(made)
    names = [f"{_NETWORKS[row['backbone']]}\n{row['variant']}" for row in next(iter(libraries.values()))]
    width = 0.8 / len(libraries)
    for number, (library, rows) in enumerate(libraries.items()):
        places = [place - 0.4 + width * (number + 0.5) for place in range(len(rows))]
        axes.bar(places, [row["ms"] for row in rows], width, color=_LIBRARIES[library], label=library, zorder=2)
        for place, row in zip(places, rows):
            axes.text(place, row["ms"], f"{row['ratio']:.1f}x", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="network, ms", ylim=(0, 1.35 * max(row["ms"] for row in made)))
    _finish(axes, "Network")


def _draw_cameras(axes: Axes, made: Sequence[Found]) -> None:
    counts = [row["cameras"] for row in made]
    axes.plot(counts, [row["total_fps"] for row in made], color=_LIBRARIES["ONNX Runtime"], marker="o", label="all")
    axes.plot(counts, [row["most_fps"] for row in made], color=_LIBRARIES["OpenVINO"], marker="^", ms=4, lw=1)
    axes.plot(
        counts, [row["least_fps"] for row in made], color=_LIBRARIES["OpenVINO"], marker="v", ms=4, lw=1,
        label="most and least of one",
    )  # fmt: skip
    axes.set_xticks(counts)
    axes.set(xlabel="cameras", ylabel="masks a second", ylim=(0, 1.45 * max(row["total_fps"] for row in made)))
    _finish(axes, "Cameras on one engine")


def _draw_start(axes: Axes, made: Sequence[Found]) -> None:
    for place, row in enumerate(made):
        left = 0.0
        for phase, colour in _PHASES.items():
            spent = row[f"{phase}_ms"] / 1e3
            axes.barh(place, spent, left=left, height=0.62, color=colour, label=phase if place == 0 else "", zorder=2)
            left += spent
        axes.text(left, place, f" {left:.1f} s, {row['peak_mb']:.0f} MB", va="center", fontsize=8)
    axes.set_yticks(range(len(made)), [f"{row['library']}\n{row['start']}" for row in made], fontsize=8)
    axes.set_ylim(len(made) - 0.4, -1.5)  # room for the legend
    axes.set(xlabel="seconds", xlim=(0, 1.75 * max(row["total_ms"] for row in made) / 1e3))
    axes.tick_params(axis="y", length=0)
    _plain(axes, "x")
    axes.set_title("First mask of a new process", loc="left", fontsize=9.5, fontweight="bold")
    axes.legend(
        frameon=False, fontsize=8, ncols=4, loc="upper left", columnspacing=0.8, handlelength=0.9, handletextpad=0.4,
        borderaxespad=0.1,
    )  # fmt: skip


def _line(axes: Axes, library: str, across: Sequence[float], up: Sequence[float], label: str) -> None:
    axes.plot(across, up, color=_LIBRARIES[library], marker=_MARKERS[library], ms=4.5, lw=1.5, label=label, zorder=3)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
    _plain(axes, "y")
    axes.legend(frameon=False, fontsize=8, loc="upper left", borderaxespad=0.1, handlelength=1.6)


def _plain(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis=grid, color=_GRID, lw=0.7, zorder=0)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _nothing(axes: Axes) -> None:
    axes.set_visible(False)


def _by_library(rows: Sequence[Found]) -> Dict[str, List[Found]]:
    found: Dict[str, List[Found]] = {}
    for row in rows:
        found.setdefault(row["library"], []).append(row)
    return found


def _pale(colour: str) -> str:
    """The colour mixed with as much white."""
    values = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - 0.45 * (255 - value)):02x}" for value in values)


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
