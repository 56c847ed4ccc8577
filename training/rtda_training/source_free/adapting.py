"""A network and footage without labels: candidates are made of them, ranked on footage, and the best is given back.

First batch norms are mixed with the footage's statistics, which takes minutes. The mix that ranks first is what the
network then learns the footage from: its own surest labels, then an averaged teacher's. Every network on the way is a
candidate, and so is the one that was given: where none ranks surely before it, it is what comes back.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from rtda_deploy.card import card_from_json
from rtda_deploy.errors import TrainingError
from rtda_deploy.files import sha256_file
from rtda_training.ancestry import MIXED, descended
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.judge.answers import Dropped
from rtda_training.judge.own_masks import uncorrected
from rtda_training.labels import ClassList
from rtda_training.loop.choosing import Contender, from_file, held_back, rank_contenders
from rtda_training.loop.events import StopRequest, Tell, TrainEvent
from rtda_training.loop.familiar import give_footage
from rtda_training.loop.hardware import build_fabric
from rtda_training.loop.norm_candidates import other_norms
from rtda_training.loop.run_ranking import Contenders, rank_run, write_chosen
from rtda_training.loop.saving import save_verify_pictures, stage_file
from rtda_training.plan import PlanConfig
from rtda_training.readers import LabelledSet, UnlabelledSet, open_labelled, open_unlabelled
from rtda_training.run import train_plan
from rtda_training.run_folder import is_run, saved_plan
from rtda_training.source_free.footage_look import doubts, refuse_few_scenes
from rtda_training.source_free.pace import seconds_per_step, steps_in
from rtda_training.source_free.request import AdaptRequest, adapt_plan
from rtda_training.stages.base import norm_batches

__all__ = ["GIVEN", "AdaptResult", "adapt_in"]

GIVEN = "given"
_START = "norms"  # what the training starts from: stage-norms.pth
_UNTRAINED = (
    "nothing is trained, batch norms are mixed alone: without labels nothing tells whether a training helped "
    "(--check DATA, five to ten labelled frames, or --steps trains)"
)
_UNSHIFTED = (
    "no shifted batch norms among the candidates: the model does not say what entered its own on its source (train "
    "writes that where it keeps them; what adapt made, and earlier versions, lack it)"
)


@dataclass(frozen=True)
class AdaptResult:
    """What an adaptation came to.

    Attributes:
        folder: The run's.
        best: ``best.pth``: the network that was chosen, be it the one that was given.
        ranking: What ``ranking.json`` holds: entries best first, the verdict, what was dropped.
        seconds: What this call took; a resumed run's earlier time is not in it.
    """

    folder: Path
    best: Path
    ranking: dict[str, Any]
    seconds: float

    @property
    def chosen(self) -> str:
        """Name of the candidate that was chosen."""
        return str(self.ranking["chosen"])

    @property
    def better(self) -> bool:
        """Whether it is another than the one that was given."""
        return self.chosen != GIVEN

    @property
    def verdict(self) -> str:
        """One sentence."""
        text = str(self.ranking["verdict"])
        return text if self.better else f"best.pth is the model that was given: {text}"


def adapt_in(
    request: AdaptRequest, folder: Path, *, on_event: Tell | None = None, stop: StopRequest | None = None
) -> AdaptResult:
    """Adapt a network in a folder that the caller holds; what a broken-off run left there is gone on with.

    Args:
        request: What is asked; recorded in the folder already.
        folder: The run's.
        on_event: Told of progress.
        stop: Asked to end the training early.

    Raises:
        DataError: If the footage shows too few scenes, cannot be read, or has no class of ``check``.
        CheckpointError: If the model is none.
        TrainingStopped: If ``stop`` was asked; the same call goes on.
    """
    return _Adaptation(request, folder, on_event or (lambda event: None), stop).run()


class _Adaptation:
    """One adaptation; its methods are its steps, in their order."""

    def __init__(self, request: AdaptRequest, folder: Path, tell: Tell, stop: StopRequest | None) -> None:
        self._request, self._folder, self._tell, self._stop = request, folder, tell, stop
        self._given = read_checkpoint(request.model)
        network = model_from_checkpoint(self._given)  # broken numbers are refused here, before anything is made
        self._plan = adapt_plan(request, self._given.spec, Path(request.model))
        self._fabric = build_fabric(self._plan.device, self._plan.precision)
        self._network = network
        self._dropped: list[Dropped] = []

    def run(self) -> AdaptResult:
        started = time.monotonic()
        self._look()
        start = self._norms()
        if self._request.trains:
            self._train(start)
        ranking = self._choose()
        return AdaptResult(self._folder, self._folder / "best.pth", ranking, time.monotonic() - started)

    def _look(self) -> None:
        """Open what is read, and refuse what cannot be adapted to."""
        request = self._request
        prepare = partial(self._progress, "prepare")
        self._target: UnlabelledSet = open_unlabelled(request.footage, progress=partial(prepare, request.footage))
        for text in self._target.notes:
            self._tell(TrainEvent("note", text))
        self._labelled: LabelledSet | None = None
        if request.check:
            classes = ClassList(self._given.spec.class_names, self._given.spec.palette)
            asked = partial(prepare, request.check)
            self._labelled = open_labelled(request.check, split="val", classes=classes, progress=asked)
            for text in uncorrected(self._labelled):  # told again with the ranking; before a training it saves time
                self._tell(TrainEvent("warning", text))
        refuse_few_scenes(self._target, partial(prepare, f"{request.footage} (scenes)"))
        self._footage = held_back(self._target, progress=partial(prepare, request.footage))
        save_verify_pictures(self._folder, self._target)
        judge = f"labels of {request.check}" if request.check else f"{self._footage.what}, without labels"
        self._tell(TrainEvent("note", f"judged on {judge}"))
        if self._labelled is not None and not self._given.norm_inputs:
            self._tell(TrainEvent("note", _UNSHIFTED))
        if not request.trains and not request.norms_only:
            self._tell(TrainEvent("note", _UNTRAINED))

    def _norms(self) -> Path:
        """Choose the batch norms to start from; gives the checkpoint."""
        path = stage_file(self._folder, _START)
        if not self._request.trains:
            return path
        if not path.is_file():
            networks = [self._original(), *self._mixes()]
            pictures, frames = self._footage.pictures, self._request.max_frames
            tell = partial(self._progress, "ranking")
            labelled, device = self._labelled, self._fabric.device
            found = rank_contenders(networks, pictures, device, labelled=labelled, max_frames=frames, tell=tell)
            best = found.entries[0]
            name = GIVEN if best.warnings and labelled is None else best.name
            self._warn({entry.name: entry.scores for entry in found.entries})
            self._tell(TrainEvent("note", f"batch norms to start from: {name}"))
            contender = next(one for one in networks if one.name == name)
            write_checkpoint(path, dataclasses.replace(contender.open(), card="", norm_inputs={}))
        return path

    def _warn(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Say what of the footage and the model makes labels doubtful; ``scores``: of each candidate."""
        sure = scores[GIVEN]["confidence"] if GIVEN in scores else None
        for text in doubts(card_from_json(self._given.card), sure) if sure is not None else ():
            self._tell(TrainEvent("warning", text))

    def _train(self, start: Path) -> None:
        """Both stages; a training that diverges is no end: what it made before is ranked."""
        try:
            train_plan(
                self._training_plan(start),
                self._folder,
                resume=True,
                report=False,
                on_event=self._tell,
                stop=self._stop,
            )
        except TrainingError as err:
            self._dropped.append(Dropped("what its training ended with", err.message))
            self._tell(TrainEvent("warning", f"the training ended early: {err.message}"))

    def _training_plan(self, start: Path) -> PlanConfig:
        if is_run(self._folder):
            return saved_plan(self._folder)
        request, steps = self._request, self._request.steps
        if request.minutes:
            network = copy.deepcopy(self._network).to(self._fabric.device)
            each_s = seconds_per_step(network, self._plan.size_hw, self._plan.batch_size, self._fabric)
            steps = steps_in(request.minutes, each_s)
            text = f"{steps} steps in about {request.minutes:g} minutes, at {each_s:.2g} s each as measured"
            self._tell(TrainEvent("note", text))
        return adapt_plan(request, self._given.spec, start, steps)

    def _choose(self) -> dict[str, Any]:
        """Rank every network; write ``ranking.json`` and ``best.pth``."""
        contenders = Contenders((self._original(), *self._mixes(), *self._trained()), source_only=True)
        values = rank_run(
            contenders,
            self._footage,
            self._folder,
            self._fabric.device,
            partial(self._progress, "ranking"),
            labelled=self._labelled,
            max_frames=self._request.max_frames,
            dropped=self._dropped,
        )
        write_chosen(contenders, values, self._folder)
        give_footage(self._folder / "best.pth", self._target, self._plan.size_hw, self._plan.input)
        if not self._request.trains:
            self._warn({entry["name"]: entry["scores"] for entry in values["entries"]})
        return values

    def _progress(self, kind: str, name: str, done: int, total: int) -> None:
        self._tell(TrainEvent(kind, name, done, total))

    def _original(self) -> Contender:
        return from_file(GIVEN, Path(self._request.model))

    def _mixes(self) -> list[Contender]:
        """The given network with other batch norms; shifted ones where labels can tell whether they fit."""
        told = self._labelled is not None and self._given.norm_inputs
        source = (lambda given: given.norm_inputs) if told else None
        return other_norms(self._begun, self._batches, self._fabric.device, source)

    def _begun(self) -> Checkpoint:
        """The given network as the parent of what its batch norms become."""
        given = self._given
        provenance, sha256 = given.spec.provenance, sha256_file(self._request.model)
        footage = str(self._target.address)
        ancestry = descended(MIXED, provenance, parent_sha256=sha256, card=given.card, footage=footage)
        return dataclasses.replace(given, spec=given.spec.replace(provenance={**provenance, "ancestry": ancestry}))

    def _batches(self) -> Iterator[Tensor]:
        contract = self._plan.input
        return norm_batches(self._target, self._plan, lambda frames: normalise(frames, contract), self._fabric.device)

    def _trained(self) -> list[Contender]:
        """Networks that the training left, and the averaged teachers among its parts."""
        if not self._request.trains or not (self._folder / "last.pth").is_file():
            return []
        last = read_checkpoint(self._folder / "last.pth")
        names = [stage.name for stage in saved_plan(self._folder).stages]
        found = [from_file(name, stage_file(self._folder, name)) for name in names[:-1]]
        found = [one for one in found if stage_file(self._folder, one.name).is_file()]
        if last.training.get("done") and last.training.get("stage_index") == len(names) - 1:
            found.append(from_file(names[-1], self._folder / "last.pth"))
            teacher = last.training["run"]["parts"].get("ema", {}).get("teacher")
            if teacher is not None:
                averaged = dataclasses.replace(last, weights=teacher, training={}, card="", norm_inputs={})
                found.append(Contender(f"{names[-1]}, averaged", lambda: averaged))
        return found
