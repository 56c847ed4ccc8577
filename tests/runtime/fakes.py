"""Stand-ins at the seams: an engine made of NumPy, a scripted source, a sink that keeps all, a clock moved by hand."""

from __future__ import annotations

import threading
from typing import Any, Callable, List, Mapping, Optional, Tuple

import numpy as np
from runtime.models import tiny_logits, tiny_spec

from rtda_deploy.spec import ModelSpec
from rtda_runtime import Result, Segmenter, Sink
from rtda_runtime.engines import Engine
from rtda_runtime.sources import Frame, Source


class NumpyEngine(Engine):
    """The tiny network in NumPy; ``before`` is called at the start of every inference."""

    def __init__(self, spec: Optional[ModelSpec] = None, before: Callable[[], Any] = lambda: None) -> None:
        super().__init__(spec or tiny_spec(), provider="cpu", description="the tiny network in NumPy")
        self.before = before
        self.released = 0
        self._output = np.zeros(self.output_shape, np.float32)

    def _infer(self) -> np.ndarray:
        self.before()
        np.copyto(self._output, tiny_logits(self.input_buffer))
        return self._output

    def _release(self) -> None:
        self.released += 1


def numpy_segmenter(before: Callable[[], Any] = lambda: None) -> Segmenter:
    """The tiny network in NumPy, ready to segment."""
    return Segmenter(NumpyEngine(before=before))


class ListSource(Source):
    """Gives pictures of 4x6 filled with their number, then None or an error; ``before`` runs at the start of a read."""

    def __init__(
        self,
        count: int,
        *,
        live: bool = False,
        error: Optional[Exception] = None,
        before: Callable[[int], Any] = lambda number: None,
        clock: Callable[[], int] = lambda: 0,
    ) -> None:
        self.name = "list"
        self.live = live
        self.size_wh = (6, 4)
        self.closed = threading.Event()
        self.read_by: List[str] = []
        self._count = count
        self._next = 0
        self._error = error
        self._before = before
        self._clock = clock

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        self.read_by.append(threading.current_thread().name)
        self._before(self._next)
        if self._next >= self._count:
            if self._error is not None:
                raise self._error
            return None
        image = np.full((4, 6, 3), self._next % 256, np.uint8)
        frame = Frame(image=image, captured_ns=self._clock(), sequence=self._next)
        self._next += 1
        return frame

    def close(self) -> None:
        self.closed.set()


class ListSink(Sink):
    """Keeps everything; ``before`` is called at the start of each write, with the result."""

    name = "list"
    keeps = True

    def __init__(self, before: Callable[[Result], Any] = lambda result: None, name: str = "list") -> None:
        self.name = name
        self.results: List[Result] = []
        self.written_by: List[str] = []
        self.closed = 0
        self.states: List[Tuple[str, str]] = []
        self._before = before

    def write(self, result: Result) -> Mapping[str, float]:
        self.written_by.append(threading.current_thread().name)
        self._before(result)
        self.results.append(result)
        return {"encode": 1.5}

    def on_state(self, state: str, sentence: str) -> None:
        self.states.append((state, sentence))

    def close(self) -> None:
        self.closed += 1


class FakeClock:
    """Nanoseconds that pass only when somebody sleeps or says so."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
