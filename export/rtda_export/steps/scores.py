"""mIoU of the reference and of what was made of it, on the labelled pictures of an export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Optional, Tuple

from rtda_export.precision import Precision
from rtda_export.steps.step import ExportEvent, Workbench

__all__ = ["miou_missed", "scores"]


def scores(bench: Workbench, made: Path, *, provider: str = "", name: str = "") -> Optional[Tuple[float, float]]:
    """mIoU of both, percent; None where there are no labelled pictures. The reference is scored once in an export.

    Args:
        bench: With the reference.
        made: File to score beside it.
        provider: What runs it, as for ``open_network``.
        name: What to call it; empty: nothing.
    """
    data, reference = bench.request.options.data, bench.reference
    if data is None:
        return None
    from rtda_export.parity.scoring import evaluate

    bench.tell(ExportEvent("score", "start"))
    started = time.perf_counter()
    if reference not in bench.scored:
        bench.scored[reference] = 100 * evaluate(reference, data, spec=bench.request.spec_of_parent).scores.miou()
    before, after = bench.scored[reference], 100 * evaluate(made, data, provider=provider).scores.miou()
    text = f"{name + ': ' if name else ''}mIoU {before:.2f} -> {after:.2f} on {data.address}"
    bench.tell(ExportEvent("score", text=text, seconds=time.perf_counter() - started))
    return before, after


def miou_missed(precision: Precision, miou: Optional[Tuple[float, float]]) -> str:
    """What is lost past the precision's limit, as a sentence without a subject; empty where it is kept."""
    if miou is None or precision.max_miou_loss is None or miou[0] - miou[1] <= precision.max_miou_loss:
        return ""
    before, after = miou
    return f"loses {before - after:.2f} mIoU ({before:.2f} -> {after:.2f}), the limit is {precision.max_miou_loss}"
