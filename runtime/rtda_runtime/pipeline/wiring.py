"""The threads of a pipeline: how they begin, what goes from one to the other, how their end is awaited."""

from __future__ import annotations

import logging
import time
from typing import Callable, List, Mapping, Optional, Sequence

from rtda_runtime.pipeline.inference import Inference, Networks
from rtda_runtime.pipeline.loops import Loops
from rtda_runtime.pipeline.reader import Flow, Reader
from rtda_runtime.pipeline.shadow import Shadow
from rtda_runtime.pipeline.sink_thread import SinkThread
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink
from rtda_runtime.threads.named import NamedThread
from rtda_runtime.timing import StageTimes

__all__ = ["OnResult", "OnState", "Wiring"]

OnResult = Callable[[Result], None]
OnState = Callable[[str, str], None]

_log = logging.getLogger(__name__)


class Wiring:
    """Reader -> networks -> sinks, loops, callback and the newest result.

    Args:
        flow: From the reader to the networks.
        networks: Closed at the end.
        loops: Get each result, too.
        sinks: Each gets results on a thread of its own, which closes it.
        shadow: One of them for which those that are ``after_shadow`` wait: what it looked at they get from it, until it
            ends or fails; then they get each result.
        on_result: A function that gets them as a sink does; what it raises ends the flow.
        on_state: Told the states of the source, as are the sinks and the listener that the source already had.

    Attributes:
        threads: In the order in which they begin.
        times: Milliseconds per stage.
    """

    def __init__(
        self,
        flow: Flow,
        networks: Networks,
        loops: Loops,
        *,
        sinks: Sequence[Sink],
        on_result: Optional[OnResult],
        on_state: Optional[OnState],
        shadow: Optional[Shadow] = None,
    ) -> None:
        self.times = StageTimes()
        self.reader = Reader(flow)
        self.inference = Inference(flow, networks, self._give, self._end)
        self.sinks: List[SinkThread] = []
        self._flow = flow
        self._networks = networks
        self._loops = loops
        for sink in sinks:
            self._add(sink, wait=sink.keeps)
        self._ended, self._shadowed = False, shadow is not None  # each is written by one thread
        self._after = [thread for thread in self.sinks if shadow is not None and thread.sink.after_shadow]
        if shadow is not None:
            shadow.on_compared, shadow.on_over = self._give_compared, self._end_shadow
        if on_result is not None:
            self._add(_Callback(on_result), wait=True, on_error=flow.fail)
        self.threads: Sequence[NamedThread] = (self.reader, self.inference, *self.sinks)
        self._listeners = [told for told in (flow.source.on_state, self._tell_sinks, on_state) if told is not None]
        flow.source.on_state = self._tell_state

    def start(self) -> None:
        """Start all threads."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Ask all threads to end; what sinks were given is still written, for a moment where frames may be dropped."""
        if not self._flow.stop.is_set():  # it did not come to its end by itself
            for sink in self.sinks:
                sink.hurry(time.monotonic() + self._flow.patience.hurry_s)
        self._flow.end()
        self._loops.close()
        self._flow.source.interrupt()

    def await_end(self, *, patient: bool) -> None:
        """Wait for the end of all threads; one that does not return is left behind with a warning.

        Args:
            patient: Sinks that keep everything are waited for as long as they need to finish their file.
        """
        self._close_unused()
        deadline_s = time.monotonic() + self._flow.patience.stop_s
        if not self.inference.join_until(deadline_s):
            _log.warning("the network does not return; %s ends when it does", self.inference.name)
        for sink in self.sinks:
            to_its_end = patient and (sink.sink.keeps or sink.sink.finishes)
            if not (sink.await_file(self._flow.patience.stuck_s) if to_its_end else sink.join_until(deadline_s)):
                sink.abandon()
                if isinstance(sink.sink, Shadow):
                    self._end_shadow()
                _log.warning("sink %s does not return; its thread ends when it does", sink.sink_name)
        if not self.reader.join_until(deadline_s):
            _log.warning("%s does not return from its driver; its reader ends when it does", self._flow.source.name)

    def _add(self, sink: Sink, *, wait: bool, on_error: Optional[Callable[[BaseException], None]] = None) -> None:
        alike = sum(thread.sink.name == sink.name for thread in self.sinks)
        name = f"{sink.name}-{alike + 1}" if alike else sink.name
        wait = wait and not self._flow.newest
        size_wh = self._flow.source.size_wh
        self.sinks.append(SinkThread(sink, name, wait=wait, size_wh=size_wh, times=self.times, on_error=on_error))

    def _close_unused(self) -> None:
        """Close what belongs to threads that never began: no result was asked for, or Ctrl-C came in between."""
        if not self.reader.began():
            self._flow.source.close()
        if not self.inference.began():
            self._end()
            self._networks.close()
        for sink in self.sinks:
            if not sink.began():
                sink.close_unused()

    # What the threads call

    def _give(self, result: Result) -> bool:
        self.times.add(result.timing)
        for sink in self.sinks:
            if not (self._shadowed and sink in self._after) and sink.sink.wants(result):
                sink.give(result)
        return self._loops.put(result)

    def _give_compared(self, result: Result) -> None:
        for sink in self._after:
            if sink.sink.wants(result):
                sink.give(result)

    def _end(self) -> None:
        self._ended = True
        for sink in self.sinks:
            if not (self._shadowed and sink in self._after):
                sink.end()
        self._loops.end()

    def _end_shadow(self) -> None:
        """The shadow looks at nothing any more: nothing more comes from it, and it need not be waited for."""
        self._shadowed = False
        if self._ended:
            for sink in self._after:
                sink.end()

    def _tell_state(self, state: str, sentence: str) -> None:
        for listener in self._listeners:
            _tell(listener, state, sentence)

    def _tell_sinks(self, state: str, sentence: str) -> None:
        for sink in self.sinks:
            if sink.error is None:
                _tell(sink.sink.on_state, state, sentence)


def _tell(listener: OnState, state: str, sentence: str) -> None:
    try:
        listener(state, sentence)
    except Exception as err:  # the reader must go on reading
        _log.warning("telling that the camera is %s: %s", state, err, exc_info=True)


class _Callback(Sink):
    """A function as a sink."""

    name = "callback"

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result

    def write(self, result: Result) -> Mapping[str, float]:
        self._on_result(result)
        return {}

    def close(self) -> None:
        """Nothing to finish."""
