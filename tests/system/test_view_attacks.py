"""Hundreds of hostile connections at once: the loop keeps its rate, watchdogs are answered, nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from typing import Iterator, List

import pytest
from runtime.views import View

from rtda_runtime.sinks.view.server import ViewLimits

pytestmark = pytest.mark.system

SLOW_HEADERS, SILENT, UNREAD = 300, 500, 80
_STREAM = b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _memory_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def _attack(view: View) -> Iterator[List[socket.socket]]:
    """Connections that say nothing, that send a byte of a header now and then, and that never read their stream."""
    stop = threading.Event()
    with contextlib.ExitStack() as held:
        unread = [held.enter_context(view.connect(receive_buffer=4096)) for _ in range(UNREAD)]
        for made in unread:
            made.sendall(_STREAM)
        slow = [held.enter_context(view.connect()) for _ in range(SLOW_HEADERS)]

        def trickle() -> None:
            while not stop.wait(0.2):
                for made in slow:
                    with contextlib.suppress(OSError):
                        made.send(b"G")

        thread = threading.Thread(target=trickle)
        thread.start()
        held.callback(thread.join)
        held.callback(stop.set)
        yield [*unread, *slow, *(held.enter_context(view.connect()) for _ in range(SILENT))]


def test_hundreds_of_hostile_connections_cost_watchdogs_nothing_and_end_with_the_view() -> None:
    view = View(size_hw=(240, 320))
    view.write()
    assert view.get("/healthz")[0] == 200
    threads, handles, memory_mb = threading.active_count(), len(os.listdir("/proc/self/fd")), _memory_mb()
    with _attack(view) as attackers:
        for _ in range(5):
            view.write(20)
            assert "state" in json.loads(view.get("/healthz")[2]), "a watchdog is answered"
        assert threading.active_count() < threads + ViewLimits().connections + ViewLimits().clients
        assert _memory_mb() < memory_mb + 200
        view.sink.close()
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("rtda-view")]
        assert len(os.listdir("/proc/self/fd")) < handles + len(attackers) + 1, "the view's own sides are closed"
