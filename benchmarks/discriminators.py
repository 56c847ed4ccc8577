"""Seconds a step with each discriminator: FCD, FCD-Light and Light&Thin; docs/results/training.md.

    python benchmarks/discriminators.py [--size 256x128] [--rounds 9] [--precision fp32] [--threads 0] [--clock wall]

RTDA's table gives 7 h 04, 6 h 39 and 6 h 32 of training on its GPUs. "step" is the whole training step of a BiSeNet-R18
(batch 4 of each domain, ToyTown in memory); "alone" is the discriminator's part of it: judging the target's map with
the gradient back to the map, then learning from both maps. Rows take turns within a round; ratios are of rounds, to
FCD: median and middle half. ``--clock cpu`` counts processor time, for machines that do other work too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch

from rtda_training.adapt.context import StepContext
from rtda_training.adapt.objectives.adversarial import Adversarial
from rtda_training.adapt.slots import components
from rtda_training.loop.hardware import memory_kept
from rtda_training.models import SegOutput
from rtda_training.plan import load_plan
from rtda_training.stages.segmentation import SegmentationStage
from rtda_training.trainer import Trainer

_KINDS = ("fcd", "fcd-light", "light-thin")
_BATCH = 4
_SETS = {"source": "toytown:source?count=20", "target": "toytown:target?count=20", "val": "toytown:source?count=20"}
_PAPER_HOURS = {"fcd": 7 + 4 / 60, "fcd-light": 6 + 39 / 60, "light-thin": 6 + 32 / 60}  # RTDA, table III


def stage_of(kind: str, options: argparse.Namespace, folder: Path) -> SegmentationStage:
    """A stage of RTDA with this discriminator, ready for its first step."""
    settings = [f"size={options.size}", f"batch_size={_BATCH}", f"precision={options.precision}", "workers=0"]
    settings += [f"adversarial.discriminator={kind}", "steps=1000000", f"device={'cuda' if options.cuda else 'cpu'}"]
    plan = load_plan("rtda-light-thin", [*settings, "cache=true"], **_SETS)
    trainer = Trainer(plan, folder)
    trainer._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stage = components("kind")["segmentation"](None, trainer._stage_context(0), plan, plan.stages[0])  # type: ignore[call-arg, arg-type]
    assert isinstance(stage, SegmentationStage)
    stage.begin(0)
    return stage


def alone(stage: SegmentationStage) -> Callable[[int], None]:
    """The discriminator's part of a step on maps that are there already."""
    adversary = next(part for part in stage._objectives if isinstance(part, Adversarial))
    fixed = stage._context(0)
    outputs: Dict[str, SegOutput] = {}
    for name, picture in (("source", fixed.source), ("target", fixed.target)):
        with torch.no_grad():
            output = stage._forward(picture)
        outputs[name] = output._replace(logits=output.logits.detach().requires_grad_())

    def step(number: int) -> None:
        context = StepContext(
            number, fixed.source_frames, fixed.label, fixed.target_frames, stage._forward, fixed.normalise
        )
        context._outputs.update(outputs)
        outputs["target"].logits.grad = None
        adversary.network_loss(context).backward()
        adversary.play(context, 1.0)

    return step


def interleaved(
    rows: Dict[str, Callable[[int], Any]], rounds: int, clock: Callable[[], float]
) -> Dict[str, List[float]]:
    """Seconds of one step of each row in each round, the first of ``rounds + 1`` left out; who goes first changes."""
    names = list(rows)
    seconds: Dict[str, List[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = clock()
            rows[name](turn)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def row_of(what: str, kind: str, seconds: Dict[str, List[float]]) -> Dict[str, Any]:
    """One line of the table."""
    ratios = sorted(a / b for a, b in zip(seconds[kind], seconds["fcd"], strict=True))
    return {
        "what": what,
        "discriminator": kind,
        "ms": round(1e3 * statistics.median(seconds[kind]), 1),
        "of_fcd": round(statistics.median(ratios), 3),
        "low": round(ratios[len(ratios) // 4], 3),
        "high": round(ratios[-1 - len(ratios) // 4], 3),
        "paper_of_fcd": round(_PAPER_HOURS[kind] / _PAPER_HOURS["fcd"], 3) if what == "step" else None,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="256x128", help="network input (default: 256x128)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    table = []
    device = torch.device("cuda" if options.cuda else "cpu")
    with tempfile.TemporaryDirectory(prefix="rtda-discriminators-") as work, memory_kept(device):  # as Trainer.run does
        stages = {kind: stage_of(kind, options, Path(work) / kind) for kind in _KINDS}
        measured = {
            "step": interleaved({kind: stage.step for kind, stage in stages.items()}, options.rounds, clock),
            "alone": interleaved({kind: alone(stage) for kind, stage in stages.items()}, options.rounds, clock),
        }
        table = [row_of(what, kind, seconds) for what, seconds in measured.items() for kind in _KINDS]
    machine = (
        f"{options.precision}, torch {torch.__version__}, {torch.get_num_threads()} threads, {options.clock} clock"
    )
    machine += f", {platform.machine()}"
    if options.json:
        print(json.dumps({"size": options.size, "rounds": options.rounds, "machine": machine, "rows": table}))
        return
    for row in table:
        paper = "" if row["paper_of_fcd"] is None else f"   RTDA's table: {row['paper_of_fcd']}"
        spread = f"{row['of_fcd']:.3f} of FCD ({row['low']:.3f}..{row['high']:.3f})"
        print(f"{row['what']:<6} {row['discriminator']:<11} {row['ms']:>8} ms  {spread}{paper}")
    print(f"{options.size}, batch {_BATCH}, median of {options.rounds} interleaved rounds · {machine}")


if __name__ == "__main__":
    main()
