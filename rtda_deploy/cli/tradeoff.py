"""``rtda-deploy tradeoff``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional

import typer

from rtda_export.precision import known_precisions

if TYPE_CHECKING:
    from rtda_export.tradeoff.comparison import Comparison

__all__ = ["tradeoff"]


def tradeoff(
    models: List[Path] = typer.Argument(..., help="Checkpoints (.pth) and .onnx files."),
    data: str = typer.Option("", help="Labelled pictures (DATA) to score on; without, times alone are compared."),
    size: List[str] = typer.Option([], help="WIDTHxHEIGHT of the .pth; may be repeated (default: as trained)."),
    precision: str = typer.Option("fp32,int8", help=f"Separated by commas: {known_precisions()}."),
    device: str = typer.Option("", help="Estimate for it, such as xavier-agx (default: timed on this machine)."),
    rate: float = typer.Option(30.0, min=0.1, help="Masks a second that you need."),
    frame: str = typer.Option("1280x720", help="Size of the camera's frames (nothing to --device)."),
    verify: Optional[str] = typer.Option(None, help="Pictures that exports are verified on."),
    calibrate: Optional[str] = typer.Option(None, help="To calibrate INT8 on: a folder, video, bag."),
    max_pictures: int = typer.Option(100, min=0, help="Of the data, spread evenly (0: all)."),
    rounds: int = typer.Option(7, min=1, help="In which each is timed, all in turns (nothing to --device)."),
    out: Path = typer.Option(Path("runs/tradeoff"), help="Folder of files, table, picture; goes on there."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Compare models, sizes and precisions: how right, how fast, and which one to take.

    Example: rtda-deploy tradeoff last.pth model.onnx --data toytown:target --precision fp32
    """
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_next, warn
    from rtda_deploy.files import writable_folder, write_text
    from rtda_deploy.sizes import parse_size
    from rtda_export.tradeoff.comparison import compare
    from rtda_export.tradeoff.making import Maker, variants
    from rtda_export.tradeoff.table import markdown

    sizes = [parse_size(text) for text in size]
    frame_hw = parse_size(frame)
    folder = writable_folder(out)
    wanted = variants(models, sizes, [name.strip() for name in precision.split(",") if name.strip()], warn)
    labelled = _opened(data)
    maker = Maker(
        folder / "files", verify=verify, calibrate=calibrate, int8_target="tensorrt" if device else "cpu", tell=note
    )
    with ProgressLines() as lines:
        found = compare(
            wanted,
            maker,
            data=labelled,
            max_pictures=max_pictures,
            address=data,
            frame=_frame(labelled, frame_hw),
            device=device,
            per_second=rate,
            rounds=rounds,
            tell=warn,
            progress=lines.update,
        )
    content = found.to_dict()
    write_text(folder / "tradeoff.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    written = [folder / "tradeoff.json", write_text(folder / "tradeoff.md", markdown(content))]
    if labelled is not None:
        from rtda_export.tradeoff.picture import save_picture

        written.append(save_picture(found, folder / "tradeoff.png"))
    if json_:
        print_json(content)
    else:
        _show(found)
    for path in written:
        note(f"wrote   {path}")
    if not data:
        warn("no --data: which one is right is not known, and the fastest is proposed")
    _next(found, print_next)


def _opened(address: str) -> Any:
    if not address:
        return None
    from rtda_training.readers import open_labelled

    return open_labelled(address, split="test")


def _frame(labelled: Any, size_hw: Any) -> Any:
    """A picture as a camera would give it: the data's first one, else a smooth one."""
    import cv2
    import numpy as np

    height, width = size_hw
    if labelled is not None:
        return cv2.resize(labelled.frame(0), (width, height), interpolation=cv2.INTER_AREA)
    down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = np.sin(7 * across + np.arange(3)) * np.cos(5 * down - np.arange(3))
    return np.ascontiguousarray((127.5 * (waves + 1)).astype(np.uint8))


def _show(found: Comparison) -> None:
    from rtda_deploy.cli.terminal.console import print_table
    from rtda_export.tradeoff.points import frontier

    best = frontier(found.points)
    rows = []
    for point in found.points:
        height, width = point.variant.size_hw
        rows.append(
            (
                point.variant.name,
                f"{width}x{height}",
                point.variant.precision,
                "–" if point.miou is None else f"{point.miou:.1f}",
                f"{point.ms:.1f}",
                f"{point.low_ms:.1f} to {point.high_ms:.1f}",
                f"{1e3 / point.ms:.1f}",
                "best" if point in best else "",
            )
        )
    times = "frame to mask" if found.whole_way else "network alone, estimated"
    heads = ("model", "size", "precision", "mIoU %", "ms", "rounds" if found.whole_way else "range", "a second", "")
    print_table(heads, rows, title=f"{found.machine}, {times}")
    print(found.sentence)


def _next(found: Comparison, print_next: Any) -> None:
    from rtda_export.tradeoff.points import choice

    taken = choice(found.points, found.per_second)
    if taken is not None and found.whole_way:
        print_next(f"rtda-deploy bench {shlex.quote(str(taken.file))} --rate {found.per_second:g}")
