"""``rtda-deploy data cvat``: labels to CVAT for correction, and back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Optional

import typer

__all__ = ["cvat"]


def cvat(
    data: str = typer.Argument(..., help="Labelled pictures, such as a folder of run --collect: folder:hard."),
    out: Optional[Path] = typer.Option(None, help="The archive to write (default: annotations.zip)."),
    corrected: Optional[Path] = typer.Option(None, help="CVAT's export of the task: write its masks over the labels."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Labels as CVAT's "Segmentation mask 1.1", to be corrected there; --corrected brings them back.

    Beside the archive stands NAME.labels.json, for the field "Raw" of the labels of a new task.

    Example: rtda-deploy data cvat "toytown:source?split=val&count=2&size=64x32" --out annotations.zip
    """
    from rtda_deploy.errors import ConfigError

    if corrected is None:
        _write(data, out or Path("annotations.zip"), json_=json_)
    elif out is not None:
        raise ConfigError("--out and --corrected were given", hint="one writes an archive, the other reads one")
    else:
        _take_back(data, corrected, json_=json_)


def _write(data: str, out: Path, *, json_: bool) -> None:
    from rtda_deploy.cli.outputs import check_cvat
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_next
    from rtda_deploy.files import write_text
    from rtda_training.data.cvat import write_cvat
    from rtda_training.data.cvat_label_map import cvat_labels

    labels = out.with_suffix(".labels.json")
    check_cvat(data, (out, labels))
    with ProgressLines() as lines:
        count, classes = write_cvat(data, out, lambda done, total: lines.update("write   masks", done, total))
    write_text(labels, cvat_labels(classes))
    if json_:
        print_json({"data": data, "masks": count, "archive": str(out), "labels": str(labels)})
        return
    print(out)
    note(f"done    {count} masks; {labels} holds the labels of the task")
    note('CVAT    new task: paste the labels into "Raw", add the pictures; then upload annotations,')
    note(f'        "Segmentation mask 1.1", {out}; when they are corrected, export the task in that format')
    print_next(f"rtda-deploy data cvat {shlex.quote(data)} --corrected EXPORT.zip")


def _take_back(data: str, corrected: Path, *, json_: bool) -> None:
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_next, warn
    from rtda_deploy.files import readable_file
    from rtda_training.data.cvat import apply_corrections

    readable_file(corrected, what="archive")
    with ProgressLines() as lines:
        found = apply_corrections(data, corrected, lambda done, total: lines.update("write   labels", done, total))
    if found.unknown:
        warn(f"{len(found.unknown)} masks have the name of no picture, such as {found.unknown[0]}")
    if json_:
        print_json({"data": data, **found._asdict()})
        return
    print(f"{found.changed} labels changed ({100 * found.pixels:.2f} % of the pixels), {found.same} as they were")
    if found.own:
        which = "all of them" if found.own == found.changed + found.same else f"{found.own} of them"
        warn(f"{which} are masks as a network wrote them: --check {data} would favour that network")
    if found.changed or not found.own:
        note(f"use     --check {shlex.quote(data)}, or --source {shlex.quote(data)} to train on them")
        print_next(f"rtda-deploy data check {shlex.quote(data)}")
    else:
        note("use     correct masks in CVAT, and export the task")
        print_next(f"rtda-deploy data cvat {shlex.quote(data)} --corrected EXPORT.zip")
