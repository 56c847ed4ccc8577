"""The table of an ablation for people, and its page: shaped as the papers print it, with the printed rows beside.

Everything here reads what :func:`rtda_training.grids.results.assemble` gives, or a ``results.json`` of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtda_deploy.report import ReportPage
from rtda_training.grids.results import MIOUS

__all__ = [
    "csv_table",
    "failures",
    "gain_lines",
    "heat_lines",
    "markdown_table",
    "notes",
    "shown_mious",
    "table_lines",
    "write_grid_page",
]

_DASH = "–"


def shown_mious(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys and headings of the mIoU columns: one where all classes are Cityscapes' 19, and every protocol that fits."""
    keys = [key for key in MIOUS if any(key in row for row in results["rows"])]
    if "miou19" in keys:
        keys.remove("miou")
    return [(key, f"mIoU{key.removeprefix('miou')}") for key in keys] or [("miou", "mIoU")]


def table_lines(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The paper-shaped table: headings, and a line per measured row followed by its printed one."""
    classes, mious = results["classes"], shown_mious(results)
    headers = ["", *classes, *(heading for _, heading in mious), "pixel acc."]
    lines = []
    for row in results["rows"]:
        numbers = [row["iou"].get(name) for name in classes] + [row.get(key) for key, _ in mious]
        lines.append([row["label"], *(_measured(value) for value in numbers), _measured(row.get("pixel_accuracy"))])
        printed = row["published"]
        if printed:
            cells = [_figure(printed["iou"].get(name), 1) for name in classes]
            cells += [_figure(printed["miou"] if _is_protocol(key, printed) else None, 1) for key, _ in mious]
            mark = "*" if not printed["averages"] else ""
            lines.append([f"printed: {printed['row']}{mark}", *cells, _figure(printed["pixel_accuracy"], 1)])
    return headers, lines


def heat_lines(results: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[float | None]]]:
    """The same table as numbers, means only: columns, names of the lines, values."""
    classes, mious = results["classes"], shown_mious(results)
    names: list[str] = []
    values: list[list[float | None]] = []
    for row in results["rows"]:
        keys = [*(key for key, _ in mious), "pixel_accuracy"]
        means = [row["iou"].get(name, {}).get("mean") for name in classes]
        means += [row.get(key, {}).get("mean") for key in keys]
        names.append(row["label"])
        values.append([None if mean is None else round(mean, 1) for mean in means])
        printed = row["published"]
        if printed:
            figures = [printed["iou"].get(name) for name in classes]
            figures += [printed["miou"] if _is_protocol(key, printed) else None for key, _ in mious]
            names.append("printed" + ("" if printed["averages"] else "*"))
            values.append([*(None if f is None else round(f, 1) for f in figures), printed["pixel_accuracy"]])
    return [*classes, *(heading for _, heading in mious), "pixel acc."], names, values


def gain_lines(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What each row gains and costs, and how its printed counterpart did."""
    key, heading = shown_mious(results)[0]
    controlled = any(row.get("control") for row in results["rows"])
    gains = ["gain", "over control"] if controlled else ["gain"]
    ranked = any(row.get("best_miou", {}).get("mean") is not None for row in results["rows"])
    headers = [
        "",
        heading,
        *(["ranked best"] if ranked else []),
        *gains,
        "of oracle",
        "seeds",
        "steps",
        "s/step",
        "printed",
        "printed with",
    ]
    lines = []
    for row in results["rows"]:
        done = sum(entry["status"] == "done" for entry in row["seeds"].values())
        printed = row["published"] or {}
        differs = [entry["printed"] for entry in printed.get("differs", [])]
        differs = (
            [", ".join(differs) or "the same", *([printed["note"]] if printed["note"] and printed["averages"] else [])]
            if printed
            else []
        )
        lines.append(
            [
                row["label"],
                _measured(row.get(key)) if done else _status(row),
                *([_measured(row.get("best_miou"))] if ranked else []),
                _with_interval(row, "gain"),
                *([_with_interval(row, "over_control")] if controlled else []),
                _figure(row["of_oracle"], 0, " %"),
                f"{done}/{len(row['seeds'])}",
                " + ".join(map(str, row["steps"])),
                _figure(row["seconds_per_step"], 3),
                _figure(printed.get("miou"), 1) + ("*" if printed and not printed["averages"] else ""),
                "; ".join(differs) or _DASH,
            ]
        )
    return headers, lines


def notes(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    found = [
        f"IoU in percent on {results['scored_on']}, last checkpoint; {results['source']} -> {results['target']}.",
        "± is the sample standard deviation over seeds."
        if len(results["seeds"]) > 1
        else "One seed: differences of a point or two may be chance.",
    ]
    if results["baseline"]:
        found.append(f"gain: points over {results['baseline']!r}, over the seeds that both have.")
    if any(row.get("best_miou", {}).get("mean") is not None for row in results["rows"]):
        how = f"by the labels of {results['check']}" if results.get("check") else "without labels"
        found.append(f"ranked best: mIoU of the network of the run that ranks first on the target, {how}.")
    if any(row.get("gain_interval") for row in results["rows"]):
        found.append("in brackets: 95 % interval of the mean difference of two rows with the same seed (Student's t).")
    found += _control_notes(results)
    absent = [
        name
        for name in results["classes"]
        if any(row["iou"] for row in results["rows"])
        and all(row["iou"].get(name, {}).get("mean") is None for row in results["rows"])
    ]
    if absent:
        found.append(f"not in the labels, and in no mean: {', '.join(absent)}.")
    for row in results["rows"]:
        printed = row["published"]
        if printed and not printed["averages"]:
            why = f" ({printed['note']})" if printed["note"] else ""
            found.append(
                f"* {printed['table']}, {printed['row']}: the printed classes average to {printed['mean']:.2f}, not to"
                f" the printed {printed['miou']:.2f}{why}."
            )
    found += [f"failed: {', '.join(names)}: {error}." for error, names in failures(results).items()]
    papers = dict.fromkeys(row["published"]["paper"] for row in results["rows"] if row["published"])
    if papers:
        found.append(f"printed rows: {'; '.join(papers)}.")
    return found


def _control_notes(results: Mapping[str, Any]) -> list[str]:
    """What the controls are, which row has which, and why a row has none."""
    users: dict[str, list[str]] = {}
    without: dict[str, list[str]] = {}
    controls = {row["control"] for row in results["rows"] if row.get("control")}
    for row in results["rows"]:
        if row.get("control"):
            users.setdefault(row["control"], []).append(row["label"])
        elif row.get("without") and row["label"] not in controls:
            without.setdefault(row["without"], []).append(row["label"])
    if not users:
        return []
    told = ["over control: points over the same training whose method tells the network nothing: what the method adds."]
    told += [
        f"{control}: of {'; '.join(rows)}."
        for control, rows in users.items()
        if rows != [control.removeprefix("Control of ")]
    ]
    return told + [f"no control: {'; '.join(rows)}: {why}." for why, rows in without.items()]


def failures(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Errors, and which rows and seeds ended in each."""
    found: dict[str, list[str]] = {}
    for row in results["rows"]:
        for seed, entry in row["seeds"].items():
            if entry["status"] == "failed":
                found.setdefault(entry["error"], []).append(f"{row['label']} (seed {seed})")
    return found


def markdown_table(results: Mapping[str, Any]) -> str:
    """``table.md``."""
    parts = [f"# {results['name']}", results["description"]]
    parts += [_markdown(*table_lines(results)), _markdown(*gain_lines(results), words=("printed with",))]
    parts.append("\n".join(f"- {text}" for text in notes(results)))
    return "\n\n".join(part for part in parts if part) + "\n"


def csv_table(results: Mapping[str, Any]) -> list[list[Any]]:
    """``table.csv``: a header, then one line per row and per printed row; empty where nothing is known."""
    classes, mious = results["classes"], shown_mious(results)
    numbers = ["pixel_accuracy", *(key for key, _ in mious)]
    header = [
        "kind",
        "row",
        "seeds",
        "steps",
        *classes,
        *(f"{key}{end}" for key in [*numbers, "best_miou"] for end in ("", "_spread")),
    ]
    lines: list[list[Any]] = [[*header, "gain", "over_control", "of_oracle", "seconds_per_step", "differs"]]
    for row in results["rows"]:
        values = [row["iou"].get(name, {}).get("mean") for name in classes]
        values += [row.get(key, {}).get(end) for key in [*numbers, "best_miou"] for end in ("mean", "spread")]
        done = sum(entry["status"] == "done" for entry in row["seeds"].values())
        ends = [row["gain"], row.get("over_control"), row["of_oracle"], row["seconds_per_step"], None]
        lines.append(["measured", row["label"], done, sum(row["steps"]), *values, *ends])
        printed = row["published"]
        if printed:
            values = [printed["iou"].get(name) for name in classes]
            values += [printed["pixel_accuracy"], None]
            for key, _ in mious:
                values += [printed["miou"] if _is_protocol(key, printed) else None, None]
            values += [None, None]
            differs = [f"{each['what']} {each['ours']} (printed: {each['printed']})" for each in printed["differs"]]
            ends = [None, None, None, None, "; ".join(differs)]
            lines.append(["printed", printed["key"], None, None, *values, *ends])
    return [["" if value is None else value for value in line] for line in lines]


def _is_protocol(key: str, printed: Mapping[str, Any]) -> bool:
    return bool(key == f"miou{printed['protocol']}")


def _measured(value: Mapping[str, Any] | None) -> str:
    if not value or value["mean"] is None:
        return _DASH
    return f"{value['mean']:.1f}" + ("" if value["spread"] is None else f" ± {value['spread']:.1f}")


def _status(row: Mapping[str, Any]) -> str:
    states = dict.fromkeys(entry["status"] for entry in row["seeds"].values())
    return ", ".join(states)


def _figure(value: float | None, digits: int, unit: str = "") -> str:
    return _DASH if value is None or math.isnan(value) else f"{value:.{digits}f}{unit}"


def _signed(value: float | None) -> str:
    return _DASH if value is None else f"{round(value, 1) + 0.0:+.1f}"  # never -0.0


def _with_interval(row: Mapping[str, Any], key: str) -> str:
    interval = row.get(f"{key}_interval")
    return _signed(row[key]) + (f" ({_signed(interval[0])} to {_signed(interval[1])})" if interval else "")


def _markdown(headers: Sequence[str], lines: Iterable[Sequence[str]], words: Sequence[str] = ()) -> str:
    rule = ["---", *("---" if header in words else "---:" for header in headers[1:])]
    rows = [headers, rule, *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
