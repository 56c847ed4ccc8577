"""The float32 file computed in bfloat16 on this CPU: compared, scored, and written into the file, never an error.

Whether it passed stands in ``rtda.precision`` of the file (``bf16``), where ``provider="auto"`` looks before it takes
bfloat16 for its contest.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Tuple

from rtda_deploy.errors import ParityError
from rtda_deploy.onnx_file import onnx_spec
from rtda_export.parity.report import ParityReport
from rtda_export.precision.bf16 import BF16, BF16_PROVIDER
from rtda_export.precision.metadata import note_precision
from rtda_export.steps.scores import miou_missed, scores
from rtda_export.steps.step import ExportEvent, ExportStep, Workbench
from rtda_runtime.engines.bf16 import KEY, Verified
from rtda_runtime.engines.kinds import kinds_of
from rtda_runtime.engines.openvino import installed_version
from rtda_runtime.engines.trial import tried

__all__ = ["verify_bf16"]


def verify_bf16(bench: Workbench, target: Path) -> Tuple[Tuple[ExportStep, ...], Tuple[str, ...]]:
    """Compare ``target`` in bfloat16 with the reference in float32, and write into it how that went.

    Args:
        bench: With the reference and the pictures.
        target: ``.onnx`` in float32 with a spec, under its final name.

    Returns:
        The step, or none where it could not be compared; and notes for people where there is no step.
    """
    bench.tell(ExportEvent(BF16.name, "start", path=target))
    started = time.perf_counter()
    try:
        parity = _compared(bench, target)
        miou = scores(bench, target, provider=BF16_PROVIDER, name=BF16.name)
    except ParityError as err:  # it does not run, or gives NaN or infinity
        note = f"{target.name} was not verified in bfloat16, which auto will not take: {err.message}"
        note_precision(target, {KEY: None})
        bench.tell(ExportEvent("note", text=note))
        return (), (note,)
    lost = miou_missed(BF16, miou)
    missed = [*parity.missed, *([f"it {lost}"] if lost else [])]
    found = Verified(
        passed=not missed,
        agreement=parity.agreement,
        limit=parity.limit.agreement,
        frames=len(parity.frames),
        version=installed_version(),
        miou=miou,
    )
    note_precision(target, {KEY: found.to_dict()})
    if missed:
        note = f"bfloat16 does not pass: {'; '.join(missed)}; auto leaves {target.name} in float32"
    else:
        note = "bfloat16 passes: auto takes it on CPUs where it is faster (openvino-bf16)"
    bench.tell(ExportEvent("note" if missed else "info", text=note))
    seconds = time.perf_counter() - started
    return (ExportStep(BF16.name, target, onnx_spec(target), parity, seconds, miou=miou, notes=(note,)),), ()


def _compared(bench: Workbench, target: Path) -> ParityReport:
    """The comparison, past its limit or not; tried in a process of its own first, which a file may end.

    Raises:
        ParityError: If OpenVINO does not run the file, or it gives NaN or infinity.
    """
    kind = next(kind for kind in kinds_of(target) if BF16_PROVIDER in kind.providers)
    trial = tried(target, kind, provider=BF16_PROVIDER)
    if trial is None or trial.error:
        raise ParityError(
            "OpenVINO does not load" if trial is None else trial.sentence, hint="run it in float32: --provider openvino"
        )
    return bench.verified(
        bench.reference,
        target,
        BF16,
        text=f"onnx = {BF16.name}",
        spec=bench.request.spec_of_parent,
        page=f"verify.{BF16.name}.html",
        names=(target.name, f"{target.name} in bfloat16"),
        provider=BF16_PROVIDER,
        force=True,
    )
