"""``rtda-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import typer

if TYPE_CHECKING:
    from rtda_export.export import ExportStep

__all__ = ["export", "show_steps"]


def export(
    model: Path = typer.Argument(..., help="A checkpoint (.pth), or an .onnx to check and give a spec."),
    to: Optional[str] = typer.Option(None, help="onnx, engine, or both with a comma (default: what works here)."),
    precision: str = typer.Option("fp32", help="fp32, fp16 or int8."),
    size: Optional[str] = typer.Option(None, help="Input size WIDTHxHEIGHT (default: as trained)."),
    opset: Optional[int] = typer.Option(None, help="ONNX opset, 11 to 17 (default: 17)."),
    verify: Optional[str] = typer.Option(None, help="Pictures to verify on: a file, a folder, a video."),
    spec: Optional[Path] = typer.Option(None, help="spec.json used instead of the file's own."),
    force: bool = typer.Option(False, "--force", help="Keep a file that is past its limit."),
    out: Optional[Path] = typer.Option(None, help="Folder (default: beside the model)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Export a checkpoint to ONNX, verified against it on real frames.

    Example: rtda-deploy export last.pth --size 1024x512
    """
    from rtda_deploy.cli.console import print_json, print_next
    from rtda_export import export_model
    from rtda_training.data.address import parse_size

    result = export_model(
        model,
        to=tuple(part.strip() for part in to.split(",") if part.strip()) if to is not None else None,
        precision=precision,
        size_hw=parse_size(size) if size else None,
        opset=opset,
        verify_path=verify,
        spec_path=spec,
        force=force,
        out_dir=out,
        on_step=show_steps(),
    )
    if json_:
        print_json(result.to_dict())
    else:
        print(result.onnx)
    print_next(f"rtda-deploy bench {result.onnx}", f"rtda-deploy run {result.onnx} --camera 0")


def show_steps(say: Optional[Callable[[str], None]] = None) -> Callable[[ExportStep], None]:
    """A callback that shows each finished step of an export as a line, by ``say`` or else on stderr."""
    from rtda_deploy.cli.console import note, size_text, warn

    tell = say or note

    def show(step: ExportStep) -> None:
        if step.state == "start":
            return
        if step.name == "plan":
            tell(f"plan   {step.text}")
        elif step.name == "note":
            warn(step.text)
        elif step.name == "verify" and step.parity is not None:
            parity = step.parity
            mark = "✓" if parity.passed else "✗"
            tell(
                f"  {mark} verify   {step.text:<18} max |Δlogit| {parity.relative:.1e} of the range"
                f"   masks agree {100 * parity.agreement:.3f} %   ({len(parity.frames)} pictures)"
            )
        else:
            size = size_text(step.size_bytes) if step.size_bytes is not None else ""
            seconds = f"{step.seconds:.1f} s" if step.seconds is not None else ""
            name = step.path.name if step.path is not None else ""
            tell(f"  ✓ {step.name:<8} {name:<18} {step.text} {size}   {seconds}".rstrip())

    return show
