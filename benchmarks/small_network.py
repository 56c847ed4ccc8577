"""A BiSeNet-R18 with random weights, for benchmarks of what stands around a network.

    python benchmarks/small_network.py model.onnx 256x128

It is made in a process of its own, so that torch is no part of the memory that is measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, Tuple

import numpy as np

from rtda_deploy.optional import available, require
from rtda_deploy.spec import ModelSpec

__all__ = ["smooth_pictures", "write_network"]


def write_network(path: Path, size_wh: Tuple[int, int]) -> Path:
    """Write the ``.onnx``, with Cityscapes' 19 classes; the same weights every time.

    Raises:
        MissingPackageError: If torch or onnx is not there; another model can be named instead (``--model``).
    """
    for package in ("torch", "onnx"):
        if not available(package):
            require(package, extra="export", purpose="to make a network; or name one with --model")
    command = [sys.executable, str(Path(__file__).resolve()), str(path), f"{size_wh[0]}x{size_wh[1]}"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return path


def _write_here(path: Path, size_wh: Tuple[int, int]) -> None:
    import torch

    from rtda_export import onnx_from_checkpoint
    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import BiSeNet

    torch.manual_seed(20260101)
    network = BiSeNet("resnet18", "rtda", CITYSCAPES.num_classes).eval()
    spec = ModelSpec(
        size_hw=(size_wh[1], size_wh[0]),
        class_names=CITYSCAPES.names,
        palette=CITYSCAPES.palette,
        provenance={
            "architecture": {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"},
            "recipe": "random weights, for benchmarks only",
        },
    )
    with tempfile.TemporaryDirectory(prefix="rtda-network-") as scratch:
        checkpoint = Path(scratch) / "random.pth"
        write_checkpoint(checkpoint, Checkpoint(spec, network.state_dict()))
        onnx_from_checkpoint(checkpoint, path, size_hw=spec.size_hw)


def smooth_pictures(size_wh: Tuple[int, int], count: int = 4) -> List[np.ndarray]:
    """Different smooth coloured pictures, uint8 (H, W, 3)."""
    cv2 = require("cv2", extra="runtime", purpose="to make pictures")
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (9, 16, 3), dtype=np.uint8) for _ in range(count)]
    return [np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_CUBIC)) for picture in coarse]


if __name__ == "__main__":
    width, height = (int(side) for side in sys.argv[2].split("x"))
    _write_here(Path(sys.argv[1]), (width, height))
