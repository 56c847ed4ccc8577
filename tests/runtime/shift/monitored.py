"""A model with signals, whose answers NumPy knows: the tiny network, and the means of its input's channels, twice."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
from runtime.models import tiny_spec, write_model

from rtda_deploy.familiar import Familiar, with_familiar
from rtda_training.judge.blocks import familiar_of

WIDTHS = (3, 3, 5, 1)


def grey_level(frame: int, seed: int = 0, dark: float = 0.0) -> int:
    """Of a drive's frame: each has a level of its own around 120; a dark one is ``dark`` darker."""
    return int(np.random.default_rng((seed, frame)).normal(120.0 - dark, 12.0))


def picture(frame: int, seed: int = 0, dark: float = 0.0) -> np.ndarray:
    """uint8 (16, 24, 3) BGR."""
    return np.full((16, 24, 3), np.clip(grey_level(frame, seed, dark), 0, 255), np.uint8)


def blocks_of(path: Path, count: int, seed: int = 0) -> Familiar:
    """What a card holds after so many blocks of the drive."""
    from rtda_runtime import Segmenter

    with Segmenter.open(path, threads=1) as segmenter:
        rows = [segmenter.segment(picture(frame, seed)).monitor for frame in range(3 * count)]
    found = familiar_of([np.stack([row for row in rows if row is not None])], WIDTHS, data="drive", robot=True)
    assert found is not None
    return found


def write_monitored(path: Path, blocks: int = 0) -> Path:
    """Write the model; with so many blocks of the drive in its card."""
    import onnx
    from onnx import helper

    from rtda_export.graph.monitor import MAP_NAMES, with_monitor

    write_model(path)
    model = onnx.load(str(path))
    # Pixels as they come: the tiny network's mean and std make them about 0, whose means are those of the colours.
    for name in MAP_NAMES:
        model.graph.node.append(helper.make_node("Identity", ["frame"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 64, 96]))
    spec = with_monitor(model, tiny_spec())
    _write(path, model, spec.to_json(), "")
    if blocks:
        _write(path, onnx.load(str(path)), spec.to_json(), with_familiar("", blocks_of(path, blocks)))
    return path


def _write(path: Path, model: object, spec: str, card: Optional[str]) -> None:
    import onnx

    entries = {"rtda.spec": spec, **({"rtda.card": card} if card else {})}
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, str(path))
