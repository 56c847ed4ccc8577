"""Can a discriminator tell two domains apart by the maps of a network that stands still? docs/results/adversary.md.

    python benchmarks/discriminator_probe.py runs/source-only/last.pth --source DATA --target DATA
        [--size 128x96] [--batch-size 8] [--steps 300] [--kinds light-thin fcd-light fcd] [--views softmax]
        [--rates 1e-4 4e-4 1e-3] [--inits torch he] [--gans bce] [--csv FILE]

The network never learns: nobody pushes back. Its batch norms work by the batch, as they do in training, and remember
nothing. Maps of the first pictures of one epoch are for learning, those of the rest are held out. "right" is the share
of places whose domain was told, mean of both domains; 0.5 is chance. "first" is the first step at which the mean of
the last 20 steps reached 0.6 in learning; "separates" is how far apart the mean logits of the domains are, in standard
deviations, before the first step.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
from tables import table, wide
from torch import Tensor, nn

from rtda_training.adapt.losses import SOURCE, TARGET, domain_loss
from rtda_training.adapt.objectives.advent import self_information
from rtda_training.adapt.objectives.adversarial import standardised
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.models import build_discriminator
from rtda_training.plan import load_plan
from rtda_training.readers import open_unlabelled
from rtda_training.stages.base import SOURCE_STREAM, TARGET_STREAM, step_batches

_HELD = 0.15  # share of the batches that are held out
_LEARNED = 0.6
Maps = List[Tensor]


def scaled_softmax(logits: Tensor) -> Tensor:
    """Probabilities with mean 0 and, for a sure network, deviation about 1."""
    classes = logits.shape[1]
    return (torch.softmax(logits.float(), dim=1) - 1 / classes) * (classes / (classes - 1) ** 0.5)


VIEWS = {
    "softmax": lambda logits: torch.softmax(logits.float(), dim=1),
    "scaled-softmax": scaled_softmax,
    "logits": standardised,
    "self-information": self_information,
}


@torch.no_grad()
def maps_of(checkpoint: Path, address: str, stream: int, options: argparse.Namespace) -> Tuple[Maps, Maps]:
    """Logits of one epoch's batches, float16 (N, C, H, W): to learn from, and held out."""
    plan = load_plan("source-only", [f"size={options.size}", f"batch_size={options.batch_size}", *options.set])
    pictures = open_unlabelled(address)
    count = min(options.batches, len(pictures) // options.batch_size)
    batches = step_batches(pictures, plan, count, stream)
    network = model_from_checkpoint(read_checkpoint(checkpoint)).train()
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = 0.0
    found = [network(normalise(batches[place].frames, plan.input)).logits.half() for place in range(count)]
    held = max(1, round(_HELD * count))
    return found[:-held], found[-held:]


def judged(logits: Tensor, gan: str) -> Tuple[Tensor, Tensor]:
    """Loss, and right answers of both halves of a batch whose first half is the source's."""
    source, target = logits.chunk(2)
    loss = 0.5 * (domain_loss(source, SOURCE, gan) + domain_loss(target, TARGET, gan))
    middle = 0.5 if gan == "ls" else 0.0
    return loss, 0.5 * ((source < middle).float().mean() + (target >= middle).float().mean())


def probe(domains: Dict[str, Tuple[Maps, Maps]], choice: Dict[str, Any], steps: int) -> Dict[str, Any]:
    """Train one discriminator and say what became of it."""
    torch.manual_seed(0)
    view, gan = VIEWS[choice["view"]], choice["gan"]
    (source, held_source), (target, held_target) = domains["source"], domains["target"]
    module = build_discriminator(choice["kind"], source[0].shape[1], init=choice["init"])
    optimizer = torch.optim.Adam(module.parameters(), lr=choice["rate"], betas=(0.9, 0.99))
    rights: List[float] = []
    separates, first, started = 0.0, 0, time.monotonic()
    loss = torch.zeros(())
    for step in range(steps):
        batch = torch.cat([view(maps[step % len(maps)]) for maps in (source, target)])
        logits = module(batch)
        if step == 0:
            halves = logits.detach().chunk(2)
            separates = float((halves[1].mean() - halves[0].mean()) / logits.detach().std())
        loss, right = judged(logits, gan)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = choice["rate"] * (1 - step / steps) ** 0.9
        optimizer.step()
        rights.append(float(right))
        if not first and step >= 20 and sum(rights[-20:]) / 20 >= _LEARNED:
            first = step + 1
    with torch.no_grad():
        pairs = [torch.cat([view(s), view(t)]) for s, t in zip(held_source, held_target)]
        held = [float(judged(module(pair), gan)[1]) for pair in pairs]
    return {
        **choice,
        "steps": steps,
        "loss": float(loss.detach()),
        "right": sum(rights[-20:]) / len(rights[-20:]),
        "held_out": sum(held) / len(held),
        "first": first or None,
        "separates": separates,
        "ms_per_step": 1000 * (time.monotonic() - started) / steps,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=45, help="of each domain, at most one epoch")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--kinds", nargs="+", default=["light-thin", "fcd-light", "fcd"])
    parser.add_argument("--views", nargs="+", default=["softmax"], choices=VIEWS)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-4, 4e-4, 1e-3])
    parser.add_argument("--inits", nargs="+", default=["torch", "he"], choices=["torch", "he"])
    parser.add_argument("--gans", nargs="+", default=["bce"], choices=["bce", "ls"])
    parser.add_argument("--set", action="append", default=[], help="a setting of source-only, such as augmentation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="rows are appended here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    domains = {
        "source": maps_of(options.checkpoint, options.source, SOURCE_STREAM, options),
        "target": maps_of(options.checkpoint, options.target, TARGET_STREAM, options),
    }
    keys = ("kind", "view", "init", "gan", "rate")
    lists = (options.kinds, options.views, options.inits, options.gans, options.rates)
    choices: List[Dict[str, Any]] = [{}]
    for key, values in zip(keys, lists):
        choices = [{**made, key: value} for made in choices for value in values]
    rows = []
    for choice in choices:
        rows.append(probe(domains, choice, options.steps))
        print({key: float(f"{v:.3g}") if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
        if options.csv:
            new = not options.csv.exists()
            with options.csv.open("a", newline="") as file:
                writer = csv.DictWriter(file, rows[-1], lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in rows[-1].items()})
    columns = {"discriminator": "{kind}", "sees": "{view}", "init": "{init}", "loss type": "{gan}", ">rate": "{rate:g}"}
    figures = {">loss": "{loss:.3f}", ">right": "{right:.2f}", ">held out": "{held_out:.2f}", ">first": "{first}"}
    print(wide(table({**columns, **figures, ">separates": "{separates:+.2f}"}, rows)))


if __name__ == "__main__":
    main()
