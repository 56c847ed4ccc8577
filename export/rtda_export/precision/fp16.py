"""FP16: float16 weights and activations, float32 at the border and at the layers that float16 would spoil."""

from __future__ import annotations

from typing import Any

from rtda_export.precision.base import EngineRules, Made, Precision, Work

__all__ = ["FP16"]

_AGREEMENT = 0.995  # this project's own figure


def _make(work: Work) -> Made:
    from rtda_deploy.files import write_bytes
    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.precision.fp16_exceptions import rescue_fp16

    rescue = rescue_fp16(read_onnx(work.reference), work.images, limit=_AGREEMENT, progress=work.progress)
    write_bytes(work.out, stamped(rescue.model, work.spec))
    return Made(
        kept_fp32=rescue.reasons,
        notes=tuple(f"{name} stays in fp32: {reason}" for name, reason in rescue.reasons.items()),
        miou=work.score(),
        for_parent=rescue.to_dict() if rescue.keep_fp32 else {},
    )


def _rounding(model: Any) -> Any:
    from rtda_export.precision.fp16_graph import rounding_onnx

    return rounding_onnx(model)


FP16 = Precision(
    name="fp16",
    agreement=_AGREEMENT,
    make=_make,
    content="holds float16 weights",
    holds=lambda facts: facts.float16 and not facts.quantized,
    arithmetic={"fp16": "", "fp32": "{device} has no fast fp16: an engine computes in fp32 instead"},
    as_computed=_rounding,  # ONNX Runtime on a CPU would compute it in float32
    engine=EngineRules(
        flags=("FP16",),
        from_float32=True,
        float32_refused=(
            "{name} is float32, and TensorRT {tensorrt} computes in the types of the file: it has no FP16 switch",
            "",
            "make {stem}.fp16.onnx: rtda-deploy export ckpt.pth --to onnx --precision fp16",
        ),
    ),
)
