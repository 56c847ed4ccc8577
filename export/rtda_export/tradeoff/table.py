"""The comparison as a table in Markdown, for a README or an issue."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

__all__ = ["markdown"]


def markdown(values: Mapping[str, Any]) -> str:
    """A table of what ``Comparison.to_dict`` gives (``tradeoff.json``), the fastest first, and how it was measured.

    Points that no other beats are bold where there are scores; without scores there is no such column.
    """
    points: List[Dict[str, Any]] = list(values["points"])
    scored = any(point["miou"] is not None for point in points)
    head = ["network", "size", "precision", *["mIoU"] * scored, "ms", "a second"]
    lines = [_row(head), _row(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for point in points:
        name = f"**{point['name']}**" if scored and point["frontier"] else point["name"]
        score = ["–" if point["miou"] is None else f"{point['miou']:.1f}"] * scored
        times = [f"{point['ms']:.1f} ({point['low_ms']:.1f} to {point['high_ms']:.1f})", f"{point['per_second']:.1f}"]
        lines.append(_row([name, point["size"], _computed_in(point), *score, *times]))
    return "\n".join([*lines, "", _measured(values), ""])


def _computed_in(point: Mapping[str, Any]) -> str:
    """The precision of the file, and that it ran in where it is another one."""
    in_bf16 = point["precision"] == "fp32" and " in bf16" in point["runs_on"]
    return "fp32, run in bf16" if in_bf16 else str(point["precision"])


def _measured(values: Mapping[str, Any]) -> str:
    frame = f", frames of {values['frame']}" if values["frame"] else ""
    text = f"{values['machine']}; {values['times']}{frame}."
    if values["data"]:
        text += f" mIoU on {values['pictures']} pictures of `{values['data']}`."
    return f"{text} {_sentence(values['choice'])}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _row(cells: List[str]) -> str:
    return f"| {' | '.join(cells)} |"
