"""What was measured: a file for each finished row, so that a run goes on where it stopped; one JSON and one table."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from rtda_deploy.files import write_text

FORMAT = "rtda.jetson/1"

_HEAD = (
    "power mode",
    "network",
    "input",
    "precision",
    "network ms p50 / p95 / p99",
    "end to end ms p50 / p95 / p99",
    "frames/s",
    "GPU MHz",
    "max C",
    "W",
    "mJ/frame",
)


class Rows:
    """Finished rows in a folder.

    Args:
        folder: One ``.json`` a row below ``rows/``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def found(self, key: str, made_of: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
        """The row, if it was measured with the same files, settings and versions; else None."""
        try:
            row = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = isinstance(row, dict) and row.get("made_of") == json.loads(json.dumps(made_of))
        return row if same else None

    def keep(self, key: str, made_of: Mapping[str, Any], row: Mapping[str, Any]) -> Dict[str, Any]:
        """Write a finished row, whole or not at all."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        whole = {"key": key, "measured": now, "made_of": dict(made_of), **row}
        write_text(self._path(key), json.dumps(whole, indent=2) + "\n")
        return whole

    def _path(self, key: str) -> Path:
        return self._folder / "rows" / (re.sub(r"[^A-Za-z0-9.]+", "-", key) + ".json")


def write_report(folder: Path, record: Mapping[str, Any]) -> List[Path]:
    """Write ``jetson.json`` and ``jetson.md``; their paths."""
    return [
        write_text(folder / "jetson.json", json.dumps({"format": FORMAT, **record}, indent=2) + "\n"),
        write_text(folder / "jetson.md", markdown(record)),
    ]


def markdown(record: Mapping[str, Any]) -> str:
    """The whole report as Markdown: the board, the rows, the sustained runs, and what the figures mean."""
    lines = [f"# {title(record['board'])}", ""]
    lines += [f"- {line}" for line in _facts(record)]
    lines += ["", *table(record["rows"])]
    for run in record["sustained"]:
        lines += ["", f"## {run['key']}", "", *_sustained_lines(run)]
    return "\n".join(lines) + "\n"


def title(board: Mapping[str, Any]) -> str:
    """``NVIDIA Jetson AGX Xavier Developer Kit, Jetson Linux 35.4.1``."""
    if not board["is_jetson"]:
        return "Not a Jetson: no power figures"
    return f"{board['model'] or 'A Jetson'}, Jetson Linux {board['l4t'] or 'of unknown release'}"


def table(rows: Sequence[Mapping[str, Any]]) -> List[str]:
    """The rows as lines of a Markdown table."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + " --- |" * len(_HEAD)]
    for row in rows:
        seen = row["telemetry"] or {}
        energy = row["energy_j"]
        cells = (
            row["mode"] or "-",
            row["network"],
            f"{row['size_wh'][0]}x{row['size_wh'][1]}",
            row["precision"],
            _shares(row["engine_ms"]),
            _shares(row["end_to_end_ms"]),
            f"{row['fps']:.1f}",
            _number(seen.get("gpu_mhz"), 0),
            _number(seen.get("temperature_max_c"), 0),
            _number(seen.get("power_w"), 1),
            _number(energy * 1e3 if energy is not None else None, 0),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _facts(record: Mapping[str, Any]) -> List[str]:
    settings, board = record["settings"], record["board"]
    frame = f"{settings['frame_wh'][0]}x{settings['frame_wh'][1]}"
    facts = [
        f"{record['library']}; frames {frame} in memory, one after the other; {settings['seconds']:g} s a row after "
        f"{settings['warmup_s']:g} s of warm-up",
        "network: one call by the host's clock, copies included; end to end: preprocessing, network, mask at the "
        "frame's size; the camera is not in it",
    ]
    shares = [row["border_share"] for row in record["rows"]]
    if shares:
        facts.append(
            f"{100 * min(shares):.2f} to {100 * max(shares):.2f} % of the masks' pixels lie on a border of classes; "
            "making the mask takes longer with more of them"
        )
    for mode in record["idle"]:
        seen = mode["telemetry"]
        power = _number(seen["power_w"] if seen else None, 1)
        rails = " + ".join(seen["power_rails"]) if seen else ""
        text = f"idle in {mode['mode'] or 'the mode found'}: {power} W" + (f" ({rails})" if rails else "")
        if mode["gpu_clock"]:
            clock = mode["gpu_clock"]
            held = "locked" if clock["least_mhz"] == clock["most_mhz"] else f"from {clock['least_mhz']}"
            text += f"; GPU clock {held}, at most {clock['most_mhz']} MHz"
        facts.append(text)
    if board["is_jetson"]:
        facts.append("W is the module's power; the carrier board, the camera and the supply's loss are not in it")
        facts.append("mJ/frame is W over frames/s, idle power included")
    facts += board["missing"]
    facts += record["notes"]
    return facts


def _sustained_lines(run: Mapping[str, Any]) -> List[str]:
    lines = [
        f"{run['minutes']:g} minutes: {run['fps_first']:.1f} frames/s at first, {run['fps_last']:.1f} at last "
        f"({100 * run['change']:+.1f} %)"
    ]
    lines += ["", "| s | frames/s | p95 ms | C | GPU MHz | W |", "| --- | --- | --- | --- | --- | --- |"]
    step = max(1, len(run["buckets"]) // 20)
    for bucket in run["buckets"][::step]:
        cells = [f"{bucket['at_s']:.0f}", f"{bucket['fps']:.1f}", f"{bucket['p95_ms']:.1f}"]
        cells += [
            _number(bucket[key], places) for key, places in (("temperature_c", 0), ("gpu_mhz", 0), ("power_w", 1))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _shares(values: Mapping[str, float]) -> str:
    return " / ".join(f"{values[key]:.1f}" for key in ("p50", "p95", "p99"))


def _number(value: Optional[float], places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
