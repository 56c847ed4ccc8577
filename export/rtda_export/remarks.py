"""What an export says of a network itself, whatever it makes of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Tuple

from rtda_deploy.familiar import MONITOR, familiar_from_json
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_deploy.spec import ModelSpec
from rtda_export.request import Request
from rtda_export.steps.step import ExportEvent, Tell

__all__ = ["another_size", "no_footage", "one_class", "spec_text"]

_FAR = 1.3  # times the trained width or height; augmentation teaches scales of that order


def one_class(spec: ModelSpec, tell: Tell) -> Tuple[str, ...]:
    """What to know of a network of one class; empty for all others."""
    if spec.num_classes > 1:
        return ()
    name = spec.class_names[0]
    note = (
        f"{name} is the only class, so that its mask is 0 in every pixel: the largest of one logit is that one. "
        f"To tell {name} from the rest, train two classes, such as background and {name}"
    )
    tell(ExportEvent("note", text=note))
    return (note,)


def no_footage(onnx: Path, spec: ModelSpec, request: Request, tell: Tell) -> Tuple[str, ...]:
    """What to type where a file gives the shift alarm's signals and its card has too little to compare them with."""
    from rtda_runtime.shift.alarm import longest_shift_s

    if MONITOR not in spec.provenance.get("export", {}):
        return ()
    found = familiar_from_json(read_onnx_facts(onnx).card)
    if found is not None and longest_shift_s(found):
        return ()
    has = "no blocks of footage" if found is None else f"{found.blocks} blocks of {found.data}, too few or too alike"
    model = shlex.quote(str(request.parent))
    again = f"{model} --monitor --footage PATH" if request.from_checkpoint else f"{model} --footage PATH --out FOLDER"
    note = (
        f"the card of {onnx.name} has {has}: run --shift will be refused. With minutes of what the robot sees: "
        f"rtda-deploy export {again} --to onnx"
    )
    tell(ExportEvent("note", text=note))
    return (note,)


def another_size(request: Request) -> Tuple[str, ...]:
    """What to know of a network that is to run at a size far from the one it was trained at; else empty.

    Parity cannot show it: the checkpoint is as wrong there as its export.
    """
    asked, trained = request.options.size_hw, request.trained_hw
    if asked is None or trained is None:
        return ()
    sides = [side / learned for side, learned in zip(asked, trained)]
    factor = max(sides, key=lambda side: max(side, 1 / side))
    if 1 / _FAR <= factor <= _FAR:
        return ()
    (height, width), (was_high, was_wide) = asked, trained
    return (
        f"trained at {was_wide}x{was_high}, exported at {width}x{height}: things are {factor:.3g} times as large there "
        "as those that the network learned, and its masks may be far worse, in the checkpoint as in the file. "
        f"Score both sizes (rtda-deploy eval FILE --data DATA), or train with --set size={width}x{height}",
    )


def spec_text(spec: ModelSpec) -> str:
    """What is in a file's spec, in a line."""
    height, width = spec.size_hw
    return f"{width}x{height}, {spec.num_classes} classes, mean/std, palette: in the file (rtda.spec)"
