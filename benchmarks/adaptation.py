"""What adaptation gains on ToyTown, and how large its domain gap is; the tables of docs/results/demo.md.

    python benchmarks/adaptation.py rows --seed 0 --out runs/adaptation     source-only, RTDA, its control, the recipe
    python benchmarks/adaptation.py gap --out runs/adaptation               source-only and oracle, 3,000 steps each
    python benchmarks/adaptation.py table --out runs/adaptation             the tables of everything measured so far

All rows of a seed start from the same network and make the same number of steps with the same batches, rate and
augmentation. Scores are of the last checkpoint on the target's test split; no target label is used in training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

from rtda_export import evaluate
from rtda_training.plan import PlanConfig, StageConfig, load_plan
from rtda_training.readers import open_labelled
from rtda_training.run import train_plan

ROWS = ("source-only", "adversary of weight 0", "RTDA alone", "demo recipe")
_TESTS = {"source": "toytown:source?split=test", "target": "toytown:target?split=test"}


def rows(stage: StageConfig) -> dict[str, StageConfig]:
    """The second stage of the demo, stripped to each row's method.

    The adversary of weight 0 trains its discriminator and tells the network nothing: what its row gains over
    source-only comes from the forwards of target pictures through the batch norms.
    """
    plain = dataclasses.replace(stage, objectives=("supervised",), style="none", bn_statistics="running")
    alone = dataclasses.replace(plain, objectives=("supervised", "adversarial"))
    silent = dataclasses.replace(stage.settings["adversarial"], weight=0.0)
    control = dataclasses.replace(alone, settings={**alone.settings, "adversarial": silent})
    return dict(zip(ROWS, (plain, control, alone, stage), strict=True))


def run_seed(out: Path, seed: int, threads: int, overrides: list[str], only: list[str]) -> None:
    """Train and score the rows of one seed; what is finished is not done again."""
    plan = load_plan("rtda-after-source", [f"seed={seed}", "save_every=0", "val_pictures=1", *overrides])
    start = dataclasses.replace(plan, stages=plan.stages[:1])
    begun = train(start, out / f"seed{seed}-start", threads)
    chosen = {name: stage for name, stage in rows(plan.stages[1]).items() if name in only}
    for name, stage in chosen.items():
        folder = out / f"seed{seed}-{name.replace(' ', '-')}"
        train(dataclasses.replace(plan, init=str(begun), stages=(stage,)), folder, threads)
        score(folder, {"row": name, "seed": seed, "steps": [plan.stages[0].steps, stage.steps]})


def run_gap(out: Path, which: str, threads: int) -> None:
    """The papers' baseline and the oracle at the length of their recipes."""
    plan = load_plan(which, ["val_every=0", "save_every=0", "val_pictures=1"])
    folder = out / f"gap-{which}"
    train(plan, folder, threads)
    score(folder, {"row": which, "gap": True, "steps": [plan.stages[0].steps]})


def train(plan: PlanConfig, folder: Path, threads: int) -> Path:
    import torch

    torch.set_num_threads(threads)
    last = folder / "last.pth"
    if not last.exists():
        train_plan(plan, folder)
    return last


def score(folder: Path, facts: dict[str, object]) -> None:
    result = folder / "scores.json"
    if not result.exists():
        found = {name: evaluate(folder / "last.pth", open_labelled(text)).to_dict() for name, text in _TESTS.items()}
        result.write_text(json.dumps({**facts, **found}, indent=2) + "\n")
    print(folder.name, {name: json.loads(result.read_text())[name]["miou"] for name in _TESTS}, flush=True)


def print_tables(out: Path) -> None:
    """Markdown on stdout."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*/scores.json"))]
    measured = [entry for entry in found if "seed" in entry]
    seeds = sorted({entry["seed"] for entry in measured})
    print("| target test mIoU, % | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | gain |")
    print("| --- |" + " ---: |" * (len(seeds) + 2))
    base = None
    for row in ROWS:
        values = {entry["seed"]: entry["target"]["miou"] for entry in measured if entry["row"] == row}
        if not values:
            continue
        mean = statistics.mean(values.values())
        base = mean if base is None else base
        cells = " | ".join(f"{values[seed]:.1f}" if seed in values else "-" for seed in seeds)
        print(f"| {row} | {cells} | {mean:.1f} | {mean - base:+.1f} |")
    print("\n| 3,000 steps | source test mIoU | target test mIoU |\n| --- | ---: | ---: |")
    for entry in (entry for entry in found if entry.get("gap")):
        print(f"| {entry['row']} | {entry['source']['miou']:.1f} | {entry['target']['miou']:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rows", "gap", "table"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", nargs="*", default=["source-only", "target-only"], help="of gap")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), help="of rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="change the demo's recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    asked = parser.parse_args()
    if asked.what == "rows":
        run_seed(asked.out, asked.seed, asked.threads, asked.set, asked.only)
    elif asked.what == "gap":
        for which in asked.recipe:
            run_gap(asked.out, which, asked.threads)
    else:
        print_tables(asked.out)


if __name__ == "__main__":
    main()
