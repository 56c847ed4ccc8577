"""Checkpoints of one pair of domains, good ones and collapsed ones, for ``benchmarks/ranking.py`` to rank.

    python benchmarks/ranking_runs.py toytown --out runs/ranking-toytown
    RTDA_DATA=DATA python benchmarks/ranking_runs.py camvid --out runs/ranking-camvid

A network learns the source; from it start runs of several methods, some of them with settings that destroy a network:
a rate thirty times too high, entropy minimisation that outweighs the labels. Each run leaves a checkpoint after each
of its stages. Batch-norm statistics of the source mixed with those of the target, and those of a single frame, are
candidates that need no training. No label of the target is used. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
from pathlib import Path

import numpy as np
import torch

from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.plan import load_plan
from rtda_training.readers import open_unlabelled
from rtda_training.run import train_plan
from rtda_training.stages.segmentation import reestimate

_AUGMENT = ("augment.scale_max=1.5", "augment.brightness=0.3", "augment.contrast=0.3", "augment.saturation=0.3")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Addresses of a pair of domains; ``RTDA_DATA`` stands for the folder of real data."""

    source: str
    target: str
    val: str


PAIRS = {
    "toytown": Pair("toytown:source", "toytown:target", "toytown:source?split=val"),
    "camvid": Pair(
        "folder:{data}/sim/airsim?list=lists/train.txt",
        "folder:{data}/camvid?list=lists/train.txt&classes={data}/sim/camvid_as_airsim.json",
        "folder:{data}/sim/airsim?list=lists/val.txt",
    ),
}

# Name of a run: its recipe, and what is changed in it.
RUNS = {
    "more": ("source-only", ()),
    "target-bn": ("target-bn", ()),
    "classmix": ("classmix", ()),
    "entropy-1": ("minent", ("entropy.form=plain", "entropy.weight=1")),
    "classmix-all": ("classmix", ("ema.threshold=0", "ema.norm=batch", "ema.momentum=0.9")),
    "high-rate": ("source-only", ("optimizer.learning_rate=3e-2", "optimizer.warmup_steps=0")),
    "fda": ("fda-light", ("adversarial.weight=0", "bn_statistics=target")),
    "entropy-10": ("minent", ("entropy.form=plain", "entropy.weight=10")),
    "minent": ("minent", ()),
    "masked": ("masked", ()),
    "adversary": ("rtda-light-thin", ("adversarial.weight=0.05",)),
    "seed-1": ("source-only", ("seed=1",)),
}


def plan_of(pair: Pair, recipe: str, steps: int, parts: int, overrides: tuple[str, ...], init: str):
    """The recipe as ``parts`` stages of ``steps`` each, so that a checkpoint is left after each of them."""
    usual = ("batch_size=4", "cache=true", "val_every=0", "save_every=0", "val_pictures=1", *_AUGMENT)
    rate = ("optimizer.learning_rate=5e-4", "optimizer.warmup_steps=10", f"steps={steps}")
    addresses = {"source": pair.source, "val": pair.val}
    if recipe != "source-only":
        addresses["target"] = pair.target
    plan = load_plan(recipe, [*usual, *rate, *overrides], init=init, **addresses)
    (stage,) = plan.stages
    return dataclasses.replace(plan, stages=tuple(dataclasses.replace(stage, name=f"part{n}") for n in range(parts)))


def train(plan, folder: Path) -> Path:
    """Train a plan unless that was done; gives its last checkpoint."""
    done = folder / "done"
    if not done.exists():
        train_plan(plan, folder, clear=True, report=False)
        done.touch()
        print(folder.name, flush=True)
    return folder / "last.pth"


def mix_norms(start: Path, target: str, folder: Path, *, pictures: int = 64) -> None:
    """Batch norms of the start, mixed with the target's by four factors, and those of one frame."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = read_checkpoint(start)
    network = model_from_checkpoint(checkpoint)
    before = copy.deepcopy(network.state_dict())
    data = open_unlabelled(target)
    places = np.linspace(0, len(data) - 1, pictures).round().astype(int)
    for name, chosen in {"target": places, "frame": places[:1].repeat(2)}.items():
        network.load_state_dict(before)
        reestimate(network, batches_of(checkpoint, [data.frame(int(index)) for index in chosen]))
        after = copy.deepcopy(network.state_dict())
        for share in (0.25, 0.5, 0.75, 1.0) if name == "target" else (0.5, 1.0):
            mixed = {
                key: torch.lerp(before[key], after[key], share) if key.endswith(("_mean", "_var")) else before[key]
                for key in before
            }
            write_checkpoint(folder / f"stage-{name}-{share}.pth", Checkpoint(checkpoint.spec, mixed))
    (folder / "done").touch()
    print(folder.name, flush=True)


def batches_of(checkpoint: Checkpoint, frames: list[np.ndarray], size: int = 8):
    """Normalised batches float32 (N, 3, h, w) of frames uint8 (H, W, 3) BGR."""
    import cv2

    spec = checkpoint.spec
    height, width = spec.size_hw
    small = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames]
    for place in range(0, len(small), size):
        yield normalise(torch.from_numpy(np.stack(small[place : place + size])), spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", choices=tuple(PAIRS))
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--start-steps", type=int, default=120, help="of each of the three parts of the start")
    parser.add_argument("--steps", type=int, default=40, help="of each of the three parts of a run")
    parser.add_argument("--only", nargs="*", choices=tuple(RUNS), default=list(RUNS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    data = os.environ.get("RTDA_DATA", "")
    pair = Pair(*(text.format(data=data) for text in dataclasses.astuple(PAIRS[asked.pair])))
    size = (f"size={asked.size}",)
    longer = ("optimizer.learning_rate=1e-3", "batch_size=8")
    start = train(plan_of(pair, "source-only", asked.start_steps, 3, (*size, *longer), ""), asked.out / "source-only")
    mix_norms(start, pair.target, asked.out / "batch-norms")
    for name in asked.only:
        recipe, overrides = RUNS[name]
        alone = name.startswith("seed")
        plan = plan_of(pair, recipe, asked.steps, 3, (*size, *overrides), "" if alone else str(start))
        train(plan, asked.out / name)


if __name__ == "__main__":
    main()
