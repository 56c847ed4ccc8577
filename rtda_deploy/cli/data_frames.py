"""``rtda-deploy data frames``: choose the frames of footage that are worth training on, and look at the choice."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

import typer

if TYPE_CHECKING:
    from rtda_training.data.address import DataAddress
    from rtda_training.data.footage.chosen import ChosenFrames

__all__ = ["frames"]


def frames(
    footage: List[str] = typer.Argument(
        ..., help="Videos or bags: files, a folder, or one address, video:PATH?key=value; options: docs/data.md."
    ),
    out: Optional[Path] = typer.Option(None, help="Write the frames there, as train/images and val/images."),
    every: str = typer.Option("", help="Look at one frame in so much time, such as 2s (default: by length, count)."),
    count: str = typer.Option("", help="Keep at most so many frames, or 10% of those looked at (default: 500)."),
    select: str = typer.Option("", help="none: take every frame of that rate (default: auto, choose)."),
    topic: str = typer.Option("", help="Topic of a bag (default: the only one that has pictures)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Choose frames of footage: dark, blurred and repeated ones out, then the most diverse; says what was dropped.

    The frames are kept in the cache, where train finds them again under the same address; --out writes the pictures.
    The end of the footage is held back from training (?hold_back=20%).

    Example: rtda-deploy data frames drive.mp4 --count 20 --out frames
    """
    from rtda_deploy.cli.outputs import check_frames
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_next, warn
    from rtda_deploy.run_folders import working_in
    from rtda_training.data.footage.chosen import chosen_frames
    from rtda_training.data.footage.written import refuse_foreign, write_frames

    address = _address(",".join(footage), {"every": every, "count": count, "select": select, "topic": topic})
    split = "val" if address.split == "test" else address.split or "all"
    written = 0
    if out is not None:
        check_frames(str(address), out)
        refuse_foreign(out)
    with contextlib.nullcontext() if out is None else working_in(out), ProgressLines() as lines:
        found = chosen_frames(address, lambda done, total: lines.update("choose  frames", done, total))
        if out is not None:
            told: Callable[[int, int], None] = lambda done, total: lines.update("write   frames", done, total)  # noqa: E731
            written = write_frames(found, out, split, told)
    values = _values(address, found, split, out, written)
    for text in _notes(found):
        warn(text)
    if json_:
        print_json(values)
        return
    _show(found, values)
    if found.sheet.is_file():  # select=none draws none
        note(f"look    {found.sheet if out is None else out / found.sheet.name}")
    if out is not None:
        print(out)
        note(f"done    {written} frames written, {values['written_before']} were there")
    target = f"folder:{out}" if out is not None else str(address)
    print_next(f"rtda-deploy train --source DATA --target {shlex.quote(target)}")


def _address(text: str, typed: Dict[str, str]) -> DataAddress:
    """The address of the argument, with what was typed as flags.

    Raises:
        ConfigError: If it is no footage, or a flag says what the address says.
    """
    from rtda_deploy.errors import ConfigError
    from rtda_training.data.address import DataAddress
    from rtda_training.data.readers.kinds import data_kind

    address = DataAddress.parse(text)
    if data_kind(address.kind).labelled:
        raise ConfigError(
            f"{address} is no footage: its pictures are there already",
            hint=f"look at them: rtda-deploy data check {shlex.quote(str(address))}",
        )
    for key, value in typed.items():
        if value and key in address.options:
            raise ConfigError(f"--{key} {value}: {address} says {key}= already", hint="leave one of the two away")
        if value:
            address = address.with_option(key, value)
    return address


def _values(address: DataAddress, found: ChosenFrames, split: str, out: Optional[Path], written: int) -> Dict[str, Any]:
    """JSON-ready; what ``--json`` prints."""
    record, hold_back = found.record, found.asked.hold_back
    kept = {split: len(record.part(split, hold_back)) for split in ("train", "val")}
    wanted = sum(kept.values()) if split == "all" else kept[split]
    return {
        "footage": str(address),
        "recordings": [recording.name for recording in record.recordings],
        "frames": record.total,
        "seconds": round(record.length_s, 3),
        "every_s": record.every_s,
        "looked_at": record.looked_at,
        "dropped": {reason: len(names) for reason, names in record.dropped.items()},
        "why": record.why,
        "kept": len(record.frames),
        "train": kept["train"],
        "val": kept["val"],
        "held_back_s": round(record.held_back_s(hold_back), 3),
        "notes": _notes(found),
        "cache": str(found.folder),
        "sheet": str(found.sheet) if found.sheet.is_file() else None,
        "out": None if out is None else str(out),
        "written": written,
        "written_before": 0 if out is None else wanted - written,
    }


def _notes(found: ChosenFrames) -> List[str]:
    record, hold_back = found.record, found.asked.hold_back
    held_back_s = record.held_back_s(hold_back)
    notes = list(record.doubts())
    if held_back_s and not record.part("val", hold_back):
        notes.append(f"no frame is held back: none was kept of the last {held_back_s:.1f} s; ?hold_back= holds more")
    return notes


def _show(found: ChosenFrames, values: Dict[str, Any]) -> None:
    from rtda_deploy.cli.terminal.console import clock_text, print_table

    record = found.record
    rate = "every frame" if record.every_s is None else f"one in {record.every_s:.3g} s"
    length = clock_text(record.length_s)
    number = len(record.recordings)
    rows: List[Tuple[str, int, str]] = [
        ("in the footage", record.total, f"{length} long, {number} recording{'s' * (number > 1)}"),
        ("looked at", record.looked_at, rate),
    ]
    rows += [(f"dropped: {reason}", count, record.why.get(reason, "")) for reason, count in values["dropped"].items()]
    rows += [
        ("kept", values["kept"], ""),
        ("  to train on", values["train"], "?split=train, as it is where nothing is typed"),
    ]
    if values["held_back_s"]:
        rows.append(("  held back", values["val"], f"?split=val, the last {values['held_back_s']:.1f} s"))
    print_table(("frames", "number", ""), rows)
