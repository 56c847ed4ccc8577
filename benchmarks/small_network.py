"""A BiSeNet with random weights, for benchmarks that need a network and not its answers.

    python benchmarks/small_network.py model.onnx 256x128 [--backbone resnet101] [--variant paper]

It is made in a process of its own, so that torch is no part of the memory that is measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Tuple

from rtda_deploy.optional import available, require
from rtda_deploy.sizes import parse_size
from rtda_deploy.spec import ModelSpec

__all__ = ["random_checkpoint", "write_network"]


def write_network(
    path: Path,
    size_wh: Tuple[int, int],
    *,
    backbone: str = "resnet18",
    variant: str = "rtda",
) -> Path:
    """Write the ``.onnx``, with Cityscapes' 19 classes.

    The weights are the same every time, and those of a backbone and variant the same at every size.

    Args:
        path: The file.
        size_wh: Width and height of its input, multiples of 32.
        backbone: ``resnet18`` or ``resnet101``.
        variant: ``rtda`` or ``paper``.

    Raises:
        MissingPackageError: If torch or onnx is not there; another model can be named instead (``--model``).
    """
    for package in ("torch", "onnx"):
        if not available(package):
            require(package, extra="export", purpose="to make a network; or name one with --model")
    command = [sys.executable, str(Path(__file__).resolve()), str(path), f"{size_wh[0]}x{size_wh[1]}"]
    command += ["--backbone", backbone, "--variant", variant]
    subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return path


def random_checkpoint(path: Path, backbone: str, variant: str, size_wh: Tuple[int, int]) -> Path:
    """Write the checkpoint of :func:`write_network`; this one needs torch in this process."""
    import torch

    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import BiSeNet

    torch.manual_seed(20260101)
    network = BiSeNet(backbone, variant, CITYSCAPES.num_classes).eval()
    spec = ModelSpec(
        size_hw=(size_wh[1], size_wh[0]),
        class_names=CITYSCAPES.names,
        palette=CITYSCAPES.palette,
        provenance={
            "architecture": {"name": "BiSeNet", "backbone": backbone, "variant": variant},
            "recipe": "random weights, for benchmarks only",
        },
    )
    return write_checkpoint(path, Checkpoint(spec, network.state_dict()))


def _write_here(path: Path, size_wh: Tuple[int, int], backbone: str, variant: str) -> None:
    from rtda_export import onnx_from_checkpoint

    with tempfile.TemporaryDirectory(prefix="rtda-network-") as scratch:
        checkpoint = random_checkpoint(Path(scratch) / "random.pth", backbone, variant, size_wh)
        onnx_from_checkpoint(checkpoint, path)


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path, help=".onnx to write")
    parser.add_argument("size", help="of its input, WIDTHxHEIGHT")
    parser.add_argument("--backbone", default="resnet18", choices=("resnet18", "resnet101"))
    parser.add_argument("--variant", default="rtda", choices=("rtda", "paper"))
    options = parser.parse_args()
    height, width = parse_size(options.size)
    _write_here(options.path, (width, height), options.backbone, options.variant)


if __name__ == "__main__":
    _main()
