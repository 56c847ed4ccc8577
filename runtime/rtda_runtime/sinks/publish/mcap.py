"""A recording in MCAP, the format of Foxglove and ROS 2. The file gets its name once it is complete.

It is written under a hidden temporary name (``.drive.xxxxxxxx.part.mcap``) and gets its own when it is closed. A
process that is killed leaves the temporary file, whose finished chunks ``mcap recover`` makes playable.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Mapping

from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import FileInProgress
from rtda_runtime.sinks.kinds import SinkContext
from rtda_runtime.sinks.publish.base import Publisher
from rtda_runtime.sinks.publish.messages import FRAME_ID, LOG_LEVELS, SCHEMA_OF, SCHEMAS, TOPICS, timestamp

__all__ = ["McapSink", "opener"]

_log = logging.getLogger(__name__)


def opener(address: str, context: SinkContext) -> Callable[[], McapSink]:
    """What opens ``mcap:FILE``.

    Raises:
        ConfigError: If no file is named.
    """
    path = address.partition(":")[2]
    if not path or path.startswith("//"):
        raise ConfigError(f"{address!r} names no file", hint="--publish mcap:drive.mcap")
    return functools.partial(McapSink, Path(path), context.spec, name=context.source)


class McapSink(Publisher):
    """Records every result: topics ``/rtda/...``, JSON messages with Foxglove's schemas, zstd-compressed chunks.

    Args:
        path: Replaced by :meth:`close` if it exists. Without a frame there is no file.

    Raises:
        FileAccessError: If the file cannot be written; then nothing is left under ``path``.
        MissingPackageError: If mcap is not installed.
    """

    name = "mcap"
    keeps = True
    _sends_at_once = False  # the disk may be slow

    def __init__(self, path: Path, spec: ModelSpec, *, name: str) -> None:
        super().__init__(spec, name)
        self.address = self.url = self.note = str(path)
        writer: Any = require("mcap.writer", extra="robotics", purpose="to write MCAP files")
        self._frames = 0
        self._file = FileInProgress(path)
        self._stream: BinaryIO = self._file.temporary.open("wb")
        self._writer: Any = writer.Writer(self._stream)
        self._writer.start(profile="", library="rtda-deploy")
        self._ids = {topic: self._register(topic) for topic in TOPICS}
        self._writer.add_metadata("rtda.spec", {"spec": spec.to_json(), "source": self._source})

    def write(self, result: Result) -> Mapping[str, float]:
        """Add a result.

        Raises:
            FileAccessError: If the disk is full; the file is given up and removed.
        """
        try:
            spent_ms = super().write(result)
        except OSError as err:
            raise self._failed(err) from err
        self._frames += 1
        return spent_ms

    def close(self) -> None:
        """Finish the file and give it its name. Calling it again only waits for the thread that closes already.

        Raises:
            FileAccessError: If the disk is full; then nothing is left under the name.
        """
        try:
            with self._lock:
                super().close()
        except OSError as err:
            raise self._failed(err) from err

    def _register(self, topic: str) -> int:
        name = SCHEMA_OF[topic]
        schema = self._writer.register_schema(name, "jsonschema", json.dumps(SCHEMAS[name]).encode())
        channel: int = self._writer.register_channel(f"/rtda/{topic}", "json", schema, {"source": self._source})
        return channel

    def _wanted(self, topic: str) -> bool:
        return True

    def _send_image(self, topic: str, stamp_ns: int, format_: str, content: bytes, result: Result) -> None:
        image = {
            "timestamp": timestamp(stamp_ns),
            "frame_id": FRAME_ID,
            "data": base64.b64encode(content).decode("ascii"),
            "format": format_,
        }
        self._add(topic, stamp_ns, image, result.sequence)

    def _send_json(self, topic: str, stamp_ns: int, values: Mapping[str, Any]) -> None:
        self._add(topic, stamp_ns, dict(values), int(values.get("sequence", 0)))

    def _send_state(self, stamp_ns: int, state: str, sentence: str) -> None:
        line = {
            "timestamp": timestamp(stamp_ns),
            "level": LOG_LEVELS.get(state, LOG_LEVELS["live"]),
            "message": f"{state}: {sentence}",
            "name": self._source,
            "file": "",
            "line": 0,
        }
        self._add("state", stamp_ns, line, 0)

    def _add(self, topic: str, stamp_ns: int, values: Dict[str, Any], sequence: int) -> None:
        content = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
        self._writer.add_message(self._ids[topic], stamp_ns, content, stamp_ns, sequence & 0xFFFFFFFF)

    def _end(self) -> None:
        if self._file.ended:
            return
        if not self._frames:
            self._close_stream()
            self._file.give_up_empty("recorded")
            return
        self._writer.finish()
        self._stream.close()
        self._file.complete()

    def _failed(self, err: OSError) -> FileAccessError:
        with self._lock:
            self._closed = True
            self._close_stream()
            return self._file.failed(err)

    def _close_stream(self) -> None:
        try:
            self._stream.close()
        except OSError as err:  # what was left in the buffer does not fit either
            _log.debug("closing %s: %s", self._file.path, err)
