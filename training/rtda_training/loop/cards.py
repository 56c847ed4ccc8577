"""Calibration cards of a run's checkpoints, measured when its training has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rtda_deploy.card import Card, FeatureStatistics
from rtda_deploy.errors import CheckpointError, ConfigError, DataError
from rtda_deploy.familiar import with_familiar
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.data.batches import normalise
from rtda_training.data.config import InputConfig
from rtda_training.data.first_look import shared_pictures
from rtda_training.judge.answers import softmax
from rtda_training.judge.calibration import confidence_bins, temperature_of
from rtda_training.labels import IGNORE_INDEX
from rtda_training.loop.familiar import measure_familiar
from rtda_training.loop.start import PlanSets
from rtda_training.loop.validate import evaluating, spread_places
from rtda_training.models import SegmentationNetwork
from rtda_training.plan import PlanConfig
from rtda_training.readers import LabelledSet, open_labelled

__all__ = ["add_cards", "card_pictures", "measure_card"]

_PICTURES = 100  # that a card is measured on, spread over the set
_CELLS = 500  # labelled cells of each that are kept, spread over it


def add_cards(plan: PlanConfig, folder: Path, sets: PlanSets, tell: Callable[[str], None]) -> None:
    """Give ``last.pth`` and ``best.pth`` of a finished run the card that they lack.

    What needs labels is left out where no label is there; blocks of what it saw are not.
    """
    labelled = None if sets.source is None else card_pictures(plan, sets)
    if labelled is None:
        tell("no calibration card: it is measured on labelled source pictures, and this plan has none")
    for name in ("last.pth", "best.pth"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            checkpoint = read_checkpoint(path)
            if checkpoint.card:
                continue
            network = model_from_checkpoint(checkpoint)
        except CheckpointError as err:  # it diverged; the run is finished all the same
            tell(f"no calibration card: {err.message}")
            continue
        text = _labelled_card(network, plan, *labelled, tell) if labelled is not None else ""
        robot = sets.target is not None
        familiar = measure_familiar(network, sets.camera, plan.size_hw, plan.input, robot=robot)
        text = text if familiar is None else with_familiar(text, familiar)
        if text:
            write_checkpoint(path, dataclasses.replace(checkpoint, card=text))


def _labelled_card(
    network: SegmentationNetwork, plan: PlanConfig, pictures: LabelledSet, held_out: bool, tell: Callable[[str], None]
) -> str:
    card = measure_card(network, pictures, plan.size_hw, plan.input, held_out=held_out)
    if card is None:
        tell(f"no calibration card: none of the pictures of {pictures.address} has a labelled pixel")
        return ""
    return card.to_json()


def card_pictures(plan: PlanConfig, sets: PlanSets) -> tuple[LabelledSet, bool]:
    """Labelled pictures of the domain whose labels the plan learned from, and whether they are held out.

    The plan has a source.

    That is its val split. Where the user's own ``--val`` stands in its place, or a list of pictures, the split is
    looked for; where there is none, the pictures of the training themselves have to do.
    """
    learned = plan.target if plan.stages[-1].labelled == "target" else plan.source
    trained = sets.target_with_labels() if learned == plan.target and learned != plan.source else sets.source
    found = sets.val
    assert trained is not None and found is not None
    if plan.val:
        address = DataAddress.parse(learned)
        if address.split is not None or "list" in address.options:
            return trained, False
        try:
            found = open_labelled(learned, split="val", classes=sets.classes)
        except (ConfigError, DataError):
            return trained, False
    return found, not shared_pictures([trained], found)


def measure_card(
    network: SegmentationNetwork,
    pictures: LabelledSet,
    size_hw: tuple[int, int],
    contract: InputConfig,
    *,
    held_out: bool,
    most: int = _PICTURES,
) -> Card | None:
    """Measure a network on labelled pictures; None where none of their pixels is labelled.

    Args:
        network: Left in the mode it was in.
        pictures: Of the network's classes.
        size_hw: Of the network's input.
        contract: How pixels become that input.
        held_out: Whether it was not trained on them.
        most: How many are looked at.
    """
    logits, labels, pooled = [], [], []
    places = spread_places(most, len(pictures))
    device = next(network.parameters()).device
    with evaluating(network):
        for index in places:
            frame, label = pictures.pair(index)
            image = normalise(torch.from_numpy(np.ascontiguousarray(frame)).to(device)[None], contract)
            if tuple(image.shape[2:]) != size_hw:
                image = torch.nn.functional.interpolate(image, size=size_hw, mode="bilinear", align_corners=False)
            output = network(image)
            pooled.append([stage.float().mean(dim=(2, 3))[0].cpu().numpy() for stage in output.features])
            cells, truth = _labelled_cells(output.coarse[0].float().cpu().numpy(), label)
            logits.append(cells)
            labels.append(truth)
    answers, truth = np.concatenate(logits), np.concatenate(labels)
    if not len(truth) or not np.isfinite(answers).all():
        return None
    sure = softmax(answers.T)
    confidence, accuracy = confidence_bins(sure.max(axis=0), sure.argmax(axis=0) == truth)
    classes = network.num_classes
    return Card(
        data=str(pictures.address),
        pictures=len(places),
        held_out=held_out,
        temperature=temperature_of(answers, truth),
        class_prior=tuple((np.bincount(truth, minlength=classes) / len(truth)).tolist()),
        predicted_prior=tuple((np.bincount(sure.argmax(axis=0), minlength=classes) / len(truth)).tolist()),
        confidence=confidence,
        accuracy=accuracy,
        features=tuple(_statistics(np.stack(stage)) for stage in zip(*pooled, strict=True)),
    )


def _labelled_cells(coarse: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (K, C) of cells that have a label at their centre, and the labels int64 (K,)."""
    rows, columns = (
        ((np.arange(cells) + 0.5) * side / cells).astype(int)
        for cells, side in zip(coarse.shape[1:], label.shape, strict=True)
    )
    truth = label[np.ix_(rows, columns)].ravel().astype(np.int64)
    chosen = np.flatnonzero(truth != IGNORE_INDEX)
    chosen = chosen[:: max(1, -(-len(chosen) // _CELLS))]
    return coarse.reshape(len(coarse), -1).T[chosen], truth[chosen]


def _statistics(pooled: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics(tuple(pooled.mean(axis=0).tolist()), tuple(pooled.var(axis=0).tolist()))
