"""The network of a pipeline, and a second one that is compared with it."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import ConfigError
from rtda_runtime.pipeline.flow import Captured
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result

__all__ = ["Networks", "Segmented", "Taken"]


class Taken(NamedTuple):
    """A frame that the network works on, and how many were dropped until then."""

    captured: Captured
    dropped: int


class Segmented(NamedTuple):
    """What the networks gave for a frame; ``second`` is that of the one to compare with."""

    taken: Taken
    first: Result
    second: Optional[Result]


class Networks:
    """One network or two, for the same frames.

    Args:
        segmenter: The network.
        compare: The second one, with the same classes.
        owned: Those of the two that are closed with the pipeline.

    Raises:
        ConfigError: If their classes differ, so that their masks mean different things.
    """

    def __init__(
        self, segmenter: AnySegmenter, compare: Optional[AnySegmenter] = None, owned: Sequence[AnySegmenter] = ()
    ) -> None:
        _check_comparable(segmenter, compare)
        self.segmenter = segmenter
        self._compare = compare
        self._owned = tuple(owned)

    def warm_up(self, size_wh: Tuple[int, int]) -> None:
        """Segment one black frame on each."""
        width, height = size_wh
        for segmenter in (self.segmenter, self._compare):
            if segmenter is not None:
                segmenter.warm_up((height, width))

    def segment(self, taken: Taken, newer: Optional[Callable[[Taken], Taken]] = None) -> Segmented:
        """Segment a frame.

        Args:
            newer: Gives a newer frame than the one it is given, or that one; asked when this pipeline has its turn on
                the network, because other pipelines may have kept it until then.
        """
        if newer is None:
            first = self._first(taken)
        else:
            with self.segmenter.turn():
                taken = newer(taken)
                first = self._first(taken)
        # The turn on the first network is over: it is free for others while this thread waits for the second one.
        return Segmented(taken, first, None if self._compare is None else self._compare.segment(first.frame))

    def close(self) -> None:
        """Close the segmenters that are owned."""
        for segmenter in self._owned:
            segmenter.close()

    def _first(self, taken: Taken) -> Result:
        frame = taken.captured.frame
        return self.segmenter.segment(frame.image, captured_ns=frame.captured_ns, sequence=frame.sequence)


def _check_comparable(segmenter: AnySegmenter, compare: Optional[AnySegmenter]) -> None:
    if compare is None or compare.spec.class_names == segmenter.spec.class_names:
        return
    first, second = segmenter.spec.num_classes, compare.spec.num_classes
    raise ConfigError(
        "the two networks have different classes, so their masks cannot be compared",
        why=f"{first} and {second} classes" if first != second else "as many classes, but other names",
        hint="rtda-deploy inspect FILE lists them",
    )
