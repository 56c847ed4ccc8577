"""The options of a pipeline: what the command line and a program say of how it shall run, checked in one place."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Optional, Union

from rtda_deploy.errors import ConfigError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.pool import check_in_flight
from rtda_runtime.shift.support import apart_seconds
from rtda_runtime.sources import Source

__all__ = ["POLICIES", "Patience", "PipelineOptions"]

POLICIES = ("newest", "every")


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
    """How a pipeline runs, and how a model and a source that are given as paths or addresses are opened.

    ::

        options = PipelineOptions(policy="every", max_frames=100)
        with Pipeline.open("model.onnx", "clip.mp4", options=options) as pipeline: ...

    A model or a source that is given open stays as it is: ``provider``, ``spec``, ``threads``, ``in_flight`` and
    ``reconnect`` do not apply to it.

    Attributes:
        policy: ``newest`` or ``every``; None: newest for a live source, every for a recording.
        max_frames: The pipeline ends after so many results: those that a loop got; where there is none, those that were
            segmented. Under ``newest`` a loop slower than the network gets so many of them; sinks get those in between,
            too.
        each_result: Under ``newest``, too, a loop gets each result, and the network waits for the loop. False: the
            newest one, and those before it count as dropped.
        timeout_s: No frame for so many seconds is an error, unless the source says that it is being connected again.
        max_age_ms: A result older than this when it is done is not given to anybody, but counted. None: any age.
        rate: Frames per second to take from a source that gives more. None: all it gives.
        provider: Of the models; as of :meth:`Segmenter.open`.
        spec: Of models that carry none.
        threads: CPU threads of each engine; None: one per core.
        in_flight: Frames of a recording that are worked on at once: more of them per second, each on an engine of its
            own.
        reconnect: Open a camera again when it is lost, for as long as that takes. False: that is an error.
        shift: Tell when the frames are unlike what the network knows: seconds between false alarms, or a text such as
            ``2h``. The model's file has to be exported with ``--monitor``. None: no such alarm.

    Raises:
        ConfigError: If a value makes no sense.
    """

    policy: Optional[str] = None
    max_frames: Optional[int] = None
    each_result: bool = False
    timeout_s: float = 5.0
    max_age_ms: Optional[float] = None
    rate: Optional[float] = None
    provider: str = "auto"
    spec: Optional[ModelSpec] = None
    threads: Optional[int] = None
    in_flight: int = 1
    reconnect: bool = True
    shift: Union[str, float, None] = None

    def __post_init__(self) -> None:
        if self.policy is not None and self.policy not in POLICIES:
            raise ConfigError(f"unknown policy {self.policy!r}", hint=f"known: {', '.join(POLICIES)}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(
                f"max_frames must be at least 1, got {self.max_frames}", hint="leave it out for all frames"
            )
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout must be positive, got {self.timeout_s:g}", hint="try 5")
        if self.max_age_ms is not None and not self.max_age_ms > 0:
            raise ConfigError(
                f"the largest age must be positive, got {self.max_age_ms:g} ms", hint="leave it out for any age"
            )
        if self.rate is not None and not self.rate > 0:
            raise ConfigError(f"rate must be positive, got {self.rate:g}", hint="leave it out: as fast as frames come")
        if self.shift is not None:
            apart_seconds(self.shift)
        check_in_flight(self.in_flight, self.policy or "every")  # what the source is decides the rest: policy_for

    def with_changes(self, changes: Mapping[str, Any]) -> PipelineOptions:
        """These options with some of them changed, by their names."""
        return dataclasses.replace(self, **changes)

    def policy_for(self, source: Source) -> str:
        """``newest`` or ``every``: what was asked, else what is usual for such a source.

        Raises:
            ConfigError: If more than one frame is to be in flight under ``newest``.
        """
        policy = self.policy or ("newest" if source.live else "every")
        check_in_flight(self.in_flight, policy)
        return policy


@dataclasses.dataclass(frozen=True)
class Patience:
    """How many seconds a pipeline waits for threads that do not answer.

    Attributes:
        stop_s: Closing waits so long for one that is stuck in a driver or a sink, then leaves it behind.
        hurry_s: So long sinks may write what they were given before closing, where frames may be dropped.
        stuck_s: A sink that keeps everything and needs longer for one result is stuck.
        grace_s: The network waits this much longer for a frame than the reader, whose error says more.
    """

    stop_s: float = 0.8
    hurry_s: float = 0.25
    stuck_s: float = 30.0
    grace_s: float = 1.0
