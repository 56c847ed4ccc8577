"""A build that can be watched and stopped.

TensorRT builds for minutes in one call. It runs in a thread of its own, so that the caller's thread stays free to show
progress and to take Ctrl-C. From TensorRT 10 on a progress monitor tells the phase and ends the build when asked;
before, nothing does: then the time is all that is shown, and Ctrl-C takes effect when the call returns.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Callable, Dict, List, Optional

__all__ = ["BuildProgress", "Watch", "monitor_for", "run_watched"]

_TICK_S = 0.5  # between looks at the clock; Ctrl-C is taken at once


@dataclasses.dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        elapsed_s: Since it began.
        phase: TensorRT's own name of what it does; empty before TensorRT 10.
        fraction: Of the whole, 0 to 1, never less than before; None before TensorRT 10.
        note: A line that people should see, such as how Ctrl-C was taken; empty otherwise.
    """

    elapsed_s: float
    phase: str = ""
    fraction: Optional[float] = None
    note: str = ""


class Watch:
    """What the building thread and the watching thread share: the phases that are open, and the wish to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: Dict[str, List[int]] = {}  # open phases from outermost to innermost -> [step, steps]
        self._reached = 0.0
        self._told = False
        self.stop = threading.Event()

    def begin(self, phase: str, steps: int) -> None:
        """A phase of ``steps`` steps begins, within those that are open."""
        with self._lock:
            self._told = True
            self._phases[phase] = [0, max(1, steps)]

    def step(self, phase: str, step: int) -> bool:
        """Step ``step`` of a phase ended; whether the build shall go on."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase][0] = step + 1
        return not self.stop.is_set()

    def end(self, phase: str) -> None:
        """A phase ended."""
        with self._lock:
            self._phases.pop(phase, None)

    def state(self, elapsed_s: float) -> BuildProgress:
        """How far the build is now."""
        with self._lock:
            if not self._told:
                return BuildProgress(elapsed_s)
            done, share = 0.0, 1.0
            for step, steps in self._phases.values():
                done += share * min(step, steps) / steps
                share /= steps
            self._reached = max(self._reached, min(1.0, done))  # outer phases finish after their inner ones
            return BuildProgress(elapsed_s, next(reversed(list(self._phases)), ""), self._reached)


def monitor_for(trt: Any, watch: Watch) -> Optional[Any]:
    """A ``trt.IProgressMonitor`` that tells ``watch``; None where TensorRT has none (before 10).

    It must outlive the build.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            watch.begin(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.end(phase_name)

    return Monitor()


def run_watched(
    work: Callable[[], Any],
    watch: Watch,
    on_progress: Optional[Callable[[BuildProgress], None]] = None,
    *,
    can_stop: bool = True,
) -> Any:
    """Run ``work`` in a thread, and call ``on_progress`` in this one until it ends.

    Args:
        work: The build; what it raises is raised here.
        watch: Its ``stop`` is set on Ctrl-C, and when ``on_progress`` raises.
        on_progress: Called at most twice a second.
        can_stop: Whether ``work`` looks at ``watch.stop``; changes only what people are told.

    Raises:
        KeyboardInterrupt: On Ctrl-C, once ``work`` has ended; at the second one without waiting for it.
    """
    result: List[Any] = []
    failure: List[BaseException] = []
    ended = threading.Event()  # not Thread.join: interrupted by Ctrl-C, that takes a running thread for a finished one

    def body() -> None:
        try:
            result.append(work())
        except BaseException as err:  # handed to the caller's thread, all of it
            failure.append(err)
        finally:
            ended.set()

    tell = on_progress or (lambda progress: None)
    thread = threading.Thread(target=body, name="tensorrt-build", daemon=True)
    started = time.perf_counter()
    try:
        thread.start()  # in here: Ctrl-C may come before it returns
        tell(watch.state(0.0))
        while not ended.wait(_TICK_S):
            tell(watch.state(time.perf_counter() - started))
    except BaseException as err:
        watch.stop.set()
        if isinstance(err, KeyboardInterrupt):
            tell(BuildProgress(time.perf_counter() - started, note=_STOPPING if can_stop else _CANNOT_STOP))
        while not ended.wait(_TICK_S) and thread.is_alive():
            pass
        raise
    if failure:
        raise failure[0]
    return result[0]


_STOPPING = "stopping: TensorRT ends the step it is at (Ctrl-C again leaves at once)"
_CANNOT_STOP = (
    "this TensorRT cannot stop in the middle of a build: it ends first, and nothing is kept "
    "(Ctrl-C again leaves at once)"
)
