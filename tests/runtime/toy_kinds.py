"""A source, a film and a publisher as another program would add them: functions and classes, and one row each."""

from __future__ import annotations

import functools
import signal
from pathlib import Path
from typing import Any, Callable, List, Mapping

from rtda_deploy.errors import RtdaError
from rtda_deploy.optional import Package
from rtda_runtime.result import Result
from rtda_runtime.sinks import Sink
from rtda_runtime.sinks.kinds import SinkContext, SinkKind
from rtda_runtime.sinks.publish import Publisher
from rtda_runtime.sources import BarsSource, CameraInfo, Source
from rtda_runtime.sources.kinds import CameraRequest, SourceKind

THERMAL = SourceKind(
    name="thermal camera",
    pattern=r"thermal://\d+",
    example="thermal://0",
    opener="runtime.toy_kinds:open_thermal",
    package=Package("runtime.toy_kinds", "thermal", "heat"),
    instead="its size is fixed",
    requests=("fps",),
    reconnects=True,
    files="runtime.toy_kinds:files_of_thermal",
    cameras="runtime.toy_kinds:list_thermal",
    checks=(("thermal cameras", "runtime.toy_kinds:check_thermal"),),
)
TALLY = SinkKind(
    name="tally",
    pattern=r"(?P<path>.*\.tally)",
    example="frames.tally",
    opener="runtime.toy_kinds:open_tally",
    option="save",
)
BEACON = SinkKind(
    name="beacon",
    pattern=r"beacon:.*",
    example="beacon:garage",
    opener="runtime.toy_kinds:open_beacon",
    package=Package("runtime.toy_kinds", "thermal", "light"),
    option="publish",
)
BREAKING = SinkKind(
    name="sink that breaks",
    pattern=r".*\.breaks",
    example="it.breaks",
    opener="runtime.toy_kinds:open_breaking",
    option="save",
)


def open_thermal(address: str, request: CameraRequest) -> Callable[[], Source]:
    return functools.partial(BarsSource, address, fps=request.fps or 500.0, size_wh=(64, 48), num_frames=5)


def files_of_thermal(address: str) -> List[Path]:
    return [Path("thermal.toml")]


def list_thermal() -> List[CameraInfo]:
    return [CameraInfo("thermal://0", "Heat", None, permitted=True, main=True)]


def check_thermal() -> Any:
    return "ok", "one, warm", ""


class Tally(Sink):
    """Writes a line per result."""

    name = "tally"
    keeps = True

    def __init__(self, path: Path) -> None:
        self._stream = path.open("w")

    def write(self, result: Result) -> Mapping[str, float]:
        self._stream.write(f"{result.sequence}\n")
        return {}

    def close(self) -> None:
        self._stream.close()


def open_tally(address: str, context: SinkContext) -> Callable[[], Sink]:
    return functools.partial(Tally, Path(address))


class Beacon(Publisher):
    """Notes the topics that it sends in a file of its name."""

    name = "beacon"

    def __init__(self, place: str, context: SinkContext) -> None:
        super().__init__(context.spec, context.source)
        self.address = self.url = self.note = f"light at {place}"
        self._sent: List[str] = []
        self._path = Path(place)

    def _wanted(self, topic: str) -> bool:
        return True

    def _send_image(self, topic: str, stamp_ns: int, format_: str, content: bytes, result: Result) -> None:
        self._sent.append(topic)

    def _send_json(self, topic: str, stamp_ns: int, values: Mapping[str, Any]) -> None:
        self._sent.append(topic)

    def _send_state(self, stamp_ns: int, state: str, sentence: str) -> None:
        self._sent.append("state")

    def _end(self) -> None:
        self._path.write_text("\n".join(self._sent))


def open_beacon(address: str, context: SinkContext) -> Callable[[], Sink]:
    return functools.partial(Beacon, address.partition(":")[2], context)


class Breaking(Sink):
    """Fails with the first result, while the program gets a Ctrl-C."""

    name = "breaking"

    def write(self, result: Result) -> Mapping[str, float]:
        signal.raise_signal(signal.SIGINT)
        raise RtdaError("it broke")

    def close(self) -> None:
        pass


def open_breaking(address: str, context: SinkContext) -> Callable[[], Sink]:
    return Breaking
