"""BF16: no file of its own, but what OpenVINO computes the float32 file in on a CPU that has bfloat16."""

from __future__ import annotations

from rtda_export.precision.base import Precision

__all__ = ["BF16", "BF16_PROVIDER"]

BF16_PROVIDER = "openvino-bf16"

BF16 = Precision(
    name="bf16",
    # This project's own figures, as INT8's: 15 trained networks kept 98.7 to 99.8 % of the pixels (at least 98.5 % on 8
    # pictures) and lost at most 0.1 mIoU; docs/results/export.md, "Bfloat16".
    agreement=0.98,
    make=None,
    content="is float32, computed in bfloat16",
    arithmetic={},
    max_miou_loss=0.5,
)
