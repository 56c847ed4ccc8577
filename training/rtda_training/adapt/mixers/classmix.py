"""ClassMix: half of a source picture's classes, cut out and put onto a target picture."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rtda_training.adapt.components import Mixer
from rtda_training.adapt.context import MixedBatch, StageContext, StepContext
from rtda_training.adapt.mixers.appearance import AppearanceConfig, changed
from rtda_training.adapt.mixers.rectangle import rectangle
from rtda_training.adapt.slots import component, number
from rtda_training.labels import IGNORE_INDEX

__all__ = ["ClassMix", "ClassMixConfig", "Front", "PastedConfig", "classes_drawn", "pasted"]


@dataclasses.dataclass(frozen=True)
class PastedConfig(AppearanceConfig):
    """How mixed pictures are changed.

    Attributes:
        cutout: Share of each mixed picture that a rectangle hides; its labels stay, so that they must be told from
            what is around it. 0: nothing.
    """

    cutout: float = number(0.0, 0.0, 0.9)


@dataclasses.dataclass(frozen=True)
class ClassMixConfig(PastedConfig):
    """How mixed pictures are changed, and which classes are pasted.

    Attributes:
        rare: Of the classes in a picture each is drawn with a chance that goes with ``frequency ** -rare`` of it in the
            labelled set; 0: all alike, as in the papers.
    """

    rare: float = number(0.0, 0.0, 2.0)


@component("mixer", "classmix", ClassMixConfig)
class ClassMix(Mixer):
    """Source pixels of ``ceil(n / 2)`` of the ``n`` classes in each source picture, on the target picture beside it.

    The classes are drawn from the picture's own label, 255 left out.

    Source: Olsson et al., ClassMix (WACV 2021); Tranheden et al., DACS (WACV 2021), section 3. The preference for rare
    classes is ours.
    """

    def __init__(self, config: ClassMixConfig, stage: StageContext) -> None:
        self._config = config
        self._chances = _chances(stage, config.rare) if config.rare else None

    @torch.no_grad()
    def mix(self, context: StepContext) -> MixedBatch:
        generators = [context.rng("classmix", place) for place in range(context.label.shape[0])]
        mask = classes_drawn(context.label, generators, self._chances)
        return pasted(context, mask, self._config, generators)


def _chances(stage: StageContext, power: float) -> np.ndarray:
    """float64 (256,): by how much each class is drawn more than others."""
    from rtda_training.data.index import index_of

    assert stage.source is not None
    frequencies = np.asarray(index_of(stage.source).frequencies, dtype=np.float64)
    table = np.ones(IGNORE_INDEX + 1)
    table[: len(frequencies)] = np.maximum(frequencies, 1e-6) ** -power
    return table


class Front(NamedTuple):
    """What is pasted.

    Attributes:
        frames: float32 (N, H, W, 3) BGR 0..255.
        label: int64 (N, H, W), 255 where not labelled.
        weight: float32 (N, H, W), how much each pixel counts; None: 1 everywhere.
        soft: float32 (N, C, H, W), the probability of each class; None: ``label`` is true.
    """

    frames: Tensor
    label: Tensor
    weight: Tensor | None = None
    soft: Tensor | None = None


def pasted(
    context: StepContext,
    mask: Tensor,
    config: PastedConfig,
    generators: list[np.random.Generator],
    front: Front | None = None,
) -> MixedBatch:
    """Pixels and labels of ``front`` where ``mask`` (bool (N, H, W)) says so, the target's and its labeler's elsewhere.

    Without ``front`` the source batch is pasted, whose pixels weigh 1. Colours and sharpness of the result change, and
    a part is hidden, as ``config`` says.

    Source of the hidden part: DeVries and Taylor, Cutout (arXiv 1708.04552).
    """
    pseudo, front = context.pseudo_labels(), front or Front(context.source_frames, context.label)
    assert context.target_frames is not None
    frames = torch.where(mask[..., None], front.frames, context.target_frames)
    label = torch.where(mask, front.label, pseudo.label)
    weight = None
    if pseudo.weight is not None:
        own = torch.ones_like(pseudo.weight) if front.weight is None else front.weight
        weight = torch.where(mask, own, pseudo.weight)
    pictures = context.normalise(changed(frames, config, generators))
    soft = None
    if pseudo.soft is not None:
        own = _certain(front.label, pseudo.soft) if front.soft is None else front.soft
        soft = torch.where(mask[:, None], own, pseudo.soft)
    return MixedBatch(_hidden(pictures, config.cutout, generators), label, weight, soft)


def _certain(label: Tensor, soft: Tensor) -> Tensor:
    """Like ``soft`` (N, C, H, W): 1 for the class that ``label`` (N, H, W) says; all 0 where it is 255."""
    classes = torch.arange(soft.shape[1], device=soft.device)[None, :, None, None]
    return (label[:, None] == classes).to(soft.dtype)


def _hidden(pictures: Tensor, area: float, generators: list[np.random.Generator]) -> Tensor:
    """A rectangle of each normalised picture (N, 3, H, W) as 0, the mean colour."""
    if area > 0.0:
        for place, rng in enumerate(generators):
            top, bottom, left, right = rectangle(rng, area, pictures.shape[2], pictures.shape[3])
            pictures[place, :, top:bottom, left:right] = 0.0
    return pictures


def classes_drawn(label: Tensor, generators: list[np.random.Generator], chances: np.ndarray | None = None) -> Tensor:
    """bool (N, H, W): the pixels of half of each picture's own classes, ``ceil(n / 2)`` of ``n``, drawn anew.

    Args:
        label: int64 (N, H, W), 255 where not labelled.
        generators: N of them.
        chances: float64 (256,), positive: how likely each class is drawn beside others; None: all alike.
    """
    chosen = torch.as_tensor(_chosen(label, generators, chances), device=label.device)
    picture = torch.arange(len(generators), device=label.device)[:, None, None]
    return chosen[picture, label]


def _chosen(label: Tensor, generators: list[np.random.Generator], chances: np.ndarray | None) -> np.ndarray:
    """bool (N, 256): whether pixels of a class are pasted."""
    count = label.shape[0]
    number = 256 * torch.arange(count, device=label.device)[:, None] + label.reshape(count, -1)
    pixels = torch.bincount(number.reshape(-1), minlength=256 * count).reshape(count, 256).cpu().numpy()
    table = np.zeros((count, 256), dtype=bool)
    for place, rng in enumerate(generators):
        present = np.flatnonzero(pixels[place, :IGNORE_INDEX])
        count = (len(present) + 1) // 2
        if chances is None:
            table[place, rng.permutation(present)[:count]] = True
        elif count:
            shares = chances[present] / chances[present].sum()
            table[place, rng.choice(present, count, replace=False, p=shares)] = True
    return table
