"""Breaking a training off at a step: what Ctrl-C, a signal or a fault does in the middle of one."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, List
from unittest import mock

__all__ = ["at_step", "interrupt"]


@contextlib.contextmanager
def at_step(count: int, act: Callable[[], None]) -> Iterator[List[int]]:
    """While the block runs, call ``act`` before the step that follows ``count`` others; gives the steps made."""
    from rtda_training.stages.segmentation import SegmentationStage

    original, made = SegmentationStage.step, []

    def step(self: SegmentationStage, number: int) -> Any:
        if len(made) == count:
            act()
        made.append(number)
        return original(self, number)

    with mock.patch.object(SegmentationStage, "step", step):
        yield made


def interrupt() -> None:
    """What Ctrl-C raises."""
    raise KeyboardInterrupt
