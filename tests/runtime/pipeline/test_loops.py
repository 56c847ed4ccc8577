"""Loops over a pipeline that are left, and event loops."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, List

import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.fakes import ListSource, numpy_segmenter

from rtda_deploy.errors import (
    CameraError,
)
from rtda_runtime import Pipeline

# Who leaves the loop


def test_after_the_loop_is_left_the_pipeline_goes_on_by_itself() -> None:
    with Pipeline(numpy_segmenter(), ListSource(50)) as pipeline:
        for result in pipeline:
            if result.sequence == 3:
                break
        wait_for(lambda: pipeline.stats["frames"] == 50)
        assert pipeline.join(PATIENCE_S) is True and list(pipeline) == []


def test_a_loop_of_two_that_is_left_does_not_end_the_other() -> None:
    with Pipeline(numpy_segmenter(), ListSource(50)) as pipeline:
        seen = [next(pipeline).sequence]
        for result in pipeline:
            seen.append(result.sequence)
            if result.sequence == 3:
                for inner in pipeline:
                    seen.append(inner.sequence)
                    break
    assert seen == list(range(50))


def test_an_event_loop_that_is_left_holds_nobody_up() -> None:
    async def use() -> bool:
        with Pipeline(numpy_segmenter(), ListSource(50)) as pipeline:
            async for _ in pipeline.aiter():
                break
            return pipeline.join(PATIENCE_S)  # no turn of the event loop in between

    assert asyncio.run(use()) is True


@pytest.mark.parametrize("ask", [lambda pipeline: pipeline.join(0.0), lambda pipeline: pipeline.latest()])
def test_after_one_result_was_taken_join_and_latest_wait_for_nobody(ask: Callable[[Pipeline], Any]) -> None:
    with Pipeline(numpy_segmenter(), ListSource(50)) as pipeline:
        assert [next(pipeline).sequence, next(pipeline).sequence] == [0, 1], "each, while nothing else is asked for"
        ask(pipeline)
        wait_for(lambda: pipeline.stats["frames"] == 50)


def test_a_snapshot_is_a_copy() -> None:
    with Pipeline(numpy_segmenter(), ListSource(1)) as pipeline:
        pipeline.join()
        kept = pipeline.snapshot()
        assert not np.shares_memory(kept.mask, pipeline.latest().mask)


# Event loops


def test_an_event_loop_gets_every_result_and_is_never_blocked(monkeypatch: Any) -> None:
    monkeypatch.setattr("rtda_runtime.pipeline.loops.WAKE_S", 60.0)  # it is woken, it does not look again and again
    turns: List[int] = []

    async def use() -> List[int]:
        async def count() -> None:
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        with Pipeline(numpy_segmenter(lambda: time.sleep(0.002)), ListSource(20)) as pipeline:
            seen = [result.sequence async for result in pipeline.aiter()]
        counting.cancel()
        return seen

    assert asyncio.run(asyncio.wait_for(use(), PATIENCE_S)) == list(range(20))
    assert len(turns) > 20, "the loop had its turns between the results"


def test_an_event_loop_gets_the_error_after_the_results() -> None:
    async def use() -> List[int]:
        seen = []
        source = ListSource(3, error=CameraError("gone"))
        with Pipeline(numpy_segmenter(), source) as pipeline, pytest.raises(CameraError, match="gone"):
            async for result in pipeline.aiter():
                seen.append(result.sequence)
        return seen

    assert asyncio.run(use()) == [0, 1, 2]
