"""``rtda-deploy verify``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Optional

import typer

from rtda_export.precision import FP32, known_limits

__all__ = ["verify"]


def verify(
    a: Path = typer.Argument(..., help="The reference: .pth, .onnx or an engine."),
    b: Path = typer.Argument(..., help="What is compared with it."),
    frames: str = typer.Option(..., help="Pictures: a file, a folder, a video, a bag."),
    limit: str = typer.Option(FP32.name, help=f"How far apart they may be: {known_limits()}."),
    max_frames: int = typer.Option(8, min=1, help="Pictures to compare, spread evenly."),
    force: bool = typer.Option(False, "--force", help="Exit 0 even past the limit."),
    out: Optional[Path] = typer.Option(None, help="Folder for verify.html (default: beside B)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Compare two models on the same real frames: logits, masks, classes, and the worst frame as a picture.

    Where one of them gives masks only, the masks are compared. Which of two checkpoints is better, eval says.

    Example: rtda-deploy verify last.pth last.onnx --frames frames/
    """
    from rtda_deploy.cli.outputs import check_verify
    from rtda_deploy.cli.terminal.console import note, print_json, print_table
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.model_files import is_checkpoint_name
    from rtda_export import verify as compare
    from rtda_export.parity.report import exponent, percent

    if is_checkpoint_name(a) and is_checkpoint_name(b) and not force:
        first, second = shlex.quote(str(a)), shlex.quote(str(b))
        raise ConfigError(
            f"{a.name} and {b.name} are both checkpoints",
            why="verify says whether a file computes what it was made from; two trainings never compute the same",
            hint=f"which is better: rtda-deploy eval {first} --data DATA, and the same with {second}   "
            "(how often their masks differ: add --force)",
        )
    check_verify(a, b, frames, out)
    report = compare(a, b, frames, limit=limit, out_dir=out or b.parent, max_frames=max_frames, force=True)
    if json_:
        print_json(report.to_dict())
    else:
        span = report.logit_range
        print_table(
            ("frame", "max |Δlogit|", "of the range", "masks agree"),
            [
                (
                    frame.name,
                    exponent(frame.max_abs),
                    f"{frame.max_abs / span:.1e}" if frame.max_abs is not None and span else "",
                    percent(frame.agreement),
                )
                for frame in report.frames
            ],
        )
        logits = "" if report.relative is None else f"largest difference {report.relative:.1e} of the logit range, "
        print(f"{logits}{percent(report.agreement)} of pixels agree")
    for text in report.notes:
        note(text)
    if report.page is not None:
        note(f"wrote   {report.page}")
    if report.missed and not force:
        from rtda_deploy.errors import ParityError

        raise ParityError(
            f"{b} is not {a} within the limit: {'; '.join(report.missed)}", hint="see verify.html, or --force"
        )
