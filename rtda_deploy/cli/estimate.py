"""``rtda-deploy estimate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from rtda_export.precision import ENGINE_DEFAULT, known_precisions

if TYPE_CHECKING:
    from rtda_export.roofline.estimator import Estimate, PrecisionEstimate

__all__ = ["estimate"]

_SHOWN = 8  # layers in the table


def estimate(
    model: Path = typer.Argument(..., help="An .onnx, or a checkpoint (.pth), which is exported for the purpose."),
    device: str = typer.Option(..., help="Such as xavier-agx, xavier-nx, orin-nano-8gb, t4, rtx-4090."),
    precision: Optional[str] = typer.Option(None, help=f"{known_precisions()} (default: all)."),
    size: Optional[str] = typer.Option(None, help="Input size WIDTHxHEIGHT of a .pth (default: as trained)."),
    out: Optional[Path] = typer.Option(None, help="Folder for the picture (default: none is drawn)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Estimate how fast a network will run on a device that is not here.

    Example: rtda-deploy estimate last.onnx --device xavier-agx
    """
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, warn
    from rtda_deploy.files import writable_folder
    from rtda_deploy.sizes import parse_size
    from rtda_export.roofline.estimator import estimate as estimated

    size_hw = None if size is None else parse_size(size)
    if out is not None:
        writable_folder(out)
    found = estimated(model, device, precision=precision, size_hw=size_hw)
    if json_:
        print_json(found.to_dict())
    else:
        _show(found)
    for text in found.notes:
        warn(text)
    if out is not None:
        from rtda_export.roofline.picture import save_picture

        entry = _chosen(found)
        name = f"{model.stem}-{found.device.name}-{entry.precision}.png"
        note(f"wrote   {save_picture(found, out / name, precision=entry.precision)}")
    first = [] if model.suffix.lower() == ".onnx" else [f"rtda-deploy export {shlex.quote(str(model))}"]
    onnx = shlex.quote(str(model.with_suffix(".onnx")))
    print_next(*first, f"rtda-deploy bench {onnx}   (on the device itself: what it really does)")


def _show(found: Estimate) -> None:
    from rtda_deploy.cli.terminal.console import print_table

    batch, _, height, width = found.input_shape
    pictures = f", {batch} at a time" if batch != 1 else ""
    size = f"{width}x{height}{pictures}, {found.macs / 1e9:.2f} G multiply-adds"
    print_table(
        ("precision", "bound FPS", "expected FPS", "range", "ms", "compute-bound", "memory-bound", "launch-bound"),
        [
            (
                entry.precision,
                _fps(entry.bound_fps),
                _fps(entry.expected_fps),
                "{} to {}".format(*map(_fps, entry.range_fps)),
                f"{entry.expected_ms:.2f}",
                *(f"{100 * entry.share(limit):.0f} %" for limit in ("compute", "memory", "floor")),
            )
            for entry in found.precisions
        ],
        title=f"{found.model}, {size}, on {found.device.title}",
    )
    entry = _chosen(found)
    print()
    print_table(
        ("layer", "kind", "output", "G multiply-adds", "MB", "ms", "of all", "bound by"),
        [
            (
                slow.layer.label,
                slow.layer.kind,
                "x".join(map(str, slow.layer.output_shape[1:])),
                slow.layer.macs / 1e9,
                slow.bytes_moved / 1e6,
                slow.expected_ms,
                f"{100 * slow.expected_ms / entry.expected_ms:.0f} %",
                {"floor": "launch"}.get(slow.limit, slow.limit),
            )
            for slow in entry.slowest(_SHOWN)
        ],
        title=f"slowest of {len(entry.layers)} layers, {entry.precision}",
    )
    print()
    for each in found.precisions:
        print(
            f"{each.precision}: expected {_fps(each.expected_fps)} FPS "
            f"(published figures were met within a factor {each.error_factor:g})"
        )
    print(f"network alone, {found.device.power_mode}; no camera, preprocessing or copies")


def _chosen(found: Estimate) -> PrecisionEstimate:
    """The precision whose layers are shown: an engine's usual one where it is among them."""
    usual = (entry for entry in found.precisions if entry.precision == ENGINE_DEFAULT.name)
    return next(usual, found.precisions[0])


def _fps(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
