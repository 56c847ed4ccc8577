"""What may be asked of an exported ONNX file: its opset, outputs and size; checked before work starts."""

from __future__ import annotations

from typing import Optional, Tuple

from rtda_deploy.errors import ConfigError

__all__ = [
    "INPUTS",
    "IR_VERSION",
    "LAYOUTS",
    "OPSETS",
    "OUTPUTS",
    "check_input",
    "check_mask_opset",
    "check_opset",
    "check_output",
    "check_size",
]

IR_VERSION = 8  # ONNX Runtime 1.19, the last for Python 3.8, reads no newer one written by today's onnx
OPSETS = range(11, 18)  # Resize with half-pixel centres begins at 11; TensorRT 8.5 reads up to 17
OUTPUTS = ("logits", "mask", "probabilities")
INPUTS = ("float32", "uint8", "pixels")
LAYOUTS = ("nhwc", "nchw")


def check_opset(opset: int) -> None:
    """Raise ``ConfigError`` for an opset that not every target reads."""
    if opset not in OPSETS:
        raise ConfigError(
            f"opset {opset} is not written; known: {OPSETS[0]} to {OPSETS[-1]}",
            hint="TensorRT 8.5 (JetPack 5) and ONNX Runtime on Python 3.8 read up to 17: --opset 17",
        )


def check_output(output: str, *, confidence: bool, batch: int, monitor: bool = False) -> None:
    """Raise ``ConfigError`` for outputs or a batch that make no sense."""
    if output not in OUTPUTS:
        raise ConfigError(f"unknown output {output!r}", hint=f"known: {', '.join(OUTPUTS)}")
    if confidence and output != "mask":
        raise ConfigError("a confidence goes with a mask only", hint="--output mask --confidence")
    if monitor and (output != "logits" or batch > 1):
        raise ConfigError(
            "--monitor goes with logits of one picture at a time",
            why="its numbers are for this project's runtime, which runs no other",
            hint="leave --output and --batch out",
        )
    if batch < 1:
        raise ConfigError(f"a batch of {batch} pictures makes no sense", hint="--batch 1")


def check_input(input: str, layout: Optional[str]) -> str:
    """The layout of an input: the one asked for, or else nhwc for uint8, as cameras have it, and nchw for the others.

    Raises:
        ConfigError: If one of them is unknown, or they do not go together.
    """
    if input not in INPUTS:
        raise ConfigError(f"unknown input {input!r}", hint=f"known: {', '.join(INPUTS)}")
    if layout not in (None, *LAYOUTS):
        raise ConfigError(f"unknown layout {layout!r}", hint=f"known: {', '.join(LAYOUTS)}")
    if input == "float32" and layout == "nhwc":
        raise ConfigError("a float32 input is laid out nchw", hint="--input uint8 --layout nhwc")
    return layout or ("nhwc" if input == "uint8" else "nchw")


def check_size(size_hw: Tuple[int, int], multiple: int) -> Tuple[int, int]:
    """The size, if the network takes it.

    Args:
        size_hw: Height and width of its input.
        multiple: The network's ``size_multiple``.

    Raises:
        ConfigError: Otherwise, naming the nearest that works, width first as typed.
    """
    height, width = size_hw
    near_h, near_w = (max(1, (side + multiple // 2) // multiple) * multiple for side in size_hw)
    if (near_h, near_w) != (height, width):
        raise ConfigError(
            f"size {width}x{height} (width x height) is no multiple of {multiple}",
            why=f"the network's coarsest map is 1/{multiple} of its input, and a side of {multiple} is the least that "
            "leaves one of it",
            hint=f"nearest that works: --size {near_w}x{near_h}",
        )
    return height, width


def check_mask_opset(opset: int, output: str = "mask") -> None:
    """Raise ``ConfigError`` for an opset that has not all operators of an output at the input's size."""
    if opset < 13:
        raise ConfigError(f"a {output} output needs opset 13, this is {opset}", hint="--opset 17")
