"""The end of a run that adapts: the networks that it made are ranked on its target, and ``best.pth`` is the first.

A run without target labels has nothing else to choose by: its validation looks at the source. ``ranking.json`` holds
what :meth:`Ranking.to_dict` gives, and what was looked at; a run that has it does not rank again.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rtda_deploy.errors import CheckpointError, RtdaError
from rtda_deploy.files import write_text
from rtda_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from rtda_training.judge.answers import Dropped
from rtda_training.judge.ranking import Tell
from rtda_training.loop.choosing import Contender, Footage, from_file, rank_contenders
from rtda_training.loop.norm_candidates import MIXES, Batches, other_norms
from rtda_training.loop.saving import CANDIDATES, candidate_file, stage_file
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.readers import LabelledSet
from rtda_training.run_folder import RANKING, read_record
from rtda_training.stages.norm_shift import NormInputs

__all__ = ["Contenders", "contenders_of", "rank_run", "read_ranking", "write_chosen"]

_FRAMES = 100  # of the footage
_FRAMES_BESIDE_LABELS = 24  # where labels choose, and figures without labels are for people alone
_LAST, _START, _SOURCE_ONLY, _BEST = "last", "start", "source-only", "best on val"


class Contenders(NamedTuple):
    """The networks of a run, the one that the others are compared with first.

    Attributes:
        networks: All of them.
        source_only: Whether the first saw no target picture: the last of the first stages that learned from the source
            alone, else what the run started from. If not, it is the network that the first stage left.
    """

    networks: tuple[Contender, ...]
    source_only: bool

    def behind_the_last(self) -> Contenders:
        """The same, compared with the network that the training ended with: what is taken where labels tell nothing."""
        last = [one for one in self.networks if one.name == _LAST]
        return Contenders((*last, *(one for one in self.networks if one.name != _LAST)), self.source_only and not last)


def contenders_of(
    plan: PlanConfig,
    folder: Path,
    batches: Batches = tuple,
    device: torch.device | None = None,
    *,
    labels: bool = False,
    source: Callable[[Checkpoint], NormInputs] | None = None,
) -> Contenders:
    """The networks that a finished run made, of those files that are there.

    Args:
        plan: What was done.
        folder: The run's.
        batches: Gives those of target pictures, for other batch norms.
        device: Where they are measured.
        labels: Whether labels will tell which is best: then earlier stages' networks come with other batch norms too.
        source: What enters a network's batch norms on source pictures; with labels shifted ones are made of it.
    """
    found: dict[str, Contender] = {}
    reference = ""
    if plan.init:
        reference = _START
        found[_START] = from_file(_START, Path(plan.init))
    leading = True
    for stage in plan.stages:
        if stage.kind != "segmentation":
            continue
        files = _files_of(stage, folder, last=stage is plan.stages[-1])
        if leading and not (stage.trains_on_target or stage.trains_on_target_labels):
            kept = CANDIDATES["unmixed"].format(stage.name)
            if kept in files:
                files = {_SOURCE_ONLY if name == kept else name: path for name, path in files.items()}
                reference, leading = _SOURCE_ONLY, False
            elif _stage_name(stage) in files and stage is not plan.stages[-1]:
                reference = _stage_name(stage)
        else:
            leading = False
        found.update((name, from_file(name, path)) for name, path in files.items())
    if _is_between(plan, folder / "best.pth"):
        found[_BEST] = from_file(_BEST, folder / "best.pth")
    moved = _Moved(batches, device or torch.device("cpu"), source)
    mixes = _of_the_last(plan.stages[-1], folder, moved)
    if labels:
        mixes += _of_earlier(plan, folder, moved)
    first = reference or next(iter(found))  # the network of the first stage, which may have seen the target's colours
    others = [contender for name, contender in found.items() if name != first]
    return Contenders((found[first], *others, *mixes), bool(reference))


def _is_between(plan: PlanConfig, path: Path) -> bool:
    """Whether a file is the best on val, before anything was ranked, and no stage ended with it."""
    if not path.is_file():
        return False
    try:
        provenance = read_checkpoint(path).spec.provenance
        at = provenance.get("metrics", {}).get("at")
    except (RtdaError, AttributeError):
        return False
    return "chosen" not in provenance and at not in {f"{stage.name} @{stage.steps}" for stage in plan.stages}


def _stage_name(stage: StageConfig) -> str:
    return stage.name if stage.name == _SOURCE_ONLY else f"stage {stage.name}"


def _files_of(stage: StageConfig, folder: Path, *, last: bool) -> dict[str, Path]:
    """By what to call them: what a stage kept and the network that it left, where they are there."""
    files = {_LAST if last else _stage_name(stage): folder / "last.pth" if last else stage_file(folder, stage.name)}
    files.update(
        {text.format(stage.name): candidate_file(folder, stage.name, what) for what, text in CANDIDATES.items()}
    )
    return {name: path for name, path in files.items() if path.is_file()}


class _Moved(NamedTuple):
    """What other batch norms are made of, as :func:`other_norms` takes it."""

    batches: Batches
    device: torch.device
    source: Callable[[Checkpoint], NormInputs] | None

    def of(self, path: Path, shares: Sequence[float] = MIXES) -> list[Contender]:
        """A network with others."""
        return other_norms(from_file("", path).open, self.batches, self.device, self.source, shares=shares)


def _of_the_last(stage: StageConfig, folder: Path, moved: _Moved) -> list[Contender]:
    """The last network with other batch norms; not with those that it has."""
    base, own = folder / "last.pth", 0.0
    kept = candidate_file(folder, stage.name, "unmixed")
    if stage.bn_statistics != "running":
        if not kept.is_file():
            return []  # what it had before is gone
        base, own = kept, stage.bn_share if stage.bn_statistics == "mixed" else 1.0
    return moved.of(base, [share for share in MIXES if share != own])


def _of_earlier(plan: PlanConfig, folder: Path, moved: _Moved) -> list[Contender]:
    """The networks that earlier stages left, with other batch norms."""
    found = []
    for stage in plan.stages[:-1]:
        path = stage_file(folder, stage.name)
        if stage.kind == "segmentation" and stage.bn_statistics == "running" and path.is_file():
            found += [one._replace(name=f"{_stage_name(stage)}, {one.name}") for one in moved.of(path)]
    return found


def read_ranking(folder: Path) -> dict[str, Any]:
    """What ``ranking.json`` of a run holds; nothing where it was not ranked."""
    return read_record(folder / RANKING, "remove it, and the run ranks again")


def rank_run(
    contenders: Contenders,
    footage: Footage,
    folder: Path,
    device: torch.device,
    tell: Tell | None = None,
    *,
    labelled: LabelledSet | None = None,
    max_frames: int | None = None,
    dropped: Sequence[Dropped] = (),
) -> dict[str, Any]:
    """Rank a run's networks and write ``ranking.json``; give what was written.

    A run that has a ``ranking.json`` is not ranked again.

    Args:
        contenders: The networks.
        footage: What they are ranked on.
        folder: The run's.
        device: Where they are run.
        tell: Told of progress.
        labelled: A few labelled frames; with them their mIoU decides.
        max_frames: Of the footage, 0: all; None: 100, with labels 24: what is measured there decides nothing then.
        dropped: What could not become a contender, and why.

    Raises:
        RtdaError: If they cannot be ranked; nothing is written then.
    """
    values = read_ranking(folder)
    if values:
        return values
    if max_frames is None:
        max_frames = _FRAMES if labelled is None else _FRAMES_BESIDE_LABELS
    started = time.monotonic()
    found = rank_contenders(
        contenders.networks, footage.pictures, device, labelled=labelled, max_frames=max_frames, tell=tell
    )
    found = dataclasses.replace(found, dropped=(*dropped, *found.dropped))
    values = {
        **found.to_dict(),
        "source_only": contenders.source_only and found.first == contenders.networks[0].name,
        "footage": str(footage.pictures.address),
        "which": footage.what,
        "labelled": "" if labelled is None else str(labelled.address),
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(values, indent=2)
    write_text(folder / RANKING, text + "\n")
    read: dict[str, Any] = json.loads(text)  # as a resumed run reads it
    return read


def write_chosen(contenders: Contenders, ranking: Mapping[str, Any], folder: Path) -> None:
    """Write the network that a ranking chose as ``best.pth``; nothing where it is that already.

    Args:
        contenders: The networks.
        ranking: What :func:`rank_run` gave.
        folder: The run's.

    Raises:
        CheckpointError: If the run does not have the chosen network any more.
        FileAccessError: If it cannot be written, such as on a full disk; the same call goes on.
    """
    if _is_chosen(folder / "best.pth", ranking["chosen"]):
        return
    chosen = next((one for one in contenders.networks if one.name == ranking["chosen"]), None)
    if chosen is None:
        raise CheckpointError(
            f"{folder / RANKING} chose {ranking['chosen']!r}, which this run does not have any more",
            hint=f"remove it, and the run ranks what is there: rm {shlex.quote(str(folder / RANKING))}",
        )
    write_checkpoint(folder / "best.pth", _with_provenance(chosen.open(), ranking))


def _is_chosen(path: Path, name: str) -> bool:
    if not path.is_file():
        return False
    try:
        return bool(read_checkpoint(path).spec.provenance.get("chosen", {}).get("name") == name)
    except (RtdaError, AttributeError):
        return False


def _with_provenance(checkpoint: Checkpoint, ranking: Mapping[str, Any]) -> Checkpoint:
    by_labels = ranking.get("by_labels", False)  # runs of earlier versions do not say it: their labels changed no place
    chosen = {
        "name": ranking["chosen"],
        "by": "rank, by labelled frames" if by_labels else "rank, without labels",
        "on": ranking["labelled"] if by_labels else f"{ranking['footage']}, {ranking['frames']} frames",
        "among": [entry["name"] for entry in ranking["entries"]],
        "verdict": ranking["verdict"],
    }
    spec = checkpoint.spec.replace(provenance={**checkpoint.spec.provenance, "chosen": chosen})
    return dataclasses.replace(checkpoint, spec=spec)
