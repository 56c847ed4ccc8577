"""ModelSpec: everything the runtime must know about a network, so that nobody guesses a mean, a size or a class list.

It travels in the checkpoint (``spec``), in the ONNX metadata (``rtda.spec``) and beside an engine
(``model.engine.json``), always as the JSON of :meth:`ModelSpec.to_json`.

A frame becomes the network's input in this order: resize (``resize``, ``interpolation``) to ``size_hw``, put the
channels into ``channel_order``, then ``(pixel * pixel_scale - mean) / std`` per channel, laid out float32 (1, 3, H, W).
Where ``input`` is not ``float32`` all but the resize are nodes of the network's own graph.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import SpecError
from rtda_deploy.files import is_text, readable_file, write_text

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "MOST_PIXELS", "SPEC_VERSION", "ModelSpec"]

SPEC_VERSION = 1
MOST_PIXELS = 1 << 26  # of a network's input: 8192x8192, 0.8 GB as float32
_NO_CHARACTER = re.compile("[\ud800-\udfff]")  # half of a pair, as Python reads the odd bytes of a file's name
_EXAMPLE = 'rtda-deploy inspect model.onnx --json shows one under "spec"'
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, pixels scaled to 0..1; the usual ResNet weights were trained with it
IMAGENET_STD = (0.229, 0.224, 0.225)

_CHOICES = {
    "channel_order": ("rgb", "bgr"),
    "resize": ("stretch", "letterbox"),
    "interpolation": ("linear", "area", "cubic", "nearest"),
    "output": ("logits", "mask", "probabilities"),
    "input": ("float32", "uint8", "pixels"),
    "layout": ("nchw", "nhwc"),
}
_OF_EVERY_FILE = {"input": "float32", "layout": "nchw"}  # not written: versions before these fields read the file too


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The contract between a network and whatever feeds it.

    Attributes:
        size_hw: Height and width of the network's input, pixels.
        class_names: One name per class index.
        palette: One RGB colour (0..255) per class index.
        channel_order: Order of the input's channels, ``rgb`` or ``bgr``; frames are BGR.
        pixel_scale: Factor on the 0..255 pixel before the mean is subtracted; 1/255 or 1.
        mean: Per channel, in ``channel_order``, after scaling.
        std: Per channel, in ``channel_order``.
        resize: ``stretch`` to ``size_hw``, or ``letterbox`` (keep the aspect, fill the rest with the mean).
        interpolation: How frames are resized.
        ignore_index: Label value that means "not labelled".
        output: ``logits`` float32 (1, C, H / output_stride, W / output_stride), ``mask`` uint8 (1, H, W), or
            ``probabilities`` float32 (1, C, H, W), 0..1.
        output_stride: Input pixels per logit, each way.
        input: ``float32``: normalised as above. ``uint8``: the resized frame itself, BGR; its channel order, scale,
            mean and std are applied in the graph. ``pixels``: the same numbers as float32, for programs that feed
            no other type.
        layout: Of the input: ``nchw``, (1, 3, H, W); or ``nhwc``, (1, H, W, 3), for ``uint8`` and ``pixels`` only.
        provenance: Where the network comes from: architecture, recipe, domains, metrics, versions, sha256 of the
            parent file. JSON values only; nothing in it changes what the runtime computes.

    Raises:
        SpecError: On any value that makes no sense, naming the field.
    """

    size_hw: Tuple[int, int]
    class_names: Tuple[str, ...]
    palette: Tuple[Tuple[int, int, int], ...]
    channel_order: str = "rgb"
    pixel_scale: float = 1.0 / 255.0
    mean: Tuple[float, float, float] = IMAGENET_MEAN
    std: Tuple[float, float, float] = IMAGENET_STD
    resize: str = "stretch"
    interpolation: str = "linear"
    ignore_index: int = 255
    output: str = "logits"
    output_stride: int = 8
    input: str = "float32"
    layout: str = "nchw"
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__  # the way to normalise a field of a frozen dataclass
        put(self, "size_hw", _numbers("size_hw", self.size_hw, 2, int))
        put(self, "class_names", _names(self.class_names))
        put(self, "palette", _palette(self.palette, len(self.class_names)))
        put(self, "pixel_scale", _numbers("pixel_scale", [self.pixel_scale], 1, float)[0])
        put(self, "mean", _numbers("mean", self.mean, 3, float))
        put(self, "std", _numbers("std", self.std, 3, float))
        put(self, "ignore_index", _numbers("ignore_index", [self.ignore_index], 1, int)[0])
        put(self, "output_stride", _numbers("output_stride", [self.output_stride], 1, int)[0])
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise SpecError(f"spec field {field} is {getattr(self, field)!r}", hint=f"known: {', '.join(known)}")
        if min(self.size_hw) < 1:
            raise SpecError(f"spec field size_hw is {list(self.size_hw)}", hint="both must be positive")
        if self.size_hw[0] * self.size_hw[1] > MOST_PIXELS:
            raise SpecError(
                f"spec field size_hw is {list(self.size_hw)}: {self.size_hw[0] * self.size_hw[1]:,} pixels",
                why=f"no network takes more than {MOST_PIXELS:,}, and memory is taken for each of them",
                hint="write the size that the network takes, height first: [512, 1024]",
            )
        if self.pixel_scale <= 0 or min(self.std) <= 0:
            raise SpecError(
                "spec fields pixel_scale and std must be positive", hint="RTDA's own: pixel_scale 1, std 1 1 1"
            )
        if self.output_stride < 1 or any(side % self.output_stride for side in self.size_hw):
            raise SpecError(
                f"size {list(self.size_hw)} is no multiple of output_stride {self.output_stride}",
                hint="output_stride is the network's: 8 for a BiSeNet",
            )
        if not 0 <= self.ignore_index <= 255 or self.ignore_index < self.num_classes:
            raise SpecError(
                f"ignore_index is {self.ignore_index}, which is a class or does not fit a byte",
                hint=f"between {self.num_classes} and 255; 255 is usual",
            )
        if not isinstance(self.provenance, Mapping):
            raise SpecError("spec field provenance is no table", hint="leave it out, or write {}")
        self._check_input()

    def _check_input(self) -> None:
        if self.input == "float32":
            if self.layout != "nchw":
                raise SpecError("a float32 input is laid out nchw", hint="layout nhwc goes with input uint8 or pixels")
        elif self.resize == "letterbox":
            fill = ", ".join(f"{mean / self.pixel_scale:.7g}" for mean in self.mean)
            raise SpecError(
                f"a letterboxed network cannot have the input {self.input}",
                why=f"the bars beside the picture hold the mean, a pixel of {fill}, which is no whole number; other "
                "programs fill them with black, and the mask would be another",
                hint="--input float32, whose bars are exact   (or train with resize stretch)",
            )

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def output_hw(self) -> Tuple[int, int]:
        """Height and width of what the network gives: the logits' grid, or its input's."""
        if self.output != "logits":
            return self.size_hw
        return self.size_hw[0] // self.output_stride, self.size_hw[1] // self.output_stride

    @property
    def input_shape(self) -> Tuple[int, int, int, int]:
        """Shape of the network's input, one picture: (1, 3, H, W), or (1, H, W, 3) where ``layout`` is ``nhwc``."""
        height, width = self.size_hw
        return (1, height, width, 3) if self.layout == "nhwc" else (1, 3, height, width)

    @property
    def input_dtype(self) -> str:
        """NumPy's name of the type of the network's input: ``uint8`` or ``float32``."""
        return "uint8" if self.input == "uint8" else "float32"

    def replace(self, **changes: Any) -> ModelSpec:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> Dict[str, Any]:
        """The spec as JSON-ready values, ``version`` first; ``input`` and ``layout`` where they are not the usual."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields = {name: value for name, value in fields.items() if _OF_EVERY_FILE.get(name) != value}
        return {"version": SPEC_VERSION, **json.loads(json.dumps(fields, default=dict))}

    def to_json(self) -> str:
        """The spec as JSON text that UTF-8 can hold; ``ModelSpec.from_json(spec.to_json()) == spec``.

        But for a provenance with the name of a file that is no text: its odd bytes are spelled out (``caf\\udce9``).
        """
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        return _NO_CHARACTER.sub(lambda found: rf"\\u{ord(found.group()):x}", text)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "spec") -> ModelSpec:
        """Read a spec; ``where`` names the file it came from in errors.

        Raises:
            SpecError: If it is of a newer version, has unknown or missing fields, or values that make no sense.
        """
        if not isinstance(values, Mapping):
            raise SpecError(f"{where} is no table of fields but a {type(values).__name__}", hint=_EXAMPLE)
        fields = dict(values)
        _check_version(fields.pop("version", None), where)
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        if unknown:
            shown = ", ".join(name if name.isidentifier() else _short(name) for name in unknown)
            raise SpecError(f"{where} has unknown fields: {shown}", hint=f"known: {', '.join(known)}")
        required = [
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        missing = [name for name in required if name not in fields]
        if missing:
            raise SpecError(f"{where} lacks the fields: {', '.join(missing)}", hint=_EXAMPLE)
        try:
            with parsing(SpecError, "a field cannot be read", hint=_EXAMPLE):
                return cls(**fields)
        except SpecError as err:
            raise SpecError(f"{where}: {err.message}", why=err.why, hint=err.hint) from err

    @classmethod
    def from_json(cls, text: Union[str, bytes], *, where: str = "spec") -> ModelSpec:
        """Read a spec from JSON text; errors as in :meth:`from_dict`."""
        # A checkpoint of a training that could not be scored has NaN in its provenance; fields refuse it themselves.
        return cls.from_dict(json_values(text, where, SpecError, hint=_EXAMPLE, allow_nan=True), where=where)

    @classmethod
    def load(cls, path: Union[str, Path]) -> ModelSpec:
        """Read ``spec.json``."""
        return cls.from_json(readable_file(path, what="spec").read_bytes(), where=str(path))

    def save(self, path: Union[str, Path]) -> Path:
        """Write ``spec.json``, whole or not at all."""
        return write_text(path, self.to_json() + "\n")


def _check_version(version: Any, where: str) -> None:
    if version is None:
        raise SpecError(f"{where} has no version field", hint='is it a ModelSpec? The first field is "version": 1')
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SpecError(f"{where} has version {version!r}", hint=f"a whole number; this one is {SPEC_VERSION}")
    if version > SPEC_VERSION:
        raise SpecError(
            f"{where} is version {version}, this rtda-deploy reads up to {SPEC_VERSION}",
            hint="pip install --upgrade rtda-deploy   (or export the model again with the version installed here)",
        )


def _numbers(field: str, values: Any, count: int, kind: type) -> Tuple[Any, ...]:
    good = isinstance(values, Sequence) and not isinstance(values, (str, bytes)) and len(values) == count
    if good:
        good = all(isinstance(v, (int, float)) and not isinstance(v, bool) and _is_finite(v) for v in values)
    if good and kind is int:
        good = all(float(v).is_integer() for v in values)
    if not good:
        noun = "whole numbers" if kind is int else "numbers"
        raise SpecError(f"spec field {field} is {_short(values)}", hint=f"expected {count} finite {noun}")
    return tuple(kind(v) for v in values)


def _is_finite(value: Union[int, float]) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _names(values: Optional[Sequence[str]]) -> Tuple[str, ...]:
    good = isinstance(values, Sequence) and not isinstance(values, (str, bytes))
    names = tuple(values) if good and values is not None else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise SpecError(f"spec field class_names is {_short(values)}", hint='a list of names: ["road", "sky"]')
    broken = next((name for name in names if not is_text(name)), None)
    if broken is not None:
        raise SpecError(
            f"spec field class_names has {_short(broken)}, which is no text", hint="half a UTF-16 pair is no character"
        )
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SpecError(f"spec field class_names names a class twice: {', '.join(twice)}", hint="one name, one class")
    if len(names) > 255:
        raise SpecError(f"{len(names)} classes do not fit a uint8 mask", hint="at most 255")
    return names


def _palette(values: Any, count: int) -> Tuple[Tuple[int, int, int], ...]:
    if not isinstance(values, Sequence) or len(values) != count:
        found = len(values) if isinstance(values, Sequence) else "no"
        raise SpecError(f"spec field palette has {found} colours for {count} classes", hint="one [r, g, b] a class")
    colours = tuple(_numbers("palette", colour, 3, int) for colour in values)
    if any(not 0 <= part <= 255 for colour in colours for part in colour):
        raise SpecError("spec field palette has a colour outside 0..255", hint="[r, g, b], such as [128, 64, 128]")
    return colours


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
