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
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
from rounds import in_turns, timed, times_as_long
from tables import table, wide

from rtda_training.adapt.context import StepContext
from rtda_training.adapt.objectives.adversarial import Adversarial
from rtda_training.adapt.slots import components
from rtda_training.loop.hardware import memory_kept
from rtda_training.models import SegOutput
from rtda_training.plan import load_plan
from rtda_training.stages.segmentation import SegmentationStage
from rtda_training.trainer import Trainer

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
    stage = components("kind")["segmentation"](None, trainer._context(0), plan, plan.stages[0])  # type: ignore[call-arg, arg-type]
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


def synchronised(step: Callable[[int], Any]) -> Callable[[int], None]:
    """Waits for the GPU, where there is one."""

    def run(number: int) -> None:
        step(number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


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
    device = torch.device("cuda" if options.cuda else "cpu")
    rows: List[Dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rtda-discriminators-") as work, memory_kept(device):  # as Trainer.run does
        stages = {kind: stage_of(kind, options, Path(work) / kind) for kind in _PAPER_HOURS}
        whole = {kind: stage.step for kind, stage in stages.items()}
        for what, steps in (("step", whole), ("alone", {kind: alone(stage) for kind, stage in stages.items()})):
            ways = {kind: timed(synchronised(step), clock) for kind, step in steps.items()}
            times = in_turns(ways, options.rounds)
            for kind, own in times.items():
                paper = _PAPER_HOURS[kind] / _PAPER_HOURS["fcd"] if what == "step" else None
                row = {"what": what, "discriminator": kind, "paper_of_fcd": paper}
                rows.append({**row, **times_as_long(own, times["fcd"])})
    machine = f"{options.precision}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    machine += f", {options.clock} clock, {platform.machine()}"
    if options.json:
        print(json.dumps({"size": options.size, "rounds": options.rounds, "machine": machine, "rows": rows}))
        return
    columns = {"": "{what}", "discriminator": "{discriminator}", ">ms": "{ms:ms}", ">of FCD": "{row:x3}"}
    print(wide(table({**columns, ">RTDA's table": "{paper_of_fcd:.3f}"}, rows)))
    print(f"{options.size}, batch {_BATCH}, median of {options.rounds} interleaved rounds · {machine}")


if __name__ == "__main__":
    main()
