"""``rtda-deploy export``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Tuple

import typer

from rtda_export.precision import INT8, PRECISIONS, known_precisions, listed
from rtda_export.programs import known_programs

if TYPE_CHECKING:
    from rtda_export.export import ExportEvent, ExportResult
    from rtda_training.readers import LabelledSet

__all__ = ["export", "show_steps"]

_PLAIN_EVERY_S = 10.0
_REDUCED = listed(precision.title for precision in PRECISIONS if precision.reduced)
_CALIBRATED = listed(precision.title for precision in PRECISIONS if precision.needs_calibration)
_MODEL = f"A checkpoint (.pth), or an .onnx to check, to make {_REDUCED}, or to build an engine from."
_INPUT = "float32 normalised; or the frame's BGR as uint8, or as float32 (pixels): the rest is made in the graph."
_OUTPUT = "logits at 1/8 for this runtime; or at input size: mask, uint8, or probabilities of all classes."
_FOR = f"Make the file and the configuration that another program needs: {known_programs()}."
_DATA = f"Labelled pictures (DATA) to score {_REDUCED} on, and fp32 in bfloat16 where this CPU computes in it."
_MONITOR = "A second, tiny output for the alarm of run --shift (docs/shift.md)."
_FOOTAGE = "What the robot sees, to calibrate that alarm on: a video, a bag, a folder of pictures, one a second."
_PRECISION = f"{known_precisions()} (default: fp32 in the ONNX, fp16 in the engine)."


def export(
    model: Path = typer.Argument(..., help=_MODEL),
    to: Optional[str] = typer.Option(None, help="onnx, engine or onnx,engine (default: what works here)."),
    precision: Optional[str] = typer.Option(None, help=_PRECISION),
    size: Optional[str] = typer.Option(None, help="Input size WIDTHxHEIGHT (default: as trained)."),
    opset: Optional[int] = typer.Option(None, help="ONNX opset, 11 to 17 (default: 17)."),
    input_: str = typer.Option("float32", "--input", help=_INPUT),
    layout: Optional[str] = typer.Option(None, help="Of the input: nhwc or nchw (default: nhwc for uint8, else nchw)."),
    output: str = typer.Option("logits", help=_OUTPUT),
    for_: Optional[str] = typer.Option(None, "--for", help=_FOR),
    confidence: bool = typer.Option(False, "--confidence", help="With mask: also each pixel's probability, float32."),
    batch: int = typer.Option(1, min=1, help="Pictures at a time; more than 1 for other programs only."),
    rewrite: bool = typer.Option(True, help="Convolve before enlarging: the same masks with fewer operations."),
    monitor: bool = typer.Option(False, "--monitor", help=_MONITOR),
    footage: Optional[str] = typer.Option(None, help=_FOOTAGE),
    verify: Optional[str] = typer.Option(None, help="Pictures to verify on: a file, folder, video, bag."),
    calibrate: Optional[str] = typer.Option(None, help=f"To calibrate {_CALIBRATED} on: a folder, video, bag."),
    int8_target: str = typer.Option(INT8.targets[0], help=f"What an INT8 file is for: {listed(INT8.targets)}."),
    data: Optional[str] = typer.Option(None, help=_DATA),
    spec: Optional[Path] = typer.Option(None, help="spec.json used instead of the file's own."),
    workspace: Optional[int] = typer.Option(None, min=1, help="Engine: limit on the builder's scratch memory, MiB."),
    tactics: Optional[str] = typer.Option(None, help="Engine: tactic sources, separated by commas, or none."),
    optimization: Optional[int] = typer.Option(None, min=0, max=5, help="Engine: builder level, from TensorRT 8.6 on."),
    dla: Optional[int] = typer.Option(None, min=0, help="Engine: DLA core instead of the GPU (experimental)."),
    rebuild: bool = typer.Option(False, "--rebuild", help="Engine: build it even if the same one exists."),
    force: bool = typer.Option(False, "--force", help="Keep a file past its limit; write over another model's files."),
    out: Optional[Path] = typer.Option(None, help="Folder (default: beside the model)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Export a checkpoint to ONNX and a TensorRT engine, each verified on real frames.

    Example: rtda-deploy export last.pth --opset 17
    """
    from rtda_deploy.sizes import parse_size
    from rtda_export.export import ExportOptions, export_model
    from rtda_export.options import EngineOptions

    sources = None if tactics is None else _words("" if tactics == "none" else tactics)
    options = ExportOptions(
        to=None if to is None else _words(to),
        precision=precision,
        size_hw=parse_size(size) if size else None,
        opset=opset,
        input=input_,
        layout=layout,
        output=output,
        program=for_ or "",
        confidence=confidence,
        batch=batch,
        rewritten=rewrite,
        monitor=monitor,
        footage=footage,
        verify_path=verify,
        calibrate=calibrate,
        int8_target=int8_target,
        data=_labelled(data),
        spec_path=spec,
        engine=EngineOptions(workspace, sources, optimization, dla, rebuild),
        force=force,
        out_dir=out,
    )
    _show(export_model(model, options, on_step=show_steps()), json_, runs_here=output == "logits" and batch == 1)


def _show(result: ExportResult, json_: bool, *, runs_here: bool) -> None:
    from rtda_deploy.cli.terminal.console import print_json, print_next

    if json_:
        print_json(result.to_dict())
    else:
        print(result.config or result.best)
    if runs_here and result.spec.output == "logits":
        typed = shlex.quote(str(result.best))
        print_next(f"rtda-deploy bench {typed}", f"rtda-deploy run {typed} --camera 0")


def _words(text: str) -> Tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _labelled(address: Optional[str]) -> Optional[LabelledSet]:
    if address is None:
        return None
    from rtda_training.readers import open_labelled

    return open_labelled(address, split="test")


def show_steps(say: Optional[Callable[[str], None]] = None) -> Callable[[ExportEvent], None]:
    """A callback that shows an export: what is being done on a live line, each finished step as a line of its own.

    Args:
        say: Takes the lines; None: stderr, with the live line, which on a pipe appears every ten seconds only.
    """
    from rtda_deploy.cli.terminal.console import LiveLine, note, warn

    tell = say or note
    live = LiveLine() if say is None else None
    told = time.monotonic()

    def show(event: ExportEvent) -> None:
        nonlocal told
        if event.state != "done":
            name = event.path.name if event.path is not None else ""
            now = time.monotonic()
            if live is not None and (live.terminal or (event.state == "progress" and now - told >= _PLAIN_EVERY_S)):
                live.show(f"  … {event.name:<8} {name:<18} {event.text}".rstrip())
                told = now
            return
        if live is not None:
            live.clear()
        if event.name == "note":
            warn(event.text)
        else:
            tell(_line(event))

    return show


def _line(event: ExportEvent) -> str:
    from rtda_deploy.cli.terminal.console import size_text
    from rtda_export.parity.report import percent

    if event.name == "plan":
        return f"plan   {event.text}"
    if event.name == "verify" and event.parity is not None:
        parity = event.parity
        logits = "" if parity.relative is None else f" max |Δlogit| {parity.relative:.1e} of the range  "
        masks = f"masks agree {percent(parity.agreement)}   ({len(parity.frames)} pictures"
        limit = "" if parity.limit.logit is not None else f", limit {100 * parity.limit.agreement:g} %"
        return f"  {'✓' if parity.passed else '✗'} verify   {event.text:<18}{logits} {masks}{limit})"
    if event.name == "info":
        return f"             {event.text}"
    size = size_text(event.size_bytes) if event.size_bytes is not None else ""
    seconds = f"{event.seconds:.1f} s" if event.seconds is not None else ""
    name = event.path.name if event.path is not None else ""
    return f"  ✓ {event.name:<8} {name:<18} {event.text} {size}   {seconds}".rstrip()
