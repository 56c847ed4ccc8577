"""A translator of pictures: its file, and the frozen network that it holds.

The file is ``{"format": "rtda-deploy-translator", "version", "config", "to_target", "to_source", "provenance"}``: two
state dicts of ``Generator`` and plain values, so that ``torch.load(weights_only=True)`` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtda_deploy import __version__
from rtda_deploy.border import parsing
from rtda_deploy.errors import CheckpointError, ConfigError
from rtda_deploy.files import readable_file
from rtda_training.models.cyclegan import Generator
from rtda_training.models.state_dicts import checked_tensors, difference, refuse_broken_numbers
from rtda_training.torch_file import read_torch_file, write_torch_file

__all__ = [
    "FORMAT",
    "FrameTranslator",
    "Translator",
    "frames_from",
    "pictures_from",
    "read_translator",
    "translator_file",
    "write_translator",
]

FORMAT = "rtda-deploy-translator"


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
    """The frozen generator of target pictures: frames in, frames out.

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


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in weights.items()}
