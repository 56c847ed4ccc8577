"""A ``spec.json`` to fill in, for a model without one; it starts from what the file itself says."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

from rtda_deploy.errors import ConfigError, EngineError
from rtda_deploy.spec import ModelSpec

if TYPE_CHECKING:
    from rtda_deploy.onnx_file import OnnxFacts, TensorFacts

__all__ = ["template_for"]

_SIZE_HW = (512, 1024)  # where the file takes any
_CLASSES_UNKNOWN = 2  # of a mask, which does not say how many there are
_WHOLE = ("uint8", "int32", "int64")


def template_for(file: Path) -> Tuple[ModelSpec, List[str]]:
    """A spec of ``file``, and what in it is a guess, one sentence each.

    Args:
        file: An ``.onnx`` or a checkpoint. Its own spec where it has one.

    Raises:
        ConfigError: If it is of another kind.
        EngineError: If the network takes something other than one picture (N, 3, H, W).
        RtdaError: If it cannot be read.
    """
    from rtda_deploy.model_files import is_checkpoint_name

    if file.suffix.lower() == ".onnx":
        return _of_onnx(file)
    if is_checkpoint_name(file):
        return _of_checkpoint(file)
    raise ConfigError(f"{file} needs no spec of its own", hint="--spec-template is for an .onnx or a .pth")


def _of_onnx(file: Path) -> Tuple[ModelSpec, List[str]]:
    from rtda_deploy.onnx_file import read_onnx_facts

    facts = read_onnx_facts(file, allow_external=True)
    if facts.spec is not None:
        return facts.spec, []
    size_hw, sized, layout = _size(facts)
    fields, guesses = _outputs(facts, size_hw)
    if facts.inputs[0].dtype == "uint8":
        fields.update(input="uint8", layout=layout)
    guesses = [
        *([] if sized else ["size_hw: the file takes any size; write the one that it is to run at, height first"]),
        *guesses,
        "channel_order, pixel_scale, mean, std: those of ImageNet; take the ones that it was trained with",
    ]
    return ModelSpec(size_hw=size_hw, provenance={"architecture": {"name": file.stem}}, **fields), guesses


def _size(facts: OnnxFacts) -> Tuple[Tuple[int, int], bool, str]:
    """Height and width of the input, whether the file says them, and its layout; channels last for uint8 only."""
    shape: Sequence[Optional[int]] = facts.inputs[0].shape if len(facts.inputs) == 1 else ()
    layout = "nchw"
    if len(shape) == 4 and shape[3] == 3 and shape[1] != 3 and facts.inputs[0].dtype == "uint8":
        layout, shape = "nhwc", (shape[0], 3, *shape[1:3])
    if len(shape) != 4 or shape[1] not in (3, None):
        said = ", ".join(f"{value.name} {list(value.shape)}" for value in facts.inputs) or "nothing"
        raise EngineError(
            f"{facts.path.name} takes {said}: expected one picture [1, 3, height, width]",
            hint="export the network again with such an input, channels first",
        )
    height, width = shape[2:]
    return (height or _SIZE_HW[0], width or _SIZE_HW[1]), None not in (height, width), layout


def _outputs(facts: OnnxFacts, size_hw: Tuple[int, int]) -> Tuple[Dict[str, Any], List[str]]:
    """The fields that the first output decides."""
    if not facts.outputs:
        raise EngineError(f"{facts.path.name} has no output", hint="export the network again with its logits as output")
    output = facts.outputs[0]
    if output.dtype in _WHOLE:
        return {**_classes(_CLASSES_UNKNOWN), "output": "mask", "output_stride": 1}, [
            "class_names, palette: a mask does not say how many classes there are; write one name and colour for each"
        ]
    classes, stride = _grid(output, size_hw)
    guesses = ["class_names, palette: numbers in the place of names, and any colours"]
    if stride is None:
        guesses.append("output_stride: input pixels per logit, each way; the file does not say")
    return {**_classes(classes or _CLASSES_UNKNOWN), "output_stride": stride or 1}, guesses


def _grid(output: TensorFacts, size_hw: Tuple[int, int]) -> Tuple[Optional[int], Optional[int]]:
    """Number of classes and input pixels per logit, where the shape says them."""
    if len(output.shape) != 4:
        return None, None
    _, classes, height, width = output.shape
    if classes is not None and classes > 255:
        raise EngineError(
            f"output {output.name} is {list(output.shape)}: expected [1, classes, height, width], at most 255 classes",
            hint="export the network again, channels first",
        )
    if not height or not width or size_hw[0] % height or size_hw[0] // height != size_hw[1] / width:
        return classes, None
    return classes, size_hw[0] // height


def _of_checkpoint(file: Path) -> Tuple[ModelSpec, List[str]]:
    from rtda_deploy.optional import require

    require("torch", extra="training", purpose="to read a checkpoint")
    from rtda_training.checkpoint import FORMAT, read_checkpoint, stored_content
    from rtda_training.models import load_foreign

    content = stored_content(file)
    if not isinstance(content, dict) or content.get("format") == FORMAT:
        return read_checkpoint(file).spec, []
    found = load_foreign(None, content)
    classes = _classes(found.model.num_classes)
    return ModelSpec(size_hw=_SIZE_HW, **classes, **found.preprocessing), [
        "class_names, palette: numbers in the place of names, and any colours",
        "size_hw: what it is to run at, height first",
    ]


def _classes(count: int) -> Dict[str, Any]:
    """Placeholder names and colours; the hues are a golden section apart."""
    hues = (index * 0.618034 % 1.0 for index in range(count))
    colours = [tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.95)) for hue in hues]
    return {"class_names": tuple(f"class_{index}" for index in range(count)), "palette": tuple(colours)}
