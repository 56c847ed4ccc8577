"""Every picture of a set in the target's style, written by a translator: the folder that ``?pictures=DIR`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import sha256_file, writable_folder, write_text
from rtda_deploy.optional import require
from rtda_training.data.labels.files import write_png
from rtda_training.loop.hardware import build_fabric
from rtda_training.readers import UnlabelledSet
from rtda_training.translator import FrameTranslator, read_translator

__all__ = ["translate_set"]

_RECORD = "translated.json"  # beside the translated pictures: what made them
_MULTIPLE = 4  # of height and width, for a generator
_LEAST_SIDE = 8


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
    """Translate every picture of a set and write it into a folder.

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
        ConfigError: If no generator takes the size.
        DataError: If the folder holds pictures of another translator, or a picture cannot be read.
        FileAccessError: If the folder cannot be written to or the disk is full.
    """
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
            frame = torch.from_numpy(_scaled(pictures.frame(index), (height, width)))[None].to(fabric.device)
            with fabric.autocast():
                translated = model(frame)[0].round().byte().cpu().numpy()
            write_png(path, translated)
            written += 1
        if progress is not None:
            progress(index + 1, len(pictures))
    return written


def _scaled(frame: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    cv2 = require("cv2", extra="training", purpose="to scale pictures")
    if frame.shape[:2] != size_hw:
        how = cv2.INTER_AREA if frame.shape[0] > size_hw[0] else cv2.INTER_LINEAR
        frame = cv2.resize(frame, size_hw[::-1], interpolation=how)
    return np.ascontiguousarray(frame)


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
