"""A translator of pictures as a file, and what it is used for: source pictures in the target's style.

The file is ``{"format": "rtda-deploy-translator", "version", "config", "to_target", "to_source", "provenance"}``: two
state dicts of ``Generator`` and plain values, so that ``torch.load(weights_only=True)`` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rtda_deploy import __version__
from rtda_deploy.border import parsing
from rtda_deploy.errors import CheckpointError, ConfigError, DataError
from rtda_deploy.files import readable_file, sha256_file, writable_folder, write_bytes, write_text
from rtda_deploy.optional import require
from rtda_training.loop.hardware import build_fabric
from rtda_training.models.cyclegan import Generator
from rtda_training.models.state_dicts import checked_tensors, difference, refuse_broken_numbers
from rtda_training.readers import UnlabelledSet
from rtda_training.torch_file import read_torch_file, write_torch_file

__all__ = [
    "FORMAT",
    "FrameTranslator",
    "Translator",
    "frames_from",
    "pictures_from",
    "read_translator",
    "translate_set",
    "translator_file",
    "write_translator",
]

FORMAT = "rtda-deploy-translator"
_RECORD = "translated.json"  # beside the translated pictures: what made them
_MULTIPLE = 4  # of height and width, for a generator
_LEAST_SIDE = 8


@dataclass(frozen=True)
class Translator:
    """What a translator's file holds.

    Attributes:
        width: Of both generators.
        blocks: Of both generators.
        channel_order: ``rgb`` or ``bgr``: what the generators' three channels are.
        size_hw: Size of the pictures that it was trained on (before cropping).
        to_target: State dict of the generator from the source to the target domain.
        to_source: State dict of the way back.
        provenance: Where it comes from; plain values.
    """

    width: int
    blocks: int
    channel_order: str
    size_hw: tuple[int, int]
    to_target: Mapping[str, Tensor]
    to_source: Mapping[str, Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)


class FrameTranslator(nn.Module):
    """The frozen way to the target domain: frames in, frames out.

    Frames are float32 (N, H, W, 3) BGR 0..255, height and width multiples of 4.
    """

    def __init__(self, translator: Translator) -> None:
        super().__init__()
        self.channel_order = translator.channel_order
        self.generator = Generator(translator.width, translator.blocks)
        self.generator.load_state_dict(dict(translator.to_target))
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        pictures = self.generator(pictures_from(frames, self.channel_order))
        return frames_from(pictures.float(), self.channel_order).clamp(0.0, 255.0)


def pictures_from(frames: Tensor, channel_order: str) -> Tensor:
    """Frames (N, H, W, 3) BGR 0..255 as a generator sees them: float32 (N, 3, H, W) in -1..1."""
    pictures = frames.float().permute(0, 3, 1, 2)
    if channel_order == "rgb":
        pictures = pictures.flip(1)
    return (pictures / 127.5 - 1.0).contiguous()  # not channels_last: instance norms would copy it back each time


def frames_from(pictures: Tensor, channel_order: str) -> Tensor:
    """The inverse of ``pictures_from``; gradients pass."""
    if channel_order == "rgb":
        pictures = pictures.flip(1)
    return (pictures.permute(0, 2, 3, 1) + 1.0) * 127.5


def translator_file(run_folder: Path, stage: str) -> Path:
    """Where a finished translation stage leaves its translator."""
    return run_folder / f"translator-{stage}.pth"


def write_translator(path: str | Path, translator: Translator) -> Path:
    """Write a translator, whole or not at all.

    Raises:
        FileAccessError: If the folder cannot be written to or the disk is full.
    """
    content = {
        "format": FORMAT,
        "version": __version__,
        "config": {
            "width": translator.width,
            "blocks": translator.blocks,
            "channel_order": translator.channel_order,
            "size_hw": list(translator.size_hw),
        },
        "to_target": _on_cpu(translator.to_target),
        "to_source": _on_cpu(translator.to_source),
        "provenance": dict(translator.provenance),
    }
    return write_torch_file(path, content)


def read_translator(path: str | Path) -> Translator:
    """Read what ``write_translator`` wrote.

    Raises:
        FileAccessError: If it cannot be opened.
        CheckpointError: If it is no translator, holds code, or its weights do not fit its own config.
    """
    file = readable_file(path, what="translator")
    content = read_torch_file(file, "translator")
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} is no translator of pictures", hint="a stage of kind = translation leaves translator-NAME.pth"
        )
    with parsing(CheckpointError, f"{file} lacks a part of a translator", hint="was it written to its end?"):
        config = content["config"]
        height, width = config["size_hw"]
        found = Translator(
            width=int(config["width"]),
            blocks=int(config["blocks"]),
            channel_order=str(config["channel_order"]),
            size_hw=(int(height), int(width)),
            to_target=checked_tensors(content["to_target"]),
            to_source=checked_tensors(content["to_source"]),
            provenance=dict(content.get("provenance", {})),
        )
    _check(found, file)
    return found


def translate_set(
    translator_path: str | Path,
    pictures: UnlabelledSet,
    folder: str | Path,
    size_hw: tuple[int, int] | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write every picture of a set in the target's style, as the folder that ``?pictures=DIR`` reads.

    A picture that is there already is left alone, so that a killed run goes on where it was.

    Args:
        translator_path: A ``translator-NAME.pth``.
        pictures: A set of the source domain; its labels, where it has some, are not read.
        folder: Gets ``<key>.png`` for each picture, 8 bit BGR in OpenCV's words, and ``translated.json``.
        size_hw: Pictures are scaled to it first; None: the size that the translator was trained at. Readers scale
            translated pictures to their labels' size.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        progress: Called with (done, total).

    Returns:
        How many pictures were written by this call.

    Raises:
        CheckpointError: If the file is no translator.
        ConfigError: If the size is none for a generator.
        DataError: If the folder holds pictures of another translator, or a picture cannot be read.
        FileAccessError: If the folder cannot be written to or the disk is full.
    """
    cv2 = require("cv2", extra="training", purpose="to scale and store pictures")
    translator = read_translator(translator_path)
    height, width = _usable_size(size_hw or translator.size_hw)
    out = writable_folder(folder)
    _record(out, {"translator_sha256": sha256_file(translator_path), "size": f"{width}x{height}"})
    fabric = build_fabric(device, precision)
    model = FrameTranslator(translator).to(fabric.device)
    written = 0
    for index in range(len(pictures)):
        path = _place(out, pictures.key(index))
        if not path.is_file():
            frame = pictures.frame(index)
            if frame.shape[:2] != (height, width):
                shrinks = frame.shape[0] > height
                how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                frame = np.asarray(cv2.resize(frame, (width, height), interpolation=how))
            batch = torch.from_numpy(np.ascontiguousarray(frame))[None].to(fabric.device)
            with fabric.autocast():
                translated = model(batch)[0].round().byte().cpu().numpy()
            encoded, content = cv2.imencode(".png", translated)
            if not encoded:
                raise DataError(
                    f"cannot encode the translation of {pictures.name(index)} as PNG",
                    hint="memory may be short (free -h); run it again",
                )
            write_bytes(path, content.tobytes())
            written += 1
        if progress is not None:
            progress(index + 1, len(pictures))
    return written


def _check(translator: Translator, file: Path) -> None:
    if translator.channel_order not in ("rgb", "bgr"):
        raise CheckpointError(f"{file}: channel order {translator.channel_order!r} is unknown", hint="rgb or bgr")
    try:
        with torch.device("meta"):  # shapes only: a file must not decide how much memory is taken
            shapes = Generator(translator.width, translator.blocks).state_dict()
    except ConfigError as err:
        raise CheckpointError(f"{file}: {err.message}", hint="was the file edited?") from err
    for weights in (translator.to_target, translator.to_source):
        problem = difference(shapes, weights)
        if problem:
            raise CheckpointError(f"{file} does not fit its own config: {problem}", hint="was the file edited?")
        refuse_broken_numbers(weights, str(file))


def _usable_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    if any(side % _MULTIPLE or side < _LEAST_SIDE for side in size_hw):
        near = [max(_LEAST_SIDE, round(side / _MULTIPLE) * _MULTIPLE) for side in size_hw]
        raise ConfigError(
            f"size {size_hw[1]}x{size_hw[0]} is no multiple of {_MULTIPLE} each way",
            hint=f"nearest that works: {near[1]}x{near[0]}",
        )
    return size_hw


def _record(folder: Path, made_by: dict[str, str]) -> None:
    """Pictures of two translators in one folder would be a silent mixture."""
    path = folder / _RECORD
    if not path.exists():
        write_text(path, json.dumps(made_by, indent=2) + "\n")
        return
    try:
        same = json.loads(path.read_text(encoding="utf-8")) == made_by
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise DataError(
            f"{folder} holds pictures of another translator or size", hint="choose another folder, or empty this one"
        )


def _place(folder: Path, key: str) -> Path:
    relative = PurePosixPath(key)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"picture {key!r} has no place below {folder}", hint="name pictures relative to their set")
    return folder / f"{key}.png"


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in weights.items()}
