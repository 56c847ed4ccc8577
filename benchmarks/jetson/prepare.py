"""The ``.onnx`` files that a board is benchmarked with; made on a desktop, where torch is.

The weights are random unless a checkpoint is given: everybody makes the same files, and the network's speed does not
depend on them. The time for the mask depends on how many borders it has, so each row says how many. INT8 files are
calibrated on invented pictures: as fast as others, and right for nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Callable, List, Mapping, Sequence

import numpy as np

from rtda_deploy.files import writable_folder
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines import open_engine
from rtda_runtime.mask.preprocess import preprocess

from .cases import NETWORKS, Case, model_stem, size_text
from .measure import frames

_SEED = 20260101
_CALIBRATION_PICTURES = 4


def prepare(
    chosen: Sequence[Case], folder: Path, say: Callable[[str], None], checkpoints: Mapping[str, Path]
) -> List[Path]:
    """Write the files of some cases; those that are there are left as they are.

    Args:
        chosen: Networks and sizes; INT8 files for those that name it.
        folder: Where they go.
        say: Told of each file.
        checkpoints: ``.pth`` of a network, by its name; the others get random weights.

    Raises:
        MissingPackageError: If torch or onnx is not there.
        RtdaError: If a file cannot be made.
    """
    for package in ("torch", "onnx"):
        require(package, extra="export", purpose="to make the .onnx files")
    writable_folder(folder)
    written = []
    with tempfile.TemporaryDirectory(prefix="rtda-jetson-") as scratch:
        for network, size_wh in dict.fromkeys((case.network, case.size_wh) for case in chosen):
            target = folder / f"{model_stem(network, size_wh)}.onnx"
            checkpoint = checkpoints.get(network, Path(scratch) / f"{network}.pth")
            if not target.exists():
                if network not in checkpoints and not checkpoint.exists():
                    _write_checkpoint(network, checkpoint)
                _write_onnx(checkpoint, target, (size_wh[1], size_wh[0]))
                written.append(target)
                say(f"wrote   {target}")
            if any(case == (network, size_wh, "int8") for case in chosen):
                int8 = folder / f"{target.stem}.int8.onnx"
                if not int8.exists():
                    say(f"        calibrating {network} at {size_text(size_wh)} (minutes for large ones)")
                    _write_int8(target, int8)
                    written.append(int8)
                    say(f"wrote   {int8}")
    return written


def _write_checkpoint(network: str, path: Path) -> None:
    import torch

    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import BiSeNet

    torch.manual_seed(_SEED)
    model = BiSeNet(NETWORKS[network], "rtda", CITYSCAPES.num_classes).eval()
    architecture = {"name": "BiSeNet", "backbone": NETWORKS[network], "variant": "rtda"}
    spec = ModelSpec(
        size_hw=(512, 1024),
        class_names=CITYSCAPES.names,
        palette=CITYSCAPES.palette,
        provenance={"architecture": architecture, "recipe": "random weights, for benchmarks only"},
    )
    write_checkpoint(path, Checkpoint(spec, model.state_dict()))


def _write_onnx(checkpoint: Path, target: Path, size_hw: Sequence[int]) -> None:
    from rtda_export import onnx_from_checkpoint

    onnx_from_checkpoint(checkpoint, target, size_hw=(size_hw[0], size_hw[1]))


def _write_int8(source: Path, target: Path) -> None:
    """Everything in INT8, calibrated the quick way: of these files speed is all that is asked."""
    from rtda_export.precision.quantize import int8_onnx

    with open_engine(source, "cpu") as engine:
        spec = engine.spec
    images = [np.empty((1, 3, *spec.size_hw), np.float32) for _ in range(_CALIBRATION_PICTURES)]
    for picture, image in zip(frames((640, 360), len(images)), images):
        preprocess(picture, spec, image)
    int8_onnx(source, images, target, method="minmax", check=images[:1], limit=1e-9, max_float=0.0)
