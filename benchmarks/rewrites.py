"""What the published network wastes, and what the export's exact rewrites save: same answer, fewer operations.

    python benchmarks/rewrites.py [--size 1024x512] [--backbones resnet18] [--rounds 15] [--json]

Graphs of the same weights, run in turns in each library on the same picture:

- ``published``: as the lineage publishes it, logits at full size; ``rtda`` ends in a 1x1 convolution there;
- ``head first``: that convolution before the last enlargement, logits at full size still;
- ``deployed``: logits at 1/8 (``export --no-rewrite``);
- ``rewritten``: and the fusion convolved before its maps are enlarged (what ``export`` writes).

The ratio is that of a round's two times, ``published`` over this one; its spread is the middle half of the rounds.
``differs`` is the largest difference of the logits from those of the graph it was made from, as a share of their range.
Weights are random, which no speed depends on. Fails if a rewritten graph answers otherwise (1e-4 of the range, the
export's own limit in float32).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np
from peer_ways import onnx_of, openvino_network, ort_network
from rounds import in_turns, recorded, timed, times_as_fast
from small_network import random_checkpoint
from speed_sections import report

from rtda_deploy.sizes import parse_size
from rtda_export import onnx_from_checkpoint

NETWORKS = (("resnet18", "rtda"), ("resnet18", "paper"), ("resnet101", "rtda"))
_PAUSE_S = 0.03
_MADE_FROM = {"rewritten": "deployed", "head first": "published"}


def measure(backbone: str, variant: str, size_hw: Tuple[int, int], folder: Path, options: Any) -> Dict[str, Any]:
    """One network: ``rows`` by library and graph."""
    graphs = write_graphs(backbone, variant, size_hw, folder)
    image = np.random.default_rng(0).standard_normal((1, 3, *size_hw)).astype(np.float32)
    rows = []
    for library, opened in (("ONNX Runtime", ort_network), ("OpenVINO", openvino_network)):
        nets = {name: opened(path, options.threads) for name, path in graphs.items()}
        answers = {name: np.array(net(image)) for name, net in nets.items()}
        ways = {name: timed(net, inputs=[image]) for name, net in nets.items()}
        times = in_turns(ways, options.rounds, pause_s=_PAUSE_S)
        for name, own in times.items():
            first = answers[_MADE_FROM.get(name, name)]
            differs = float(np.abs(answers[name] - first).max() / np.ptp(first))
            facts = {"library": library, "graph": name, "gmacs": _macs(graphs[name]) / 1e9, "differs": differs}
            rows.append({**facts, **times_as_fast(own, times["published"])})
    return {"backbone": backbone, "variant": variant, "rows": rows}


def write_graphs(backbone: str, variant: str, size_hw: Tuple[int, int], folder: Path) -> Dict[str, Path]:
    """The ``.onnx`` files by name of the graph."""
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

    checkpoint = random_checkpoint(folder / "random.pth", backbone, variant, size_hw[::-1])
    read = read_checkpoint(checkpoint)
    model = model_from_checkpoint(read).eval()
    return {
        "published": onnx_of(model, folder / "published.onnx", read.spec, "logits"),
        "head first": onnx_of(model, folder / "head.onnx", read.spec, "head first"),
        "deployed": onnx_from_checkpoint(checkpoint, folder / "deployed.onnx", rewritten=False),
        "rewritten": onnx_from_checkpoint(checkpoint, folder / "rewritten.onnx"),
    }


def _macs(path: Path) -> int:
    import onnx

    from rtda_export.roofline.layers import fused_layers

    return sum(layer.macs for layer in fused_layers(onnx.load(str(path))))


def main() -> int:
    """Measure, print, and fail if a rewritten graph answers otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1024x512", help="of the input, WIDTHxHEIGHT (default: 1024x512)")
    chosen = sorted({backbone for backbone, _ in NETWORKS})
    parser.add_argument("--backbones", nargs="+", choices=chosen, default=chosen, help="(default: both)")
    parser.add_argument("--rounds", type=int, default=15, help="of all graphs (default: 15)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each library (all cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    height, width = parse_size(options.size)
    networks = []
    with recorded() as found:
        for backbone, variant in (network for network in NETWORKS if network[0] in options.backbones):
            print(f"{backbone} {variant}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="rtda-rewrites-") as scratch:
                networks.append(measure(backbone, variant, (height, width), Path(scratch), options))
    found.update(networks=networks, size=options.size, rounds=options.rounds, threads=options.threads)
    return report("rewrites", found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
