"""Rare class sampling: pictures with classes that are seldom seen come more often."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Sampler
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.slots import component, number
from rtda_training.data.batches import Draw, PictureOrder
from rtda_training.readers import LabelledSet

__all__ = ["RareClassOrder", "RareClasses", "RareConfig", "class_probabilities"]


@dataclasses.dataclass(frozen=True)
class RareConfig:
    """How strongly rare classes are preferred.

    Attributes:
        temperature: T of ``P(c) = softmax((1 - f_c) / T)`` over the classes; small ones prefer the rarest.
        min_share: A picture counts as one of a class if more than this share of its labelled pixels is of it; 0.0015
            is DAFormer's 3000 pixels of GTA5's 1914x1052.
        crop_share: A crop should hold this part of ``min_share`` of its own size; ten crops are tried.
    """

    temperature: float = number(0.01, 0.0001, 100.0)
    min_share: float = number(0.0015, 0.0, 1.0)
    crop_share: float = number(0.5, 0.0, 1.0)


@component("sampler", "rare", RareConfig)
class RareClasses(Sampler):
    """Draws a class, a rare one more likely, then any picture that holds enough of it.

    Source: Hoyer et al., DAFormer (CVPR 2022), section 3.3.
    """

    def __init__(self, config: RareConfig, stage: StageContext) -> None:
        self._config = config
        self._stage = stage

    def order(self, source: LabelledSet, seed: tuple[int, ...]) -> PictureOrder:
        from rtda_training.data.index import index_of

        config = self._config
        index = index_of(source, progress=self._counting)
        pixels = np.asarray(index.pixels)
        holders = _holders(pixels, config.min_share)
        if not any(len(pictures) for pictures in holders):
            raise ConfigError(
                f"no picture of {source.address} has more than {config.min_share:g} of its pixels in one class",
                hint="lower rare.min_share",
            )
        chances = class_probabilities(np.asarray(index.frequencies), holders, config.temperature)
        height, width = self._stage.size_hw
        least = round(config.crop_share * config.min_share * height * width)
        return RareClassOrder(len(source), seed, chances, holders, max(1, least))

    def _counting(self, done: int, total: int) -> None:
        if done == 1:  # nothing is counted where the index is kept from earlier
            self._stage.tell(f"classes  counting those of {total} labels, once")


class RareClassOrder(PictureOrder):
    """A class drawn by its chance, then a picture that holds it, for each position anew.

    Args:
        count: Pictures in the set.
        seed: Decides everything.
        chances: float64 (C,), sum 1; 0 for classes never drawn.
        holders: Positions of the pictures that hold each class; not empty where its chance is not 0.
        least_pixels: How many pixels of the class a crop should hold.
    """

    def __init__(
        self,
        count: int,
        seed: tuple[int, ...],
        chances: np.ndarray,
        holders: Sequence[np.ndarray],
        least_pixels: int,
    ) -> None:
        super().__init__(count, seed)
        self._classes = np.flatnonzero(chances)
        self._edges = np.cumsum(chances[self._classes])
        self._holders = tuple(holders)
        self._least_pixels = least_pixels

    def draw(self, position: int) -> Draw:
        rng = np.random.default_rng((*self._seed, 3, position))
        place = np.searchsorted(self._edges, rng.random() * self._edges[-1], side="right")
        wanted = int(self._classes[min(int(place), len(self._classes) - 1)])
        pictures = self._holders[wanted]
        return Draw(int(pictures[rng.integers(len(pictures))]), wanted, self._least_pixels)


def class_probabilities(frequencies: np.ndarray, holders: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """``softmax((1 - f_c) / T)`` over the classes that some picture holds; 0 for the others.

    An absent class has the frequency 0, so that the plain formula would draw hardly anything else; the sum is over the
    classes that are left. With T = 0.01, of two classes the one that is 1 % of the pixels rarer is drawn e times as
    often, so that all classes below about 1 % have much the same chance and road has none.

    Args:
        frequencies: float64 (C,): share of the set's labelled pixels.
        holders: Pictures of each class.
        temperature: T, positive.
    """
    present = np.array([len(pictures) > 0 for pictures in holders])
    scaled = np.where(present, (1.0 - frequencies) / temperature, -np.inf)
    weights = np.exp(scaled - scaled.max())
    return np.asarray(weights / weights.sum())


def _holders(pixels: np.ndarray, min_share: float) -> list[np.ndarray]:
    """Positions of the pictures of each class, from pixel counts (N, C)."""
    labelled = pixels.sum(axis=1, keepdims=True)
    enough = pixels > min_share * labelled
    return [np.flatnonzero(enough[:, index]) for index in range(pixels.shape[1])]
