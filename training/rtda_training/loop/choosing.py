"""Networks of a training, ranked on footage without labels: checkpoints, and ones made of them when they are looked at.

:mod:`rtda_training.judge` compares what candidates answer; here they are opened, one at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rtda_deploy.errors import CheckpointError, DataError, EngineError
from rtda_deploy.spec import ModelSpec
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.data.batches import normalise
from rtda_training.data.config import InputConfig
from rtda_training.data.derived import LastPictures
from rtda_training.data.readers.kinds import DATA_KINDS
from rtda_training.judge.answers import Candidate, Dropped, not_finite
from rtda_training.judge.norms import norm_distance, norms_kept
from rtda_training.judge.ranking import FirstUnusableError, Ranking, Tell, rank
from rtda_training.readers import LabelledSet, Progress, UnlabelledSet, open_unlabelled

__all__ = [
    "LEAST_HELD_BACK",
    "Contender",
    "Footage",
    "candidate_of",
    "contract_of",
    "from_file",
    "held_back",
    "in_memory",
    "rank_contenders",
]

LEAST_HELD_BACK = 100  # pictures; with fewer, networks are ranked on all
_HELD_BACK = 5  # the last one of so many parts


class Contender(NamedTuple):
    """A network that may be chosen.

    Attributes:
        name: What to call it.
        open: Gives its checkpoint, whenever it is looked at; a ``CheckpointError`` drops it.
    """

    name: str
    open: Callable[[], Checkpoint]


class Footage(NamedTuple):
    """What networks are ranked on.

    Attributes:
        pictures: The pictures.
        what: Which of the target's they are, for people.
    """

    pictures: UnlabelledSet
    what: str


def from_file(name: str, path: Path) -> Contender:
    """A checkpoint on disk; its training state is left behind."""
    return Contender(name, lambda: dataclasses.replace(read_checkpoint(path), training={}))


def in_memory(name: str, network: nn.Module, spec: ModelSpec) -> Contender:
    """A network with its weights as they are when it is looked at."""

    def checkpoint() -> Checkpoint:
        return Checkpoint(spec, {key: value.detach().cpu().clone() for key, value in network.state_dict().items()})

    return Contender(name, checkpoint)


def held_back(target: UnlabelledSet, *, progress: Progress | None = None) -> Footage:
    """The part of a target that networks are ranked on: of footage its own val split, else its last fifth.

    The val split of footage was chosen apart from the frames that are trained on. The last fifth of other sets is
    trained on, without labels, as the rest is. Where the part has fewer than ``LEAST_HELD_BACK`` pictures, it is all.

    Args:
        target: The domain that is adapted to.
        progress: Called with (done, total) where footage is prepared.

    Raises:
        RtdaError: As :func:`open_unlabelled`, where footage cannot be read any more.
    """
    address = target.address
    if address.kind in DATA_KINDS and not DATA_KINDS[address.kind].labelled and address.split in (None, "train"):
        return _held_back_footage(address, target, progress)
    count = len(target) // _HELD_BACK
    if count < LEAST_HELD_BACK:
        return Footage(target, f"all {len(target)} pictures of the target, because {_few(count)}")
    part = UnlabelledSet(LastPictures(target, count), address)
    return Footage(part, f"the last {count} pictures of the target")


def _held_back_footage(address: DataAddress, trained_on: UnlabelledSet, progress: Progress | None) -> Footage:
    count = 0
    with contextlib.suppress(DataError):  # footage so short that nothing of it is held back
        apart = open_unlabelled(str(dataclasses.replace(address, split="val")), progress=progress)
        count = len(apart)
        if count >= LEAST_HELD_BACK:
            return Footage(apart, f"{count} frames held back from the footage")
    every = open_unlabelled(str(dataclasses.replace(address, split="all")), progress=progress) if count else trained_on
    return Footage(every, f"all {len(every)} frames, because {_few(count)}")


def _few(count: int) -> str:
    return f"{count} held back would be fewer than {LEAST_HELD_BACK}"


def rank_contenders(
    contenders: Sequence[Contender],
    footage: UnlabelledSet,
    device: torch.device,
    *,
    labelled: LabelledSet | None = None,
    max_frames: int = 100,
    tell: Tell | None = None,
) -> Ranking:
    """Order networks for footage without labels; the first one is what the others are compared with.

    Pictures are stretched to a network's input, as in training. What cannot be opened, or answers NaN, is dropped and
    named; where that is the first, the next takes its place.

    Args:
        contenders: Opened one after the other.
        footage: Frames without labels.
        device: Where they are run.
        labelled: A few labelled frames; with them their mIoU decides.
        max_frames: Of the footage, spread evenly; 0: all.
        tell: Told of progress.

    Raises:
        DataError: If the footage is too short or cannot be read, or none of the contenders can be judged.
        ConfigError: If they have different classes, or share a name.
    """
    dropped: list[Dropped] = []
    waiting = list(contenders)
    while waiting:
        try:
            first = candidate_of(waiting[0], device)
            opened = _opened(first, waiting[1:], device)
            found = rank(opened, footage, labelled=labelled, max_frames=max_frames, tell=tell)
        except CheckpointError as err:
            dropped.append(Dropped(waiting.pop(0).name, err.message))
        except FirstUnusableError as err:
            dropped.append(err.dropped)
            waiting.pop(0)
        else:
            return dataclasses.replace(found, dropped=(*dropped, *found.dropped))
    told = "; ".join(f"{found.name}: {found.why}" for found in dropped) or "there is none"
    raise DataError(f"no network can be judged: {told}", hint="train again, with a lower rate")


def _opened(first: Candidate, others: Sequence[Contender], device: torch.device) -> Iterator[Candidate]:
    yield first
    for contender in others:
        try:
            yield candidate_of(contender, device)
        except CheckpointError as err:
            yield _unusable(contender.name, first.class_names, err)


def contract_of(spec: ModelSpec) -> InputConfig:
    """How pixels become a network's input."""
    return InputConfig(spec.channel_order, spec.pixel_scale, spec.mean, spec.std, spec.interpolation)


def candidate_of(contender: Contender, device: torch.device) -> Candidate:
    """A network as something that is judged or labels: frames are stretched to its own input.

    Raises:
        CheckpointError: If it cannot be opened.
    """
    checkpoint = contender.open()
    spec, contract = checkpoint.spec, contract_of(checkpoint.spec)
    network = model_from_checkpoint(checkpoint).deploy_view().to(device)

    def prepared(frame: np.ndarray) -> Tensor:
        picture = normalise(torch.from_numpy(np.ascontiguousarray(frame)).to(device)[None], contract)
        if tuple(picture.shape[2:]) != spec.size_hw:
            picture = nn.functional.interpolate(picture, size=spec.size_hw, mode="bilinear", align_corners=False)
        return picture

    @torch.inference_mode()
    def answer(frame: np.ndarray) -> np.ndarray:
        return np.asarray(network(prepared(frame))[0].float().cpu().numpy())

    @torch.inference_mode()
    def mask(frame: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        coarse = network(prepared(frame)).float()
        if not bool(torch.isfinite(coarse).all()):
            raise not_finite(contender.name)
        full = nn.functional.interpolate(coarse, size=size_hw, mode="bilinear", align_corners=False)
        return np.asarray(full.argmax(dim=1)[0].to(torch.uint8).cpu().numpy())

    def distance(frames: Iterable[np.ndarray]) -> float:
        return norm_distance(network, lambda frame: prepared(frame).cpu().numpy(), frames)

    return Candidate(contender.name, tuple(spec.class_names), answer, mask, distance, norms_kept(spec.provenance))


def _unusable(name: str, class_names: tuple[str, ...], error: CheckpointError) -> Candidate:
    """A candidate that is dropped when it is asked, with the reason."""

    def answer(frame: np.ndarray) -> np.ndarray:
        raise EngineError(error.message, hint=error.hint)

    return Candidate(name, class_names, answer)
