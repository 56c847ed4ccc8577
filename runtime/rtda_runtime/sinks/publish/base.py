"""What the publishing sinks share: when each topic is sent, and the state of the camera between frames."""

from __future__ import annotations

import abc
import collections
import threading
import time
from typing import Any, Deque, Dict, List, Mapping, Sequence, Tuple
from urllib.parse import parse_qs, urlsplit

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.files import utf8_text
from rtda_deploy.masking import mask_password, mask_path
from rtda_deploy.spec import ModelSpec
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sinks.publish.messages import Messages

__all__ = ["Publisher", "query_options"]


def query_options(address: str, known: Sequence[str]) -> Dict[str, List[str]]:
    """The values of each option after ``?`` in the address of a publisher.

    Raises:
        ConfigError: If there are others than the known ones.
    """
    options = parse_qs(urlsplit(address).query, keep_blank_values=True)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"{mask_password(address)!r} has unknown options: {', '.join(unknown)}", hint=f"known: {', '.join(known)}"
        )
    return options


class Publisher(Sink):
    """A sink that sends the five topics of :mod:`rtda_runtime.sinks.publish.messages`.

    A topic without subscribers is not encoded, where the transport can tell. :meth:`write` is called by the sink's
    thread; :meth:`on_state` and :meth:`close` may be called by any.

    Attributes:
        address: Where it goes, for people and logs: ``ws://127.0.0.1:8765``, a key, a path.
        url: The same with the token, where one is needed; to be shown to the user, not logged.
    """

    address: str
    url: str
    _sends_at_once: bool = True  # False: sending may wait, so changes of state go with the next result

    def __init__(self, spec: ModelSpec, name: str) -> None:
        self._source = utf8_text(mask_path(name))  # a file's name may be no text
        self._messages = Messages(spec, self._source)
        self._lock = threading.RLock()  # held while sending
        self._state: Tuple[str, str] = ("live", "the camera is live")
        self._changes: Deque[Tuple[int, str, str]] = collections.deque()  # of the state: stamp, state, sentence
        self._greeted = False
        self._closed = False

    def write(self, result: Result) -> Mapping[str, float]:
        """Publish one result; gives the milliseconds for ``publish``.

        Raises:
            RtdaError: If the sink is closed, or the transport fails.
        """
        start = time.perf_counter_ns()
        with self._lock:
            if self._closed:
                raise RtdaError(f"{self.name} {self.address} is closed", hint="open a new publisher")
            messages, stamp_ns = self._messages, self._messages.stamp_ns(result)
            if not self._greeted:
                self._greet()
            if self._wanted("mask"):
                self._send_image("mask", stamp_ns, "png", messages.mask_png(result), result)
            if self._wanted("overlay"):
                self._send_image("overlay", stamp_ns, "jpeg", messages.overlay_jpeg(result), result)
            if self._wanted("statistics"):
                self._send_json("statistics", stamp_ns, messages.statistics(result))
            self._send_changes()
        if self._sends_at_once and self._changes:  # one that came while this thread held the lock
            self._try_to_send_changes()
        return {"publish": (time.perf_counter_ns() - start) / 1e6}

    def on_state(self, state: str, sentence: str) -> None:
        """Tell that the camera is now ``live``, ``stale`` or ``lost``; any thread, also while no frames come."""
        sentence = utf8_text(sentence)
        self._state = (state, sentence)
        self._changes.append((self._messages.now_ns(), state, sentence))
        if self._sends_at_once:
            self._try_to_send_changes()

    def _try_to_send_changes(self) -> None:
        """Does not wait: a thread that holds the lock sends the changes before or after it releases it."""
        while self._changes and self._lock.acquire(blocking=False):
            try:
                self._send_changes()
            finally:
                self._lock.release()

    def _send_changes(self) -> None:
        while self._changes:
            change = self._changes.popleft()
            if not self._closed:
                self._send_state(*change)

    def _greet(self) -> None:
        """Send labels and state, which do not come with each frame, to new subscribers."""
        with self._lock:
            if self._closed:
                return
            self._greeted = True
            now_ns = self._messages.now_ns()
            self._send_json("labels", now_ns, self._messages.labels())
            if not self._changes:
                self._send_state(now_ns, *self._state)

    def close(self) -> None:
        """End what is being published. Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            try:
                self._send_changes()
            finally:
                self._closed = True
        self._end()

    @abc.abstractmethod
    def _wanted(self, topic: str) -> bool:
        """Whether ``topic`` has subscribers."""

    @abc.abstractmethod
    def _send_image(self, topic: str, stamp_ns: int, format_: str, content: bytes, result: Result) -> None: ...

    @abc.abstractmethod
    def _send_json(self, topic: str, stamp_ns: int, values: Mapping[str, Any]) -> None: ...

    @abc.abstractmethod
    def _send_state(self, stamp_ns: int, state: str, sentence: str) -> None: ...

    @abc.abstractmethod
    def _end(self) -> None: ...
