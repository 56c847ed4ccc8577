"""How many pictures our training step takes a second, against the papers' own loop; docs/results/training.md.

    python benchmarks/train_throughput.py [--size 256x128] [--rounds 9] [--steps 2] [--threads 0] [--clock wall]
    python benchmarks/train_throughput.py --parts        what each part of our step costs
    python benchmarks/train_throughput.py --recipe recommended [--parts]     another recipe's last stage instead
    python benchmarks/train_throughput.py --loader       batches alone: PNG files, pixel cache, memory

RTDA with Light&Thin on BiSeNet-R18, or the network and last stage of ``--recipe``; batch 4 of each domain. All rows
learn from the same PNG files, which are written first: ToyTown in the sizes of GTA5 (1914x1052) and Cityscapes
(2048x1024). The papers' loop is written below after its description and published step order: every picture of a batch
decoded and scaled one after the other, float32, three backward passes of the network's losses and the discriminator's,
the head at full size. Ours is the step of ``rtda-deploy train``, with the same SGD where it is RTDA's. Each row is a
process of its own; every round runs each for ``--steps`` steps, in changing order; ratios are of rounds, their median
and middle half. ``--clock cpu`` counts processor time of all threads, for machines that do other work too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import multiprocessing
import platform
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Dict, List

import cv2
import numpy as np
import torch
from rounds import in_turns, middle
from tables import table as markdown_table
from tables import wide
from torch import Tensor
from torch.nn import functional

from rtda_deploy.sizes import parse_size
from rtda_training.adapt.slots import components
from rtda_training.data import toytown
from rtda_training.data.batches import StepBatches
from rtda_training.data.pixel_cache import cached
from rtda_training.loop.hardware import memory_kept
from rtda_training.models import BiSeNet, SegOutput, build_discriminator
from rtda_training.models.blocks import upsampled
from rtda_training.plan import PlanConfig, load_plan
from rtda_training.readers import LabelledSet, Pictures, UnlabelledSet, open_labelled, open_unlabelled
from rtda_training.stages.base import SOURCE_STREAM, TARGET_STREAM, step_batches
from rtda_training.stages.segmentation import SegmentationStage
from rtda_training.trainer import Trainer

_SIZES_HW = {"source": (1052, 1914), "target": (1024, 2048)}  # GTA5's and Cityscapes' pictures
_CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)  # BGR; what the published code subtracts
_BASE = "papers' loop, fp32"
_RECIPE = "rtda-light-thin"
_BATCH = 4
_RATE, _ADVERSARY_RATE, _WEIGHT = 2.5e-4, 1e-4, 0.001


class PapersNetwork(BiSeNet):
    """BiSeNet in the order of operations that was published: the head works at full size."""

    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        features = self.backbone(image)
        context, maps = self.context_path(features)
        fused = self.fusion(self.spatial_path(image), context)
        logits = self.head(upsampled(fused, 8))
        others = tuple(
            functional.interpolate(head(x), size=image.shape[2:], mode="bilinear")
            for head, x in zip(self.aux_heads, maps, strict=True)
        )
        return SegOutput(logits, fused, others, features)


class PapersLoop:
    """The published training loop: RTDA's text and step order (AdaptSegNet's), float32 throughout."""

    def __init__(self, data: Path, size_hw: tuple[int, int]) -> None:
        torch.manual_seed(0)
        self._files = {name: sorted((data / name / "images").glob("*.png")) for name in _SIZES_HW}
        self._size_wh = (size_hw[1], size_hw[0])
        self._table = np.arange(256, dtype=np.uint8)  # ids to classes; the files hold classes already
        self._network = PapersNetwork("resnet18", "rtda", 19).train()
        self._discriminator = build_discriminator("light-thin", 19).train()
        self._optimizer = torch.optim.SGD(self._network.parameters(), lr=_RATE, momentum=0.9, weight_decay=5e-4)
        self._adversary = torch.optim.Adam(self._discriminator.parameters(), lr=_ADVERSARY_RATE, betas=(0.9, 0.99))

    def step(self, number: int) -> None:
        self._optimizer.zero_grad()
        self._adversary.zero_grad()
        self._discriminator.requires_grad_(False)
        picture, label = self._batch("source", number)
        output = self._network(picture)
        losses = [functional.cross_entropy(x, label, ignore_index=255) for x in (output.logits, *output.aux)]
        torch.stack(losses).sum().backward()
        other = self._network(self._batch("target", number)[0])
        judged = self._discriminator(functional.softmax(other.logits, dim=1))
        (_WEIGHT * functional.binary_cross_entropy_with_logits(judged, torch.zeros_like(judged))).backward()
        self._discriminator.requires_grad_(True)
        for logits, domain in ((output.logits, 0.0), (other.logits, 1.0)):
            judged = self._discriminator(functional.softmax(logits.detach(), dim=1))
            (functional.binary_cross_entropy_with_logits(judged, torch.full_like(judged, domain)) / 2).backward()
        self._optimizer.step()
        self._adversary.step()

    def _batch(self, domain: str, number: int) -> tuple[Tensor, Tensor]:
        pictures, labels = [], []
        for place in range(_BATCH):
            path = self._files[domain][(number * _BATCH + place) % len(self._files[domain])]
            frame = cv2.resize(cv2.imread(str(path)), self._size_wh, interpolation=cv2.INTER_CUBIC)
            pixels = frame.astype(np.float32) - np.array(_CAFFE_MEAN, dtype=np.float32)
            pictures.append(pixels.transpose(2, 0, 1).copy())
            if domain == "source":
                mask = cv2.imread(str(path.parents[1] / "labels" / path.name), cv2.IMREAD_UNCHANGED)
                mask = cv2.resize(mask, self._size_wh, interpolation=cv2.INTER_NEAREST)
                labels.append(self._table[mask].astype(np.int64))
        label = torch.from_numpy(np.stack(labels)) if labels else torch.empty(0)
        return torch.from_numpy(np.stack(pictures)), label


class InMemory(Pictures):
    """A set decoded and scaled beforehand, as plain arrays."""

    def __init__(self, pictures: UnlabelledSet) -> None:
        self.classes = pictures.classes
        self._names = [pictures.name(index) for index in range(len(pictures))]
        self._frames = [pictures.frame(index) for index in range(len(pictures))]
        self._labels = [pictures.label(i) for i in range(len(pictures))] if isinstance(pictures, LabelledSet) else []

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def frame(self, index: int) -> np.ndarray:
        return self._frames[index]

    def label(self, index: int) -> np.ndarray:
        return self._labels[index]


def in_memory(pictures: UnlabelledSet) -> UnlabelledSet:
    """The same set, of the same kind, from arrays."""
    kind = LabelledSet if isinstance(pictures, LabelledSet) else UnlabelledSet
    return kind(InMemory(pictures), pictures.address)


def plan_of(data: Path, options: argparse.Namespace, precision: str, *, cache: bool) -> PlanConfig:
    settings = [f"size={options.size}", f"batch_size={_BATCH}", "device=cpu" if not options.cuda else "device=cuda"]
    settings += [f"precision={precision}", f"cache={str(cache).lower()}", f"workers={options.workers}"]
    if options.recipe == _RECIPE:  # as the papers' loop does
        settings += ["steps=1000000", "augment.flip=false", "optimizer.kind=sgd", f"optimizer.learning_rate={_RATE}"]
    source = f"folder:{data / 'source'}"
    return load_plan(options.recipe, settings, source=source, target=f"folder:{data / 'target'}", val=source)


def stage_of(plan: PlanConfig, folder: Path, *, memory: bool = False) -> SegmentationStage:
    """The stage as the trainer runs it, made ready; its steps are done here, so that rows can take turns."""
    trainer = Trainer(plan, folder)
    trainer._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = len(plan.stages) - 1
    setting = trainer._context(last)
    if memory:
        assert setting.target is not None
        setting = dataclasses.replace(setting, source=in_memory(setting.source), target=in_memory(setting.target))
    stage = components("kind")["segmentation"](None, setting, plan, plan.stages[last])  # type: ignore[call-arg, arg-type]
    assert isinstance(stage, SegmentationStage)
    stage.begin(0)
    return stage


def write_pictures(data: Path, count: int) -> None:
    """``count`` pictures of each domain as PNG files, labels for both."""
    for domain, size_hw in _SIZES_HW.items():
        for kind in ("images", "labels"):
            (data / domain / kind).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            if (data / domain / "labels" / f"{index:03d}.png").is_file():
                continue
            frame, label = toytown.render(domain, "train", index, size_hw)
            cv2.imwrite(str(data / domain / "images" / f"{index:03d}.png"), frame)
            cv2.imwrite(str(data / domain / "labels" / f"{index:03d}.png"), label)


class Row:
    """One row in a process of its own: what it does to the memory of its process is its own matter."""

    def __init__(self, name: str, data: Path, work: Path, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, data, work, options, theirs), daemon=True)
        self._process.start()

    def seconds(self, steps: int) -> float:
        """Do this many steps; gives the seconds of one."""
        self._pipe.send(steps)
        return float(self._pipe.recv()) / steps

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(60)


def _serve(name: str, data: Path, work: Path, options: argparse.Namespace, pipe: Connection) -> None:
    clock = _prepared(options)
    if name == _BASE:
        step, keeping = PapersLoop(data, parse_size(options.size)).step, False
    else:
        _, precision, fed = name.split(", ")
        plan = plan_of(data, options, precision, cache=fed != "PNG")
        step, keeping = stage_of(plan, work / name, memory=fed == "memory").step, True
    number = 0
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError):
        if keeping:  # as Trainer.run does
            stack.enter_context(memory_kept(torch.device("cuda" if options.cuda else "cpu")))
        while True:
            steps = pipe.recv()
            started = clock()
            for _ in range(steps):
                step(number)
                number += 1
            _synchronised()
            pipe.send(clock() - started)


def compared(seconds: Dict[str, List[float]], base: str, per_step: int) -> List[Dict[str, Any]]:
    """Pictures per second of each row, and how many times the base's that is."""
    found: List[Dict[str, Any]] = []
    for name, times in seconds.items():
        spent = statistics.median(times)
        row = {"row": name, "seconds": round(spent, 4), "pictures_per_s": round(per_step / spent, 2)}
        ratio = middle([b / t for b, t in zip(seconds[base], times, strict=True)])
        found.append({**row, **{key: round(value, 3) for key, value in ratio.items()}})
    return found


def steps(data: Path, work: Path, options: argparse.Namespace) -> List[Dict[str, Any]]:
    """Our step against the papers' loop; and, of our step, the pixel cache against memory."""
    precisions, feeds = options.precisions.split(","), options.feeds.split(",")
    names = [_BASE, *(f"ours, {precision}, {fed}" for precision in precisions for fed in feeds)]
    rows = {name: Row(name, data, work, options) for name in names}
    ways = {name: lambda number, row=row: row.seconds(options.steps) for name, row in rows.items()}
    seconds = in_turns(ways, options.rounds)
    for row in rows.values():
        row.close()
    table = compared(seconds, _BASE, 2 * _BATCH)
    for precision in precisions if {"cache", "memory"} <= set(feeds) else []:
        pair = {fed: seconds[f"ours, {precision}, {fed}"] for fed in ("memory", "cache")}
        table.append({**compared(pair, "memory", 2 * _BATCH)[1], "row": f"{precision}: cache / memory"})
    return table


def parts(data: Path, work: Path, options: argparse.Namespace) -> List[Dict[str, Any]]:
    """What each part of our step costs, fed from the pixel cache: median milliseconds, and share of the step."""
    table, clock = [], _prepared(options)
    for precision in options.precisions.split(","):
        stage = stage_of(plan_of(data, options, precision, cache=True), work / precision)
        spent: Dict[str, List[float]] = {}
        with memory_kept(torch.device("cuda" if options.cuda else "cpu")):
            for number in range(options.rounds * options.steps + 2):
                laps = _laps(stage, number, clock)
                for name, lap in laps.items() if number > 1 else ():
                    spent.setdefault(name, []).append(lap)
        whole = sum(statistics.median(times) for times in spent.values())
        for name, times in spent.items():
            middle = statistics.median(times)
            table.append(
                {"row": f"{precision}: {name}", "ms": round(1e3 * middle, 1), "share": round(middle / whole, 3)}
            )
    return table


def _laps(stage: SegmentationStage, number: int, clock: Callable[[], float]) -> Dict[str, float]:
    """``SegmentationStage.step`` in pieces."""
    laps: Dict[str, float] = {}
    last = clock()

    def lap(name: str) -> None:
        nonlocal last
        _synchronised()
        now = clock()
        laps[name] = laps.get(name, 0.0) + now - last
        last = now

    context = stage._context(number)
    lap("batches")
    stage._optimizer.zero_grad()
    context.source_output()
    lap("network, source")
    if stage._labeler is not None:
        context.pseudo_labels()
        lap("teacher, target")
    if stage._mixer is not None:
        context.mixed()
        lap("mixing")
        context.mixed_output()
        lap("network, mixed")
    else:
        context.target_output()
        lap("network, target")
    losses = []
    for objective in stage._objectives:
        losses.append(objective.network_loss(context))
        lap(f"loss {objective.key}")
    stage._stage.fabric.backward(torch.stack(losses).sum())
    lap("backward")
    stage._optimizer.step()
    lap("optimizer")
    for objective in stage._objectives:
        objective.play(context, 1.0)
    if stage._labeler is not None:
        stage._labeler.after_step(context)
    lap("discriminator, teacher's average")
    return laps


def loader(data: Path, work: Path, options: argparse.Namespace) -> List[Dict[str, Any]]:
    """Batches of both domains without any training."""
    clock, plan = _prepared(options), plan_of(data, options, "fp32", cache=False)
    source, target = open_labelled(plan.source), open_unlabelled(plan.target)
    small = [cached(pictures, plan.size_hw) for pictures in (source, target)]
    sets = {"PNG": [source, target], "cache": small, "memory": [in_memory(pictures) for pictures in small]}
    streams = (SOURCE_STREAM, TARGET_STREAM)
    rows: Dict[str, Callable[[int], float]] = {}
    for name, pair in sets.items():
        made = [step_batches(pictures, plan, 10**6, stream) for pictures, stream in zip(pair, streams, strict=True)]
        rows[name] = lambda number, made=made: _read(made, clock, options.steps)
    return compared(in_turns(rows, options.rounds), "PNG", 2 * _BATCH)


def _read(made: List[StepBatches], clock: Callable[[], float], steps: int) -> float:
    started = clock()
    for number in range(steps):
        for batches in made:
            batches[number]
    return (clock() - started) / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="256x128", help="network input (default: 256x128)")
    parser.add_argument("--recipe", default=_RECIPE, help=f"what our step is of (default: {_RECIPE})")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2, help="steps of each row in a round")
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--feeds", default="PNG,cache,memory", help="what our step is fed from; all take memory")
    parser.add_argument("--pictures", type=int, default=16, help="PNG files of each domain")
    parser.add_argument("--data", type=Path, help="where they are, or are written (default: a temporary folder)")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare our batches")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--cuda", action="store_true", help="ours on a GPU")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--loader", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtda-throughput-") as work:
        data = options.data or Path(work) / "data"
        write_pictures(data, options.pictures)
        measure = parts if options.parts else loader if options.loader else steps
        table = measure(data, Path(work), options)
    _prepared(options)
    machine = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.clock} clock, {_processor()}"
    if options.json:
        print(json.dumps({"size": options.size, "rounds": options.rounds, "machine": machine, "rows": table}))
    else:
        columns = {key: f"{{{key}}}" for key in dict.fromkeys(key for row in table for key in row)}
        print(wide(markdown_table(columns, [{**dict.fromkeys(columns, ""), **row} for row in table])))
        print(f"{options.size}, batch {_BATCH}, median of {options.rounds} interleaved rounds · {machine}")


def _prepared(options: argparse.Namespace) -> Callable[[], float]:
    """Set the threads of this process; gives the clock."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if options.threads:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    return time.perf_counter if options.clock == "wall" else time.process_time


def _synchronised() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
