"""FP32: the file that an export writes first, and that every other precision is made from and compared with."""

from __future__ import annotations

from rtda_export.precision.base import EngineRules, Precision

__all__ = ["FP32"]

FP32 = Precision(
    name="fp32",
    # From checkpoint to file only the order of additions differs: about 1e-6 of the range is usual, 1e-4 is a fault.
    agreement=0.9999,
    logit=1e-4,
    make=None,
    content="is float32",
    arithmetic={"tf32": "fp32 on {device} is computed in TF32, TensorRT's default there", "fp32": ""},
    least_opset=11,
    # FP32 means FP32: otherwise an Ampere or later GPU would multiply in TF32, with 10 bits of mantissa.
    engine=EngineRules(cleared=("TF32",), dla_refused="fp32 networks"),
)
