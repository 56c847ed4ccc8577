"""What each backbone costs a BiSeNet at 1024x512: parameters, multiply-adds, processor time of its exported file.

The networks take turns, one picture each, in an order that changes from round to round: a machine that grows slower or
is shared then changes both alike. Time is that of one thread, so that another program's share of the core is not in it.

    python benchmarks/backbones.py --backbone resnet18 --backbone efficientnet-lite0
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZE_HW = (512, 1024)


def exported(backbone: str, folder: Path) -> tuple[Path, int, float, float]:
    """The network's ONNX, its parameters, and multiply-adds (G) as published and as deployed; random weights."""
    import torch

    from rtda_deploy.spec import ModelSpec
    from rtda_export import onnx_from_checkpoint
    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import build_network, count_macs, count_parameters

    torch.manual_seed(0)
    network = build_network("bisenet", backbone, "rtda", CITYSCAPES.num_classes)
    spec = ModelSpec(
        size_hw=SIZE_HW,
        class_names=CITYSCAPES.names,
        palette=CITYSCAPES.palette,
        provenance={"architecture": network.architecture},
    )
    checkpoint = write_checkpoint(folder / f"{backbone}.pth", Checkpoint(spec, network.state_dict()))
    macs = [count_macs(model, SIZE_HW) / 1e9 for model in (network, network.deploy_view())]
    return onnx_from_checkpoint(checkpoint, folder / f"{backbone}.onnx"), count_parameters(network), macs[0], macs[1]


def session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append", required=True, help="the first is what others are compared with")
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    sessions, times = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for backbone in args.backbone:
            path, parameters, published, deployed = exported(backbone, Path(folder))
            sessions[backbone], times[backbone] = session(path), []
            print(f"{backbone}: {parameters:,} parameters, {published:.2f} GMACs, {deployed:.2f} deployed")
    picture = np.random.default_rng(0).standard_normal((1, 3, *SIZE_HW)).astype(np.float32)
    for turn in range(args.rounds + 1):  # the first is a warm-up
        for backbone in args.backbone[:: 1 if turn % 2 else -1]:
            begun = time.thread_time()
            sessions[backbone].run(None, {"image": picture})
            times[backbone].append(1e3 * (time.thread_time() - begun))
    first = times[args.backbone[0]][1:]
    for backbone, taken in times.items():
        ratios = [ours / theirs for ours, theirs in zip(taken[1:], first)]
        print(
            f"{backbone}: {statistics.median(taken[1:]):.0f} ms ({min(taken[1:]):.0f} to {max(taken[1:]):.0f}), "
            f"{statistics.median(ratios):.2f} of the first ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
