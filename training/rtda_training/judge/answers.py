"""What candidates answer to footage, each run over it once, one after the other.

Softmaxes are kept at the networks' output stride in float16, in a file and not in memory; everything else that the
selectors need is a few numbers a frame, so that footage can be drawn again (bootstrap) without running a network.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.card import BINS
from rtda_deploy.errors import ConfigError, DataError, EngineError, FileAccessError
from rtda_deploy.files import file_error
from rtda_training.judge.views import VIEWS
from rtda_training.readers import UnlabelledSet

__all__ = [
    "LEAST_FRAMES",
    "Answers",
    "Candidate",
    "Dropped",
    "Frames",
    "answers_of",
    "entropy",
    "glance",
    "not_finite",
    "same_scene",
    "softmax",
]

LEAST_FRAMES = 8  # of footage that a verdict is given on
_MOST_CELLS = 4096  # of a softmax that is kept; finer ones are averaged down: 155 kB a frame for 19 classes
_KEPT_BYTES = 256 << 20  # of frames that are decoded once and not for each candidate
_UNREADABLE = 0.1  # share of the frames that may be left out
_STILL = 1.0  # grey levels: frames that differ by less on average show one scene


class Candidate(NamedTuple):
    """A network that is judged.

    Attributes:
        name: What to call it.
        class_names: Of its channels.
        answer: From a frame, uint8 (H, W, 3) BGR, to what the network gives for it: logits float32 (C, h, w), or a
            mask uint8 (H, W).
        mask: From a frame and a height and width to the mask uint8 of that size; needed for labelled frames alone. An
            ``EngineError`` where the network gives NaN or infinity, which a mask does not show.
        norm_distance: How far the statistics of its batch norms are from the footage's; None: it does not say.
        norms_kept: Whether they stood still in all of its training, so that the distance says nothing of it.
    """

    name: str
    class_names: Tuple[str, ...]
    answer: Callable[[np.ndarray], np.ndarray]
    mask: Optional[Callable[[np.ndarray, Tuple[int, int]], np.ndarray]] = None
    norm_distance: Optional[Callable[[Iterable[np.ndarray]], float]] = None
    norms_kept: bool = False


class Dropped(NamedTuple):
    """A candidate that cannot be judged, and why."""

    name: str
    why: str


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What one candidate answered; N frames, C classes, V views.

    Attributes:
        name: The candidate's.
        probabilities: float16 (N, C, h, w), in a file.
        mean: float64 (N, C): the mean softmax of each frame.
        won: float64 (N, C): share of the cells of each frame that have each class.
        entropy: float64 (N,): mean entropy of a cell's softmax, 0..1, 1 for a uniform one.
        differs: float64 (N, V): share of cells whose class changes under each view.
        confidence: float64 (N, BINS): histogram of the winning probability, each row sums to 1.
        norm_distance: As of the candidate.
        norms_kept: As of the candidate.
    """

    name: str
    probabilities: np.ndarray
    mean: np.ndarray
    won: np.ndarray
    entropy: np.ndarray
    differs: np.ndarray
    confidence: np.ndarray
    norm_distance: Optional[float] = None
    norms_kept: bool = False


class Frames:
    """The frames that are judged on, spread evenly over the footage; small footage is decoded once.

    Args:
        footage: Where they are from.
        most: How many at most; 0: all.

    Attributes:
        left_out: Names of those that could not be read.
        still: Whether they all show one scene.

    Raises:
        ConfigError: If ``most`` is below ``LEAST_FRAMES``.
        DataError: If fewer than ``LEAST_FRAMES`` can be read, or more than a tenth cannot.
    """

    def __init__(self, footage: UnlabelledSet, most: int = 0) -> None:
        if 0 < most < LEAST_FRAMES:
            raise ConfigError(
                f"{most} frame{'s' * (most != 1)} of the footage are too few to judge networks on",
                hint=f"--max-frames {LEAST_FRAMES} or more, or 0 for all",
            )
        self._footage = footage
        count = min(len(footage), most or len(footage))
        self._places: List[int] = []
        self._kept: List[np.ndarray] = []
        self.left_out: List[str] = []
        glances = []
        room = _KEPT_BYTES
        for index in np.linspace(0, len(footage) - 1, count).round().astype(int).tolist():
            try:
                frame = footage.frame(index)
            except (DataError, FileAccessError) as err:
                self.left_out.append(footage.name(index))
                if len(self.left_out) > max(1, _UNREADABLE * count):
                    raise DataError(
                        f"{len(self.left_out)} frames of {footage.address} cannot be read; {err.message}",
                        hint=footage.check_command,
                    ) from err
                continue
            self._places.append(index)
            glances.append(glance(frame))
            room -= frame.nbytes
            if room >= 0:
                self._kept.append(frame)
        if len(self._places) < LEAST_FRAMES:
            raise DataError(
                f"{footage.address} has {len(self._places)} frames that can be read, too few to judge networks on",
                hint=f"at least {LEAST_FRAMES} are needed, and hundreds of different scenes are better",
            )
        self.still = all(same_scene(one, glances[0]) for one in glances[1:])

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) BGR."""
        for place, index in enumerate(self._places):
            yield self._kept[place] if place < len(self._kept) else self._footage.frame(index)

    def name(self, place: int) -> str:
        """What the footage calls a frame."""
        return self._footage.name(self._places[place])


def glance(frame: np.ndarray) -> np.ndarray:
    """float32 of at most 32x32 grey levels, sampled."""
    rows, columns = (max(1, -(-side // 32)) for side in frame.shape[:2])
    return np.asarray(frame[::rows, ::columns].mean(axis=2, dtype=np.float32))


def same_scene(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether nothing moved between two frames, by what :func:`glance` gives of them."""
    return one.shape == other.shape and float(np.abs(one - other).mean()) < _STILL


def answers_of(
    candidate: Candidate,
    frames: Frames,
    file: Path,
    *,
    like: Optional[Answers] = None,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Answers:
    """Run a candidate over the frames and their views.

    Args:
        candidate: The network.
        frames: The footage.
        file: Where its softmaxes are kept; written.
        like: An earlier candidate, whose grid this one's softmaxes are brought to; None: the first decides.
        progress: Called with (done, total).

    Raises:
        EngineError: If it gives NaN or infinity; drop it, and go on.
        ConfigError: If its channels are no classes.
        FileAccessError: If ``file`` cannot be written, such as on a full disk.
    """
    count, classes = len(frames), len(candidate.class_names)
    mean, won, sure = np.zeros((count, classes)), np.zeros((count, classes)), np.zeros((count, BINS))
    unsure, differs = np.zeros(count), np.zeros((count, len(VIEWS)))
    grid = None if like is None else like.probabilities.shape[2:]
    kept: Optional[np.ndarray] = None
    for place, frame in enumerate(frames):
        found = _probabilities(candidate, frame, frames.name(place))
        grid = grid or _grid(found.shape[1:])
        found = resampled(found, grid)
        if kept is None:
            kept = _on_disk(file, (count, classes, *grid))
        kept[place] = found
        mask = found.argmax(axis=0)
        mean[place] = found.mean(axis=(1, 2))
        won[place] = np.bincount(mask.ravel(), minlength=classes) / mask.size
        unsure[place] = entropy(found).mean()
        sure[place] = np.histogram(found.max(axis=0), BINS, (0.0, 1.000001))[0] / mask.size
        for number, view in enumerate(VIEWS.values()):
            seen = view.back(_probabilities(candidate, view.change(frame), frames.name(place)))
            differs[place, number] = (resampled(seen, grid).argmax(axis=0) != mask).mean()
        if progress is not None:
            progress(place + 1, count)
    assert kept is not None  # there are frames
    distance = candidate.norm_distance(frames) if candidate.norm_distance is not None else None
    return Answers(candidate.name, kept, mean, won, unsure, differs, sure, distance, candidate.norms_kept)


def _on_disk(file: Path, shape: Tuple[int, ...]) -> np.ndarray:
    """float16 of that shape, in a file whose room is taken at once: writing past a full disk would kill the process."""
    try:
        with open(file, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, int(np.prod(shape)) * np.dtype(np.float16).itemsize)
    except OSError as err:
        raise file_error(err, file, "write") from err
    return np.memmap(file, np.float16, "r+", shape=shape)


def _probabilities(candidate: Candidate, frame: np.ndarray, name: str) -> np.ndarray:
    """float32 (C, h, w) of whatever the network gives."""
    answer, classes = candidate.answer(frame), len(candidate.class_names)
    if answer.ndim == 2:  # a finished mask; a value that is no class is sure of nothing
        small = answer[::8, ::8]
        shares = (small[None] == np.arange(classes)[:, None, None]).astype(np.float32)
        return np.where(shares.any(axis=0), shares, np.float32(1.0 / classes))
    if not np.isfinite(answer).all():
        raise not_finite(candidate.name, name)
    if answer.shape[0] != classes:
        raise ConfigError(
            f"{candidate.name} gives {answer.shape[0]} channels and names {classes} classes",
            hint="its spec is of another network; export it again, or give the right one",
        )
    return softmax(answer.astype(np.float32))


def not_finite(network: str, frame: str = "") -> EngineError:
    """The error of a network that gives NaN or infinity, for that frame where it has a name."""
    where = f" for {frame}" if frame else ""
    return EngineError(
        f"{network} gives NaN or infinity{where}", hint="its training diverged; take an earlier checkpoint"
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the first axis."""
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.asarray(exponentials / exponentials.sum(axis=0))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy over the first axis, 0..1: 1 for a uniform distribution, whatever the number of classes."""
    classes = probabilities.shape[0]
    plain = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=0)
    return np.asarray(plain / np.log(max(2, classes)))


def _grid(shape: Tuple[int, ...]) -> Tuple[int, int]:
    """At most ``_MOST_CELLS`` cells of the same proportions."""
    factor = max(1.0, (shape[0] * shape[1] / _MOST_CELLS) ** 0.5)
    return max(1, int(shape[0] / factor)), max(1, int(shape[1] / factor))


def resampled(maps: np.ndarray, grid: Tuple[int, ...]) -> np.ndarray:
    """Maps (C, h, w) at another size: each cell is the mean of what it covers."""
    if maps.shape[1:] == tuple(grid):
        return maps
    rows, columns = (_overlap(old, new) for old, new in zip(maps.shape[1:], grid))
    return np.asarray(np.matmul(np.matmul(rows, maps), columns.T), dtype=np.float32)


def _overlap(old: int, new: int) -> np.ndarray:
    """float32 (new, old): which share of each new cell each old one covers."""
    edges, ends = np.arange(new + 1) * (old / new), np.arange(old + 1)
    low = np.maximum(edges[:-1, None], ends[None, :-1])
    high = np.minimum(edges[1:, None], ends[None, 1:])
    return np.asarray(np.maximum(0.0, high - low) * (new / old), dtype=np.float32)
