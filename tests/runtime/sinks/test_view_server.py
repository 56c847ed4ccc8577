"""The view over real connections on 127.0.0.1: what it answers, whom it refuses, and what clients cannot do to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import struct
import threading
from typing import Any, Dict, Iterator, List, Tuple

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.fakes import NumpyEngine
from runtime.views import SPEC, Stream, View, read_all

from rtda_runtime import Pipeline, Segmenter
from rtda_runtime.sinks.view import ViewSink, address
from rtda_runtime.sinks.view.address import ViewAddress
from rtda_runtime.sinks.view.server import ViewLimits
from rtda_runtime.sources.synthetic import BarsSource


@pytest.fixture()
def view() -> Iterator[View]:
    made = View()
    yield made
    made.sink.close()


@contextlib.contextmanager
def opened(size_hw: Tuple[int, int] = (48, 64), **limits: Any) -> Iterator[View]:
    """A view with other limits than the usual ones."""
    made = View(size_hw, **limits)
    try:
        yield made
    finally:
        made.sink.close()


def _threads() -> List[str]:
    return sorted(thread.name for thread in threading.enumerate())


def _handles() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- what it serves


def test_the_page_needs_nothing_from_elsewhere(view: View) -> None:
    status, headers, page = view.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    names = re.findall(r'(?:href|src)="([^"#]+)"', page.decode())
    assert {"style.css", "script.js"} <= set(names)
    texts = [page.decode()]
    for name in names:
        if name.startswith("data:"):
            continue
        status, _, content = view.get(f"/{name}", "HEAD" if "stream" in name else "GET")
        assert status in (200, 503), name
        if name.endswith((".css", ".js")):
            texts.append(content.decode())
    outside = [link for text in texts for link in re.findall(r"(?:https?:)?//[a-z0-9.]+", text) if "." in link]
    assert set(outside) <= {"http://www.w3.org"}, "a name space, not an address"


def test_every_answer_forbids_what_browsers_could_be_talked_into(view: View) -> None:
    for path in ("/", "/stats.json", "/healthz", "/nothing"):
        _, headers, _ = view.get(path)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert not {"Server", "X-Powered-By", "Access-Control-Allow-Origin"} & set(headers)


def test_the_stream_moves_and_skips_to_the_newest(view: View) -> None:
    with view.moving():
        stream = Stream(view)
        assert "multipart/x-mixed-replace; boundary=rtda-frame" in stream.head
        sequences = []
        for _ in range(4):
            headers, jpeg = stream.part()
            sequences.append(int(headers["X-Sequence"]))
            assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
        stream.close()
    assert sequences == sorted(set(sequences))


def test_the_stream_of_a_camera_that_stands_still_says_so(view: View) -> None:
    view.write(3)
    stream = Stream(view)
    assert stream.part()[0]["X-State"] == "live"
    view.stats = {"state": "lost"}
    states = [stream.part()[0]["X-State"] for _ in range(3)]
    stream.close()
    assert states[-1] == "lost"


def test_opencv_reads_the_stream(view: View) -> None:
    with view.moving():
        reader = cv2.VideoCapture(f"http://127.0.0.1:{view.port}/stream.mjpg?mode=side", cv2.CAP_FFMPEG)
        read, picture = reader.read()
        reader.release()
    assert read
    assert picture.shape == (48, 128, 3)


@pytest.mark.parametrize(("name", "kind"), [("snapshot.png", "image/png"), ("snapshot.jpg", "image/jpeg")])
def test_snapshots_are_files_to_save(view: View, name: str, kind: str) -> None:
    assert view.get(f"/{name}")[0] == 503, "before the first frame"
    view.write(3)
    status, headers, content = view.get(f"/{name}?mode=side")
    assert (status, headers["Content-Type"]) == (200, kind)
    assert headers["Content-Disposition"] == f'attachment; filename="rtda-side-000002{name[-4:]}"'
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (48, 128, 3)


def test_healthz_is_green_only_while_frames_are_fresh(view: View) -> None:
    def health() -> Tuple[int, str]:
        status, _, content = view.get("/healthz")
        return status, json.loads(content)["state"]

    assert health() == (503, "waiting")
    with view.moving():
        view.until(lambda: health() == (200, "live"), "green")
    view.until(lambda: health() == (503, "stale"), "stale state")
    view.stats = {"state": "lost"}
    view.until(lambda: health() == (503, "lost"), "lost state")
    view.stats = {"state": "live"}
    with view.moving():
        view.until(lambda: health() == (200, "live"), "recovery")


def test_nothing_is_encoded_until_somebody_looks(view: View) -> None:
    view.write(100)
    assert view.report()["encoded"] == 0
    assert view.report()["frames"] == 100


def test_encoding_ends_when_the_last_one_looks_away(view: View) -> None:
    with view.moving():
        stream = Stream(view)
        stream.part()
        stream.close()
        view.until(lambda: view.report()["clients"] == 0, "end of the stream")
        before = view.report()["encoded"]
        frames = view.report()["frames"]
        view.until(lambda: bool(view.report()["frames"] > frames + 20), "frames")
        assert view.report()["encoded"] == before


def test_a_client_that_left_is_noticed_although_no_frame_comes(view: View) -> None:
    view.write()
    stream = Stream(view)
    stream.part()
    assert view.report()["clients"] == 1
    stream.close()
    view.until(lambda: view.report()["clients"] == 0, "end of the stream")


def test_connections_are_kept_and_head_has_no_body(view: View) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", view.port, timeout=PATIENCE_S)
    for method in ("GET", "HEAD", "GET"):
        connection.request(method, "/stats.json")
        answer = connection.getresponse()
        assert answer.status == 200
        assert bool(answer.read()) is (method == "GET")
        assert int(answer.headers["Content-Length"]) > 100
    first = connection.sock
    connection.request("GET", "/stats.json", headers={"Connection": "close"})
    connection.getresponse().read()
    assert first is not None
    connection.close()
    assert b"\r\nConnection: close\r\n" in view.raw(b"GET /stats.json HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize("path", ["/snapshot.png?mode=x", "/stream.mjpg?mode=x"])
def test_unknown_modes_are_refused_with_the_known_ones(view: View, path: str) -> None:
    view.write()
    status, _, content = view.get(path)
    assert status == 400
    assert b"overlay, mask, side, compare" in content


def test_a_second_model_that_is_not_there_is_not_shown(view: View) -> None:
    view.write()
    status, _, content = view.get("/stream.mjpg?mode=compare")
    assert status == 404
    assert b"--compare" in content


def test_statistics_that_raise_drop_no_connection(caplog: pytest.LogCaptureFixture) -> None:
    def stats() -> Dict[str, Any]:
        raise NameError("name 'pipeline' is not defined")

    view = View.of(ViewSink("127.0.0.1:0", SPEC, stats=stats, title="early"))
    try:
        assert view.get("/healthz")[0] == 503
        assert [view.report()["state"] for _ in range(2)] == ["waiting", "waiting"]
    finally:
        view.sink.close()
    assert caplog.text.count("no statistics: NameError") == 1


def test_a_pipeline_serves_its_results_and_ends_with_its_view() -> None:
    stats: Dict[str, Any] = {}
    sink = ViewSink("127.0.0.1:0", SPEC, stats=lambda: pipeline.stats if stats else {}, title="real")
    with Pipeline.open(Segmenter(NumpyEngine()), BarsSource(fps=100, size_wh=(96, 64)), sinks=[sink]) as pipeline:
        stats["known"] = True
        view = View.of(sink)
        for result in pipeline:
            if view.report()["frames"] > 5 and result.sequence > 20:
                break
        report = view.report()
        assert (report["state"], report["provider"], report["size"]) == ("live", "cpu", [96, 64])
        assert set(report["stages_ms"]) >= {"preprocess", "infer", "postprocess"}
        assert sum(row["share"] for row in report["classes"]) == pytest.approx(1.0, abs=1e-4)
        stream = Stream(view)
        assert stream.part()[0]["X-State"] == "live"
        assert "rtda-view" in _threads()
    assert not [name for name in _threads() if name.startswith("rtda-")]
    stream.close()


# ---- whom it refuses


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("192.168.1.20", 403),
        ("", 403),
        ("a b", 403),
    ],
)
def test_names_that_were_pointed_here_are_refused(view: View, host: str, status: int) -> None:
    for path in ("/", "/stats.json", "/script.js"):
        assert view.get(path, headers={"Host": host})[0] == status


def test_a_title_that_is_no_text_is_spelled_out() -> None:
    with ViewSink("127.0.0.1:0", SPEC, title="caf\udce9.mp4") as sink:
        status, _, content = View.of(sink).get("/stats.json")
    assert status == 200 and json.loads(content)["title"] == "caf\udce9.mp4"


def test_a_title_keeps_its_secret() -> None:
    with ViewSink("127.0.0.1:0", SPEC, title="rtsp://me:secret@host/1") as sink:
        assert json.loads(View.of(sink).get("/stats.json")[2])["title"] == "rtsp://***@host/1"


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), ("null", 403), ("http://[::1]:9", 200)])
def test_pages_of_other_sites_get_nothing(view: View, origin: str, status: int) -> None:
    assert view.get("/stats.json", headers={"Host": "localhost", "Origin": origin})[0] == status


def test_other_sites_may_link_to_the_page_but_not_show_its_pictures(view: View) -> None:
    view.write()
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert view.get("/", headers=cross)[0] == 200
    for path in ("/stream.mjpg", "/snapshot.png", "/stats.json"):
        assert view.get(path, headers=cross)[0] == 403
    assert view.get("/snapshot.png", headers={"Sec-Fetch-Site": "same-origin"})[0] == 200


@pytest.fixture()
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[View]:
    """A view as on 0.0.0.0, that listens on 127.0.0.1 all the same."""
    monkeypatch.setattr(
        "rtda_runtime.sinks.view.sink.parse_address", lambda text: ViewAddress("0.0.0.0", 0) if text else None
    )
    monkeypatch.setattr("rtda_runtime.sinks.view.sink.listen", lambda _: address.listen(ViewAddress("127.0.0.1", 0)))
    made = View()
    yield made
    made.sink.close()


def _token(view: View) -> str:
    return view.sink.url.partition("?token=")[2]


PATHS = ("/", "/style.css", "/script.js", "/stats.json", "/snapshot.png", "/snapshot.jpg", "/stream.mjpg", "/nothing")


def test_without_the_token_nothing_is_shown(guarded: View) -> None:
    guarded.write()
    token = _token(guarded)
    assert len(token) >= 32
    for path in PATHS:
        for query in ("", "?token=", "?token=wrong", f"?token={token[:-1]}", f"?token={token}x", "?token=%ff"):
            status, headers, content = guarded.get(path + query)
            assert status == 403, path + query
            assert "Set-Cookie" not in headers
            assert token.encode() not in content
        assert guarded.get(path, headers={"Cookie": "rtda_view=x; a"})[0] == 403
    assert guarded.get("/healthz")[0] == 200, "says nothing but the state, so a watchdog needs no token"


def test_the_token_in_the_address_becomes_a_cookie(guarded: View) -> None:
    guarded.write()
    status, headers, _ = guarded.get(f"/?token={_token(guarded)}")
    assert status == 200
    cookie = headers["Set-Cookie"]
    assert re.fullmatch(rf"rtda_view_{guarded.port}=[\w-]{{32,}}; Path=/; HttpOnly; SameSite=Strict", cookie)
    pair = cookie.partition(";")[0]
    assert guarded.get("/stats.json", headers={"Cookie": f"other=1; {pair}", "Host": "robot.local"})[0] == 200
    assert guarded.get("/stats.json", headers={"Cookie": pair + "x"})[0] == 403


def test_each_view_has_a_token_of_its_own(guarded: View) -> None:
    other = View()
    other.sink.close()
    assert _token(other) != _token(guarded)


def test_the_token_is_never_logged(guarded: View, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        guarded.get(f"/stats.json?token={_token(guarded)}")
        guarded.get(f"/nothing?token={_token(guarded)}")
        guarded.raw(f"POST /?token={_token(guarded)} HTTP/1.1\r\n\r\n".encode())
        guarded.sink.close()
    assert "/stats.json" in caplog.text
    assert _token(guarded) not in caplog.text


def test_on_loopback_there_is_no_token(view: View) -> None:
    assert view.sink.url == f"http://127.0.0.1:{view.port}/"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"DELETE /stats.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /?" + b"&".join(b"a=1" for _ in range(500)) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", 431),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /server.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    ],
)
def test_what_is_no_proper_request_gets_its_status(view: View, content: bytes, status: int) -> None:
    if status == 404:
        content = content.replace(b"Host: localhost\r\n\r\n", b"Host: localhost\r\nConnection: close\r\n\r\n")
    answer = view.raw(content)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:60]
    if status == 405:
        assert b"\r\nAllow: GET, HEAD\r\n" in answer
    assert view.get("/healthz")[0] == 503, "and the view goes on"


@pytest.mark.parametrize("content", [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: loc"])
def test_half_a_request_is_given_up(content: bytes) -> None:
    with opened(first_s=0.1, idle_s=3600.0) as view, view.connect() as made:
        made.sendall(content)
        assert read_all(made) == b""


def test_a_request_that_comes_byte_by_byte_is_given_up() -> None:
    with opened(first_s=0.3, idle_s=3600.0) as view, view.connect() as made, pytest.raises(OSError):
        while True:
            made.sendall(b"G")
            made.settimeout(0.01)
            with contextlib.suppress(socket.timeout):
                if not made.recv(1):
                    raise ConnectionResetError


def test_an_idle_connection_is_given_up() -> None:
    with opened(first_s=3600.0, idle_s=0.1) as view:
        answer = view.raw(b"GET /stats.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in answer


# ---- what clients cannot do to it


def test_a_client_that_never_reads_costs_nobody_anything() -> None:
    view = View(size_hw=(480, 640))  # noise: hundreds of kilobytes as JPEG
    try:
        with view.moving(), view.connect(receive_buffer=4096) as silent:
            silent.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            stream = Stream(view, "/stream.mjpg?mode=mask")
            seen = [int(stream.part()[0]["X-Sequence"]) for _ in range(25)]
            stream.close()
            assert seen == sorted(set(seen))
            view.until(lambda: view.report()["clients"] == 1, "end of the stream that was read")
            before, frames = view.report()["encoded"], view.report()["frames"]
            view.until(lambda: bool(view.report()["frames"] > frames + 20), "frames")
            assert view.report()["encoded"] == before, "nothing is drawn for the one that does not read"
    finally:
        view.sink.close()


def test_a_client_that_never_reads_is_given_up() -> None:
    with opened(size_hw=(480, 640), send_s=0.3) as view, view.moving(), view.connect(receive_buffer=4096) as silent:
        silent.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        view.until(lambda: view.report()["encoded"] >= 1, "a first picture")
        view.until(lambda: view.report()["clients"] == 0, "end of the silent client")


def test_a_slow_client_gets_newer_pictures_not_all_of_them() -> None:
    view = View(size_hw=(480, 640))
    try:
        with view.moving(every_s=0.02):
            stream = Stream(view)
            stream.part()
            view.until(lambda: bool(view.report()["frames"] > 150), "frames while it does not read")
            sequences = [int(stream.part()[0]["X-Sequence"]) for _ in range(12)]
            stream.close()
        assert max(np.diff(sequences)) > 20, "it jumps ahead"
    finally:
        view.sink.close()


def test_fifty_clients_that_come_and_vanish_leave_nothing(view: View) -> None:
    view.write()
    view.until(lambda: "rtda-view-client" not in _threads(), "a view that nobody asks")
    handles = _handles()
    requests = (b"", b"GET /str", b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n")
    with view.moving():
        for number in range(50):
            made = view.connect()
            made.sendall(requests[number % 4])
            if number % 3 == 0:  # as when a cable is pulled and the system resets
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.close()
        view.until(lambda: _handles() <= handles, "end of the connections")
        view.until(lambda: view.report()["clients"] == 0, "end of the streams")
    view.until(lambda: "rtda-view-client" not in _threads(), "end of their threads")
    view.until(lambda: _handles() <= handles, "closed handles")


def test_there_is_a_limit_on_clients_and_it_is_told() -> None:
    with opened(clients=4) as view, contextlib.ExitStack() as held:
        view.write()
        for _ in range(4):
            held.callback(Stream(view).close)
        for path in ("/", "/stats.json", "/stream.mjpg"):
            status, headers, content = view.get(path)
            assert (status, headers["Retry-After"]) == (429, "5")
            assert b"too many" in content
        assert "state" in json.loads(view.get("/healthz")[2]), "a watchdog is answered all the same"
        held.close()
        view.until(lambda: view.get("/")[0] == 200, "room")


def test_strangers_who_say_nothing_or_have_no_token_take_nobodys_place(guarded: View) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(ViewLimits().clients + 6):
            held.enter_context(guarded.connect())
            refused = held.enter_context(guarded.connect())
            refused.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: robot\r\n\r\n")
        with guarded.moving():
            guarded.until(lambda: guarded.get("/healthz")[0] == 200, "green")
            assert guarded.get(f"/?token={_token(guarded)}")[0] == 200


def test_beyond_the_limit_the_connection_that_was_silent_for_longest_is_dropped() -> None:
    with opened(connections=8, first_s=3600.0) as view, contextlib.ExitStack() as held:
        view.write()
        stream = Stream(view)
        held.callback(stream.close)
        stream.part()
        silent = [held.enter_context(view.connect()) for _ in range(10)]
        assert [read_all(made) for made in silent[:3]] == [b"", b"", b""]
        newest = silent[-1]
        newest.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read_all(newest).startswith(b"HTTP/1.1 ")
        view.write()
        assert stream.part(), "who is being answered is not dropped"


# ---- the end


def test_close_ends_streams_threads_and_the_port(view: View) -> None:
    assert "rtda-view-http" in _threads()
    view.write()
    stream, idle = Stream(view), view.connect()
    stream.part()
    view.sink.close()
    view.sink.close()
    assert "rtda-view-http" not in _threads()
    with contextlib.suppress(ConnectionResetError):
        assert stream.ended()
    assert read_all(idle) == b""
    stream.close()
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        view.connect()
    again = ViewSink(f"127.0.0.1:{view.port}", SPEC, stats=dict)
    again.close()
    view.write()  # a result that was on its way does no harm


def test_close_does_not_wait_for_a_client_that_never_reads() -> None:
    view = View(size_hw=(480, 640))
    with view.moving(), view.connect(receive_buffer=4096) as silent:
        silent.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        view.until(lambda: view.report()["encoded"] >= 1, "a picture")
        view.sink.close()
        assert "rtda-view-http" not in _threads()


def test_close_hangs_up_on_those_who_came_a_moment_ago() -> None:
    view = View()
    came = [view.connect() for _ in range(20)]
    view.sink.close()
    for made in came:
        assert read_all(made) == b""
        made.close()


def test_two_views_in_one_process_do_not_mix(view: View) -> None:
    other = View()
    try:
        other.write(3)
        assert (view.report()["frames"], other.report()["frames"]) == (0, 3)
    finally:
        other.sink.close()
