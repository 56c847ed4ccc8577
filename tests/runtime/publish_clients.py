"""What listens to the publishing sinks in tests: a WebSocket client that speaks Foxglove's protocol, a Zenoh peer."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
from typing import Any, Dict, List, Tuple

import numpy as np
from patience import PATIENCE_S
from runtime.models import tiny_spec

from rtda_runtime import Result

_MESSAGE = 1  # opcode of "message data": subscription uint32, log time uint64, payload; little endian


def result(sequence: int = 0, *, captured_ns: int = 0, state: str = "live", seed: int = 0) -> Result:
    """A result of 96x64 whose mask has every class and some pixels of none."""
    rng = np.random.default_rng(seed + sequence)
    frame = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = rng.integers(0, 5, (64, 96), dtype=np.uint8)
    mask[:8] = 255
    timing = {"preprocess": 1.25, "infer": 7.5, "age": 12.0}
    return Result(frame, mask, captured_ns, sequence, 3, timing, tiny_spec(), state=state)


class FoxgloveClient:
    """Connects, and takes the topics of ``foxglove.sdk.v1`` that the server offers."""

    def __init__(self, url: str) -> None:
        from websockets.sync.client import connect

        self._stack = contextlib.ExitStack()
        opened = connect(url, subprotocols=["foxglove.sdk.v1"], open_timeout=PATIENCE_S, max_size=None)
        self._socket = self._stack.enter_context(opened)
        assert self._socket.subprotocol == "foxglove.sdk.v1"
        self.info: Dict[str, Any] = self._text("serverInfo")
        self.channels = {channel["topic"]: channel for channel in self._text("advertise")["channels"]}

    def subscribe(self, *topics: str) -> None:
        wanted = [{"id": self.channels[topic]["id"], "channelId": self.channels[topic]["id"]} for topic in topics]
        self._socket.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))

    def message(self) -> Tuple[str, int, bytes]:
        """Topic, log time and payload of the next message."""
        while True:
            content = self._socket.recv(timeout=PATIENCE_S)
            if isinstance(content, bytes) and content[0] == _MESSAGE:
                number, stamp_ns = struct.unpack_from("<IQ", content, 1)
                return self._topic(number), stamp_ns, content[13:]

    def messages(self, topic: str, count: int) -> List[Tuple[int, bytes]]:
        """The next ``count`` messages of one topic, others left out."""
        found: List[Tuple[int, bytes]] = []
        while len(found) < count:
            name, stamp_ns, payload = self.message()
            if name == topic:
                found.append((stamp_ns, payload))
        return found

    def close(self) -> None:
        self._stack.close()

    def _topic(self, number: int) -> str:
        return next(topic for topic, channel in self.channels.items() if channel["id"] == number)

    def _text(self, op: str) -> Dict[str, Any]:
        while True:
            content = self._socket.recv(timeout=PATIENCE_S)
            if isinstance(content, str) and json.loads(content)["op"] == op:
                found: Dict[str, Any] = json.loads(content)
                return found


def protobuf_fields(message: bytes) -> Dict[int, Any]:
    """Fields of a protobuf message: numbers as ``int``, everything else as ``bytes``; the last one of each counts."""
    fields: Dict[int, Any] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            fields[key >> 3], at = _varint(message, at)
        else:
            assert key & 7 == 2, f"wire type {key & 7}"
            size, at = _varint(message, at)
            fields[key >> 3], at = message[at : at + size], at + size
    return fields


def image_of_protobuf(message: bytes) -> Tuple[int, str, bytes]:
    """``foxglove.CompressedImage``: stamp in ns, format, data."""
    fields = protobuf_fields(message)
    return time_of_protobuf(fields[1]), fields[3].decode(), fields[2]


def time_of_protobuf(message: bytes) -> int:
    time = protobuf_fields(message)
    return int(time.get(1, 0)) * 1_000_000_000 + int(time.get(2, 0))


def _varint(message: bytes, at: int) -> Tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


class ZenohPeer:
    """A Zenoh session of its own that finds nobody by itself."""

    def __init__(self, endpoint: str, key: str) -> None:
        import zenoh

        config = zenoh.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("listen/endpoints", "[]")
        config.insert_json5("connect/endpoints", json.dumps([endpoint]))
        self._session = zenoh.open(config)
        self._samples: queue.Queue[Any] = queue.Queue()
        self._subscriber = self._session.declare_subscriber(key, self._samples.put)

    def sample(self) -> Any:
        return self._samples.get(timeout=PATIENCE_S)

    def samples(self, ending: str, count: int) -> List[Any]:
        """The next ``count`` samples whose key ends so, others left out."""
        found: List[Any] = []
        while len(found) < count:
            sample = self.sample()
            if str(sample.key_expr).endswith(ending):
                found.append(sample)
        return found

    def close(self) -> None:
        self._session.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
