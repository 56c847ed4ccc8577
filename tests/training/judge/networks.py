"""Networks that are right on a known share of the cells, for pictures whose classes show in their brightness."""

from __future__ import annotations

import zlib
from typing import Sequence, Tuple

import numpy as np

from rtda_training.data.address import DataAddress
from rtda_training.judge import Candidate
from rtda_training.labels import CITYSCAPES, ClassList
from rtda_training.readers import LabelledSet, Pictures, UnlabelledSet

CLASSES = 5
NAMES = CITYSCAPES.names[:CLASSES]
CELL = 8  # pixels
_STEP = 40  # grey levels between two classes


class Streets(Pictures):
    """Pictures of 8x8 cells, a class each; frames follow each other with few changes, as a recording's do."""

    def __init__(self, count: int, cells_hw: Tuple[int, int] = (8, 12), seed: int = 0, still: bool = False) -> None:
        self.classes = ClassList(NAMES, CITYSCAPES.palette[:CLASSES])
        rng = np.random.default_rng(seed)
        cells = rng.integers(CLASSES, size=cells_hw)
        self.labels = []
        for _ in range(count):
            changed = rng.random(cells_hw) < (0.0 if still else 0.3)
            cells = np.where(changed, rng.integers(CLASSES, size=cells_hw), cells)
            self.labels.append(np.kron(cells, np.ones((CELL, CELL))).astype(np.uint8))

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"frame {index}"

    def frame(self, index: int) -> np.ndarray:
        return np.repeat((self.labels[index] * _STEP + 40)[..., None], 3, axis=2)

    def label(self, index: int) -> np.ndarray:
        return self.labels[index]


def footage(count: int = 40, **changes: object) -> UnlabelledSet:
    return UnlabelledSet(Streets(count, **changes), DataAddress.parse("list:streets"))  # type: ignore[arg-type]


def labelled(count: int = 8, seed: int = 9) -> LabelledSet:
    return LabelledSet(Streets(count, seed=seed), DataAddress.parse("list:labelled"))


def network(name: str, wrong: float, *, salt: int = 0, names: Sequence[str] = NAMES) -> Candidate:
    """A network that gives this share of the cells a random class, drawn anew for every picture it sees, and is the
    surer of all of them the more of them are right."""

    def cells(frame: np.ndarray) -> np.ndarray:
        small = frame[CELL // 2 :: CELL, CELL // 2 :: CELL].mean(axis=2)
        found = np.clip(np.rint((small - 40) / _STEP), 0, CLASSES - 1).astype(int)
        rng = np.random.default_rng(
            [zlib.crc32(np.ascontiguousarray(frame).tobytes()), salt, zlib.crc32(name.encode())]
        )
        return np.where(rng.random(found.shape) < wrong, rng.integers(CLASSES, size=found.shape), found)

    return of_cells(name, cells, 4.0 * (1.0 - 0.5 * wrong), tuple(names))


def constant(name: str = "constant", value: int = 1) -> Candidate:
    """A network that is sure of one class everywhere."""
    return of_cells(name, lambda frame: np.full([side // CELL for side in frame.shape[:2]], value), 20.0, NAMES)


def of_cells(name: str, cells, sharpness: float, names: Tuple[str, ...]) -> Candidate:  # type: ignore[no-untyped-def]
    def answer(frame: np.ndarray) -> np.ndarray:
        found = cells(frame)
        return np.asarray((found[None] == np.arange(CLASSES)[:, None, None]) * sharpness, dtype=np.float32)

    def mask(frame: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
        return np.kron(cells(frame), np.ones((CELL, CELL))).astype(np.uint8)

    return Candidate(name, names, answer, mask)
