"""An estimate as a picture: the roofline with the network's layers on it, and the parts of it that take longest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtda_deploy.files import atomic_path
from rtda_deploy.optional import require
from rtda_export.precision import ENGINE_DEFAULT
from rtda_export.roofline.estimator import Estimate, LayerTime, PrecisionEstimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["save_picture"]

_SHOWN = 14  # bars
_COLOURS = {"compute": "#c2410c", "memory": "#1d4ed8", "floor": "#6b7280"}
_WORDS = {"compute": "limited by arithmetic", "memory": "limited by memory", "floor": "limited by the launch floor"}
_INK, _FAINT = "#1f2937", "#9ca3af"


def save_picture(estimate: Estimate, path: str | Path, *, precision: str = ENGINE_DEFAULT.name, name: str = "") -> Path:
    """Draw one precision of an estimate.

    Args:
        estimate: As :func:`rtda_export.roofline.estimator.estimate` gives it.
        path: ``.png`` or ``.svg`` to write, whole or not at all.
        precision: Which of its precisions.
        name: Of the network, in the title; empty: the model's file name.

    Raises:
        FileAccessError: If it cannot be written.
        MissingPackageError: If matplotlib is not installed.
    """
    require("matplotlib", extra="training", purpose="to draw the picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = next(entry for entry in estimate.precisions if entry.precision == precision)
    figure = Figure(figsize=(13.5, 6.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    roof, bars = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    _draw_roof(roof, estimate, found)
    _draw_bars(bars, found)
    low, high = found.range_fps
    _, _, height, width = estimate.input_shape
    figure.suptitle(
        f"{name or Path(estimate.model).name}, {width}x{height}, {precision} on {estimate.device.title}\n"
        f"expected {found.expected_fps:.0f} FPS ({low:.0f} to {high:.0f}), bound {found.bound_fps:.0f} FPS",
        color=_INK,
        fontsize=13,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None} if temporary.suffix == ".png" else None)
    return Path(path)


def _draw_roof(axes: Axes, estimate: Estimate, found: PrecisionEstimate) -> None:
    device, shares = estimate.device, estimate.achieved
    peak = device.peak(found.arithmetic)
    points = [entry for entry in found.layers if entry.layer.macs]
    around = [_intensity(entry) for entry in points] or [1.0]
    left, right = min(*around, 1.0) / 2, max(*around, 2e3 * peak / device.bandwidth) * 2
    for part, bandwidth, colour, style, label in (
        (peak, device.bandwidth, _FAINT, "--", "data sheet"),
        (peak * shares.compute, device.bandwidth * shares.bandwidth, _INK, "-", "reached by published engines"),
    ):
        knee = 1e3 * part / bandwidth  # operations a byte
        heights = [left * bandwidth / 1e3, part, part]
        axes.plot([left, knee, right], heights, color=colour, ls=style, lw=1.8, label=label, zorder=2)
    for limit, colour in _COLOURS.items():
        mine = [entry for entry in points if entry.limit == limit]
        axes.scatter(
            [_intensity(entry) for entry in mine],
            [_speed(entry) for entry in mine],
            s=[30 + 900 * entry.expected_ms / found.expected_ms for entry in mine],
            color=colour,
            alpha=0.65,
            edgecolor="white",
            linewidth=0.8,
            zorder=3,
        )
        if mine:  # a point of its own for the legend, where areas mean nothing
            axes.scatter([], [], s=60, color=colour, alpha=0.65, label=_WORDS[limit])
    slowest = min((_speed(entry) for entry in points if entry.limit != "floor"), default=peak)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(min(slowest, peak / 50) / 3, peak * 2))
    axes.set_xlabel("operations per byte of memory traffic")
    axes.set_ylabel("10¹² operations per second")
    axes.set_title("Layers with arithmetic; area: share of the time", fontsize=10.5, color=_INK)
    axes.legend(loc="lower right", fontsize=9, framealpha=0.95)
    _plain(axes)
    axes.grid(True, which="major", color="#e5e7eb", lw=0.7, zorder=0)


def _draw_bars(axes: Axes, found: PrecisionEstimate) -> None:
    parts = _parts(found)
    for place, (_, times) in enumerate(parts):
        start = 0.0
        for limit, time_ms in times.items():
            axes.barh(place, time_ms, left=start, color=_COLOURS[limit], height=0.72)
            start += time_ms
        text = f" {start:.2f} ms  {100 * start / found.expected_ms:.0f} %"
        axes.text(start, place, text, va="center", fontsize=9, color=_INK)
    axes.set_yticks(range(len(parts)), [name for name, _ in parts], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(sum(times.values()) for _, times in parts))
    axes.set_xlabel("milliseconds, expected")
    axes.set_title(f"Where {found.expected_ms:.2g} ms go, by part of the network", fontsize=10.5, color=_INK)
    _plain(axes)


def _parts(found: PrecisionEstimate) -> list[tuple[str, dict[str, float]]]:
    """Milliseconds under each limit of each part of the network, the slowest first; small parts together at the end."""
    times: dict[str, dict[str, float]] = {}
    for entry in found.layers:
        part = times.setdefault(".".join(entry.layer.label.split(".")[:2]), dict.fromkeys(_COLOURS, 0.0))
        part[entry.limit] += entry.expected_ms
    ordered = sorted(times.items(), key=lambda item: -sum(item[1].values()))
    rest = [part for _, part in ordered[_SHOWN:]]
    if not rest:
        return ordered
    together = {limit: sum(part[limit] for part in rest) for limit in _COLOURS}
    return [*ordered[:_SHOWN], (f"{len(rest)} other parts", together)]


def _intensity(entry: LayerTime) -> float:
    return 2 * entry.layer.macs / entry.bytes_moved


def _speed(entry: LayerTime) -> float:
    return 2 * entry.layer.macs / entry.expected_ms / 1e9


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
