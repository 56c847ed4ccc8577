"""A candidate beside the deployed model on the same frames: do they agree, which is right, which is quicker."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.mask.agreement import Agreement, class_counts, ious, refuse_other_classes
from rtda_runtime.segmenter import Segmenter

__all__ = ["Limits", "Trial", "TrialFrame", "try_models"]

_WARM_UP = 2  # runs before times count


class TrialFrame(NamedTuple):
    """A frame that both are run on.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        label: uint8 (H, W), a class index of the models and 255 where nothing is known; None: there is none.
    """

    image: np.ndarray
    label: Optional[np.ndarray] = None


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a candidate must hold to be promoted.

    Attributes:
        agreement: The least share of pixels that both call alike, 0 to 1.
        miou_loss: The most mIoU points that it may lose, where there are labels.
        slower: The most that its p95 may be, as a multiple of the deployed model's.
        p95_ms: The most milliseconds of its p95; None: no limit.
    """

    agreement: float = 0.5
    miou_loss: float = 1.0
    slower: float = 1.5
    p95_ms: Optional[float] = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not value >= 0.0:  # NaN, too: nothing would ever miss it
                raise ConfigError(f"a limit of a promotion is {value:g}: {name}", hint="0 or more")


@dataclasses.dataclass(frozen=True)
class Trial:
    """What was seen.

    Attributes:
        frames: So many.
        labelled: Of them with labels.
        p95_ms: Frame to mask, 95th percentile, milliseconds, of the deployed model (None: there is none) and the new.
        agreement: Share of pixels that both call alike, 0 to 1; None: there is no deployed one.
        by_class: The same by class: of the pixels that either calls so, the share that both do; classes that neither
            uses are not there.
        miou: Percent, of the deployed model and of the new one; None: no labels, or no deployed one.
        runs: How often each was timed.
    """

    frames: int
    labelled: int
    p95_ms: Tuple[Optional[float], float]
    agreement: Optional[float]
    by_class: Dict[str, float]
    miou: Tuple[Optional[float], Optional[float]]
    runs: int = 0

    def missed(self, limits: Limits) -> List[str]:
        """Which limits the candidate does not hold, as sentences; empty: none."""
        found = []
        before_ms, now_ms = self.p95_ms
        before, now = self.miou
        if self.agreement is not None and self.agreement < limits.agreement:
            found.append(f"{100 * self.agreement:.1f} % of the pixels agree, wanted {100 * limits.agreement:.1f} %")
        if before is not None and now is not None and before - now > limits.miou_loss:
            found.append(f"mIoU falls from {before:.1f} to {now:.1f} %, allowed are {limits.miou_loss:g} points")
        if before_ms is not None and now_ms > limits.slower * before_ms:
            found.append(f"p95 is {now_ms:.1f} ms, {now_ms / before_ms:.1f} times that of the deployed model")
        if limits.p95_ms is not None and now_ms > limits.p95_ms:
            found.append(f"p95 is {now_ms:.1f} ms, allowed are {limits.p95_ms:g} ms")
        return found

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)


def try_models(
    deployed: Optional[Path],
    candidate: Path,
    frames: Iterable[TrialFrame],
    *,
    provider: str = "auto",
    threads: Optional[int] = None,
    repeats: int = 1,
    tell: Callable[[int], None] = lambda done: None,
) -> Trial:
    """Run both on the same frames, in turns.

    Args:
        deployed: What runs now; None: nothing.
        candidate: What may run next.
        frames: Read once.
        provider: What both run on.
        threads: Of the CPU; None: the engine's own choice.
        repeats: Each frame is timed so often; of a few frames one run each, the p95 is the slowest of all.
        tell: Called with the number of frames done.

    Raises:
        ConfigError: If their classes differ, or there is no frame.
        EngineError: If one cannot be used, or answers NaN.
    """
    segmenters: List[Segmenter] = []
    try:
        for path in (candidate, *([deployed] if deployed is not None else [])):
            segmenters.append(Segmenter.open(path, provider, threads=threads))
        spec = segmenters[0].spec
        if deployed is not None:
            refuse_other_classes(
                spec,
                segmenters[1].spec,
                said="the new model has other classes than the deployed one",
                why="what reads its masks on the robot would take one class for another",
                hint="promote it under a name of its own: --name OTHER",
            )
        seen = _Seen(spec, len(segmenters))
        for done, frame in enumerate(frames, start=1):
            seen.add(frame, [_masked(segmenter, frame.image, done) for segmenter in segmenters])
            for _ in range(repeats - 1):
                seen.add_times([_run(segmenter, frame.image)[1] for segmenter in segmenters])
            tell(done)
    finally:
        for segmenter in segmenters:
            segmenter.close()
    return seen.trial()


def _masked(segmenter: Segmenter, image: np.ndarray, number: int) -> Tuple[np.ndarray, float]:
    """The mask, and milliseconds from the frame to it; of the first frame after runs that are not counted."""
    if number == 1:
        for _ in range(_WARM_UP):
            segmenter.segment(image)
    mask, taken_ms = _run(segmenter, image)
    return mask.copy(), taken_ms


def _run(segmenter: Segmenter, image: np.ndarray) -> Tuple[np.ndarray, float]:
    """The mask, which the next run overwrites, and milliseconds from the frame to it."""
    result = segmenter.segment(image)
    return result.mask, sum(result.timing.values())


class _Seen:
    def __init__(self, spec: ModelSpec, models: int) -> None:
        self._times_ms: List[List[float]] = [[] for _ in range(models)]
        count = spec.num_classes
        self._right = [np.zeros((count, count), np.int64) for _ in range(models)]
        self._agreement = Agreement(spec)
        self._labelled = self._frames = 0

    def add(self, frame: TrialFrame, answers: List[Tuple[np.ndarray, float]]) -> None:
        masks = [mask for mask, _ in answers]
        self.add_times([taken_ms for _, taken_ms in answers])
        self._frames += 1
        if len(masks) == 2:
            self._agreement.add(masks[1], masks[0])
        if frame.label is not None:
            self._labelled += 1
            for counts, mask in zip(self._right, masks):
                counts += class_counts(frame.label, mask, len(counts))

    def add_times(self, taken_ms: List[float]) -> None:
        for times, taken in zip(self._times_ms, taken_ms):
            times.append(taken)

    def trial(self) -> Trial:
        if not self._frames:
            raise ConfigError("there is no frame to try the models on", hint="name some with --frames DATA")
        p95 = [float(np.percentile(times, 95)) for times in self._times_ms]
        mious = [_miou(counts) for counts in self._right]
        two = len(p95) == 2
        return Trial(
            frames=self._frames,
            labelled=self._labelled,
            p95_ms=(p95[1] if two else None, p95[0]),
            agreement=self._agreement.share,
            by_class=self._agreement.by_class,
            miou=(mious[1] if two else None, mious[0]),
            runs=len(self._times_ms[0]),
        )


def _miou(counts: np.ndarray) -> Optional[float]:
    """Percent, over the classes that the labels have; None: there are none."""
    there = counts.sum(axis=1) > 0
    return float(100 * ious(counts)[there].mean()) if there.any() else None
