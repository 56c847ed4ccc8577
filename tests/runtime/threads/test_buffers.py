from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from typing import Any, List

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.fakes import NumpyEngine
from runtime.models import tiny_spec

from rtda_runtime import Overlay, Pipeline, Segmenter
from rtda_runtime.sources import Frame, Source
from rtda_runtime.threads.buffers import BufferPool

SIZE_HW = (480, 640)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_given_again_when_nobody_holds_it() -> None:
    pool = BufferPool()
    first = pool.take((4, 6, 3))
    address = _address(first)
    del first
    assert _address(pool.take((4, 6, 3))) == address


def test_what_is_held_is_not_given_again() -> None:
    pool = BufferPool()
    held = [pool.take((4, 6)) for _ in range(5)]
    assert len({_address(array) for array in held}) == 5


@pytest.mark.parametrize(
    "hold",
    [
        lambda array: array[1:, ::2],
        lambda array: array[1:][::2].T[0],
        lambda array: array.view(np.int8)[:1],
        lambda array: memoryview(array),
        lambda array: {"deep": [array]},
        lambda array: np.frombuffer(array, np.uint8),
    ],
    ids=["view", "view of a view", "other type", "memoryview", "container", "frombuffer"],
)
def test_whoever_holds_a_part_holds_it_all(hold: Any) -> None:
    pool = BufferPool()
    array = pool.take((8, 8))
    address, part = _address(array), hold(array)
    del array
    assert _address(pool.take((8, 8))) != address
    del part
    assert _address(pool.take((8, 8))) == address


def test_shapes_and_types_do_not_mix() -> None:
    pool = BufferPool()
    assert pool.take((4, 6)).shape == (4, 6) and pool.take([6, 4]).shape == (6, 4)
    assert pool.take((4, 6), np.float32).dtype == np.float32
    assert pool.take((4, 6)).flags.c_contiguous and pool.take((4, 6)).flags.writeable


def test_what_nobody_can_return_is_forgotten_not_kept() -> None:
    pool = BufferPool(most=4)
    held = [pool.take((4, 6)) for _ in range(20)]
    assert len({_address(array) for array in held}) == 20
    known = [weakref.ref(array) for array in held]
    held.clear()
    assert sum(array() is not None for array in known) == 4


def test_old_sizes_are_forgotten() -> None:
    pool = BufferPool()
    known = [weakref.ref(pool.take((side, side))) for side in range(1, 50)]
    assert sum(array() is not None for array in known) <= 4


def test_threads_never_get_the_same_memory() -> None:
    pool, wrong = BufferPool(), []  # type: ignore[var-annotated]
    start = threading.Barrier(4)

    def use(number: int) -> None:
        start.wait(PATIENCE_S)
        for _ in range(500):
            array = pool.take((64,))
            array[:] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not wrong


# In use


def _frames(count: int) -> List[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((80, 80, 1), np.uint8)) for _ in range(count)]


class _OneClass(NumpyEngine):
    """Class 3 everywhere: what a network and the borders between its classes cost is not measured here."""

    def _infer(self) -> np.ndarray:
        self._output[:] = 0.0
        self._output[3] = 1.0
        return self._output


class _PooledSource(Source):
    """Frames of 480x640 in memory of a pool."""

    def __init__(self, count: int) -> None:
        self.name, self.live, self.size_wh = "pooled", False, SIZE_HW[::-1]
        self._pictures, self._pool, self._count, self._next = _frames(4), BufferPool(), count, 0

    def read(self, timeout_s: float = 2.0) -> Any:
        if self._next == self._count:
            return None
        image = self._pool.take((*SIZE_HW, 3))
        np.copyto(image, self._pictures[self._next % 4])
        self._next += 1
        return Frame(image, 0, self._next - 1)

    def close(self) -> None:
        pass


def _growths(step: Any, count: int) -> List[int]:
    """For each of ``count`` steps the most memory, in bytes, that there was at any moment above what it began with."""
    step()
    gc.collect()
    tracemalloc.start()
    try:
        growths = []
        for _ in range(count):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            step()
            growths.append(tracemalloc.get_traced_memory()[1] - before)
        return growths
    finally:
        tracemalloc.stop()


needs_peaks = pytest.mark.skipif(not hasattr(tracemalloc, "reset_peak"), reason="tracemalloc resets peaks from 3.9 on")


@needs_peaks
def test_a_frame_through_the_pipeline_allocates_nothing_of_the_size_of_a_mask() -> None:
    with Pipeline(Segmenter(_OneClass()), _PooledSource(200)) as pipeline:
        for _ in range(20):
            next(pipeline)
        growths = _growths(lambda: next(pipeline), 60)
    # A pool still grows when more frames than ever before are under way at once, which a busy machine may bring about.
    assert sum(growth > SIZE_HW[0] * SIZE_HW[1] // 2 for growth in growths) <= 5, growths


@needs_peaks
def test_drawing_allocates_nothing_of_the_size_of_a_mask() -> None:
    overlay, frame = Overlay(tiny_spec()), _frames(1)[0]
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[:100], mask[400:] = 3, 255  # a class, and pixels without one
    out = np.empty_like(frame)
    assert max(_growths(lambda: overlay.draw(frame, mask, fps=1.0, age_ms=2.0, out=out), 10)) < mask.size // 2


def test_results_stay_what_they_are_for_as_long_as_they_are_held() -> None:
    pictures = _frames(4)
    with Pipeline(Segmenter(NumpyEngine()), _PooledSource(60)) as pipeline:
        kept = [(result, result.mask.copy()) for result in pipeline]
    for result, mask in kept:
        np.testing.assert_array_equal(result.frame, pictures[result.sequence % 4])
        np.testing.assert_array_equal(result.mask, mask)
