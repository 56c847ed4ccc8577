"""INT8: Q/DQ nodes with scales measured on real frames, for TensorRT or for a CPU."""

from __future__ import annotations

from typing import Tuple

from rtda_export.precision.base import EngineRules, Made, Precision, Work

__all__ = ["INT8"]

_AGREEMENT = 0.98  # this project's own figure
_FURTHER = (0.99, 0.995)  # agreement asked for in turn, while labelled pictures lose too much
_MIOU_LOSS = 0.5  # percent points


def _make(work: Work) -> Made:
    """Quantise; where labelled pictures are given, leave more in float until they lose little enough."""
    from rtda_deploy.files import write_bytes
    from rtda_export.graph.centred import centred_range
    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.precision.quantize import int8_onnx

    for limit in (_AGREEMENT, *_FURTHER):
        made = int8_onnx(
            work.reference,
            work.calibration,
            work.out,
            target=work.target,
            limit=limit,
            input_range=centred_range(work.spec) if work.target == "cpu" else None,
            progress=work.progress,
        )
        write_bytes(work.out, stamped(read_onnx(work.out), work.spec))
        miou = work.score()
        if miou is None or miou[0] - miou[1] <= _MIOU_LOSS:
            break
    gain = _gain_on_cpu(work) if work.target == "cpu" else ()
    return Made(kept_fp32=made.reasons, notes=(*made.report, *gain), miou=miou)


def _gain_on_cpu(work: Work) -> Tuple[str, ...]:
    """The speed-up on this CPU, for people; on a GPU ``bench`` measures it."""
    from rtda_export.precision.speedup import speedup

    work.progress("time", 0, 1)
    return (speedup(work.reference, work.out).sentence("int8"),)


INT8 = Precision(
    name="int8",
    agreement=_AGREEMENT,
    make=_make,
    content="is quantised",
    holds=lambda facts: facts.quantized,
    arithmetic={
        "int8": "int8 is taken for every layer; those that an engine keeps in float cost more",
        "fp16": "{device} has no fast int8: an engine computes in fp16 instead",
        "fp32": "{device} has no fast int8 nor fp16: an engine computes in fp32 instead",
    },
    targets=("tensorrt", "cpu"),
    needs_calibration=True,
    max_miou_loss=_MIOU_LOSS,
    engine=EngineRules(
        flags=("FP16", "INT8"),
        float32_refused=(
            "{name} holds no QuantizeLinear nodes, so no INT8 engine can be built from it",
            "INT8 scales are measured at export, on real frames, and travel in the file",
            "make {stem}.int8.onnx: rtda-deploy export ckpt.pth --to onnx --precision int8 --calibrate PATH",
        ),
        dla_refused="int8 networks with Q/DQ nodes",
    ),
)
