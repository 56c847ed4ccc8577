"""``rtda-deploy data``: look at a data set before training on it, measure pseudo labels, translate pictures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

import typer

from rtda_training.data.readers.kinds import kinds_text

if TYPE_CHECKING:
    from rtda_training.data.survey import Survey

__all__ = ["check", "labels", "translate"]

_SHOWN = 5  # faults of a kind that are printed; --json has them all


def check(
    data: str = typer.Argument(
        ..., help=f"Data set, kind:path?key=value; its train split unless it says otherwise. Kinds: {kinds_text()}."
    ),
    split: Optional[str] = typer.Option(None, help="train, val, test or all, where the address names none."),
    target: bool = typer.Option(False, "--target", help="A set without labels: look at its pictures alone."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Read every picture and label once: sizes, class shares, and what a training would stop at.

    Exits with 1 where there is such a fault; otherwise keeps an index, which rare class sampling uses.

    Example: rtda-deploy data check "toytown:source?split=val&count=4&size=128x64"
    """
    from rtda_deploy.cli.terminal.console import ProgressLines, print_json
    from rtda_deploy.errors import ConfigError
    from rtda_training.data.address import DataAddress
    from rtda_training.data.survey import survey

    if split is not None:
        if DataAddress.parse(data).split is not None:
            raise ConfigError(f"--split {split}: {data} names a split already", hint="leave one of the two away")
        data += f"{'&' if '?' in data else '?'}split={split}"
    with ProgressLines() as lines:
        found = survey(
            data,
            labels=not target,
            progress=lambda done, total: lines.update("read    pictures", done, total),
            prepare=lambda done, total: lines.update(f"prepare {data}", done, total),
        )
    if json_:
        print_json(found.to_dict())
    else:
        _show(found)
    _end(found, target)


def labels(
    folder: Path = typer.Argument(..., help="Pseudo labels: stages/NAME/labels of a run, or a folder of PNGs."),
    data: str = typer.Option(..., help="The same pictures with their true labels, kind:path?key=value."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Measure pseudo labels against true ones: how many pixels have one, and how many of those are right.

    No training does this: it needs labels that an adaptation does not have.

    Example: rtda-deploy data labels runs/mine/stages/again/labels --data "toytown:target?split=train"
    """
    from rtda_deploy.cli.terminal.console import ProgressLines, print_json, print_table
    from rtda_deploy.cli.train.progress import require_training

    require_training()
    from rtda_training.adapt.labelers.quality import label_quality
    from rtda_training.readers import open_labelled

    with ProgressLines() as lines:
        truth = open_labelled(data, progress=lambda done, total: lines.update(f"prepare {data}", done, total))
        found = label_quality(folder, truth).to_dict()
    if json_:
        print_json({"labels": str(folder), "data": data, "pictures": len(truth), **found})
        return

    def percent(value: Optional[float]) -> Optional[float]:
        return None if value is None else round(100 * value, 2)

    names = ("coverage", "recall", "precision")
    rows = [(name, *(percent(entry[key]) for key in names)) for name, entry in found["classes"].items()]
    print_table(("class", "coverage %", "recall %", "precision %"), rows)
    print(f"coverage {percent(found['coverage'])} %, accuracy {percent(found['accuracy'])} %, {len(truth)} pictures")


def translate(
    translator: Path = typer.Argument(..., help="translator-NAME.pth of a run with a translation stage."),
    data: str = typer.Option(..., help="Pictures to translate, kind:path?key=value."),
    out: Path = typer.Option(..., help="Folder for the pictures; one that is half full is filled up."),
    size: str = typer.Option("", help="WIDTHxHEIGHT to translate at (default: what the translator was trained at)."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:N."),
) -> None:
    """Write pictures in the target's style, for a recipe to read with ?pictures=DIR.

    Example: rtda-deploy data translate runs/mine/translator-f-1.pth --data toytown:source --out translated
    """
    from rtda_deploy.cli.outputs import check_translate
    from rtda_deploy.cli.terminal.console import ProgressLines, note
    from rtda_deploy.cli.train.progress import require_training
    from rtda_deploy.run_folders import working_in

    require_training()
    from rtda_deploy.sizes import parse_size
    from rtda_training.readers import open_unlabelled
    from rtda_training.translated_set import translate_set

    check_translate(translator, data, out)
    with working_in(out), ProgressLines() as lines:
        pictures = open_unlabelled(data, progress=lambda done, total: lines.update(f"prepare {data}", done, total))
        written = translate_set(
            translator,
            pictures,
            out,
            parse_size(size) if size else None,
            device=device,
            progress=lambda done, total: lines.update("translate", done, total),
        )
    print(out)
    note(f"done    {written} pictures written, {len(pictures) - written} were there")
    note(f"use     --source {shlex.quote(data + ('&' if '?' in data else '?') + f'pictures={out}')}")


def _show(found: Survey) -> None:
    from rtda_deploy.cli.terminal.console import print_table

    sizes = ", ".join(f"{size} ({count})" for size, count in list(found.sizes.items())[:_SHOWN])
    more = f" and {len(found.sizes) - _SHOWN} sizes more" if len(found.sizes) > _SHOWN else ""
    print(f"{found.data}: {found.pictures} pictures, {sizes or 'none readable'}{more}")
    if found.labels:
        rows: List[Tuple[Any, ...]] = list(zip(found.class_names, found.percent, found.in_pictures))
        print_table(("class", "% of labelled", "pictures"), rows)
        print(f"{found.labels} labels, {found.ignored_percent:.2f} % of their pixels not labelled")


def _end(found: Survey, target: bool) -> None:
    from rtda_deploy.cli.terminal.console import note, print_next, warn
    from rtda_training.data.survey import FAULTS

    told = [(f"fault: {title}", found.faults[kind], found.fixes.get(kind, "")) for kind, title in FAULTS.items()]
    told.append(("look at: labels of class 0 or of no class alone", found.blank_labels, ""))
    told.append(("unused: labels without a picture", found.no_picture, ""))
    told += [(f"left out: {why}", paths, "") for why, paths in found.left_out.items()]
    for text in found.about:
        note(text)
    for text in found.notes:
        warn(text)
    for title, entries, fix in told:
        if entries:
            warn(f"{title}: {len(entries)}")
            for entry in entries[:_SHOWN]:
                note(f"    {entry}")
            if len(entries) > _SHOWN:
                note(f"    and {len(entries) - _SHOWN} more (--json lists them)")
            if fix:
                note(f"    fix: {fix}")
    if found.index:
        note(f"wrote   {found.index}")
    if found.fault_count:
        if len(found.faults["no_label"]) == found.pictures and not target:
            print_next(f"rtda-deploy data check {shlex.quote(str(found.data))} --target")
        raise typer.Exit(1)
    note("no fault that a training would stop at")
