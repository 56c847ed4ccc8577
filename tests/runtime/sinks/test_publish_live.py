from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.models import tiny_spec
from runtime.publish_clients import (
    FoxgloveClient,
    ZenohPeer,
    free_port,
    image_of_protobuf,
    protobuf_fields,
    result,
    time_of_protobuf,
)

from rtda_deploy.errors import ConfigError, DeviceError
from rtda_runtime import Result
from rtda_runtime.sinks.publish import Publisher, open_publisher

_TOPICS = ["/rtda/labels", "/rtda/mask", "/rtda/overlay", "/rtda/state", "/rtda/statistics"]


def _needs_foxglove() -> None:
    if sys.version_info < (3, 10):
        pytest.skip("foxglove-sdk needs Python 3.10")
    pytest.importorskip("foxglove", reason="foxglove-sdk is not installed")


def _needs_zenoh() -> None:
    if sys.version_info < (3, 9):
        pytest.skip("eclipse-zenoh needs Python 3.9")
    pytest.importorskip("zenoh", reason="eclipse-zenoh is not installed")


def _resident_b() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _picture(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def _until_wanted(sink: Publisher, *topics: str) -> None:
    """A subscription crosses a socket; it is there when the sink knows of it."""
    wait_for(lambda: all(sink._wanted(topic) for topic in topics), f"a subscription to {topics}")


# --- Foxglove ---


@pytest.fixture()
def foxglove() -> Iterator[Publisher]:
    _needs_foxglove()
    pytest.importorskip("websockets", reason="the test's client needs websockets")
    with open_publisher("foxglove://127.0.0.1:0", tiny_spec(), name="front") as sink:
        yield sink


@pytest.fixture()
def client(foxglove: Publisher) -> Iterator[FoxgloveClient]:
    one = FoxgloveClient(foxglove.address)
    yield one
    one.close()


def test_foxglove_is_offered_five_topics_that_it_can_show(foxglove: Publisher, client: FoxgloveClient) -> None:
    assert client.info["name"] == "rtda-deploy front"
    assert sorted(client.channels) == _TOPICS
    offered = {topic: (one["schemaName"], one["encoding"]) for topic, one in client.channels.items()}
    assert offered["/rtda/mask"] == offered["/rtda/overlay"] == ("foxglove.CompressedImage", "protobuf")
    assert offered["/rtda/state"] == ("foxglove.Log", "protobuf")
    assert offered["/rtda/statistics"] == ("rtda.Statistics", "json")
    assert json.loads(client.channels["/rtda/labels"]["schema"])["title"] == "rtda.Labels"


def test_foxglove_gets_masks_bit_for_bit_with_their_stamps(foxglove: Publisher, client: FoxgloveClient) -> None:
    client.subscribe("/rtda/mask")
    _until_wanted(foxglove, "mask")
    given = [result(number, captured_ns=time.perf_counter_ns() + number * 33_333_333) for number in range(5)]
    for one in given:
        foxglove.write(one)
    masks = client.messages("/rtda/mask", 5)
    offset_ns = masks[0][0] - given[0].captured_ns
    for one, (log_ns, payload) in zip(given, masks):
        stamp_ns, format_, content = image_of_protobuf(payload)
        assert stamp_ns == log_ns == one.captured_ns + offset_ns
        assert format_ == "png" and np.array_equal(_picture(content), one.mask)


def test_foxglove_gets_overlay_and_statistics_of_the_same_frame(foxglove: Publisher, client: FoxgloveClient) -> None:
    client.subscribe("/rtda/overlay", "/rtda/statistics")
    _until_wanted(foxglove, "overlay", "statistics")
    foxglove.write(result(4, captured_ns=time.perf_counter_ns()))
    found = {topic: (log_ns, payload) for topic, log_ns, payload in (client.message() for _ in range(2))}
    assert found["/rtda/overlay"][0] == found["/rtda/statistics"][0]
    _, format_, content = image_of_protobuf(found["/rtda/overlay"][1])
    assert format_ == "jpeg" and _picture(content).shape == (64, 96, 3)
    values = json.loads(found["/rtda/statistics"][1])
    assert values["sequence"] == 4 and values["unlabelled"] == 0.125


def test_foxglove_clients_that_come_late_still_get_labels_and_state(foxglove: Publisher) -> None:
    foxglove.write(result())
    foxglove.on_state("lost", "front: cable pulled")  # and no frame comes any more
    client = FoxgloveClient(foxglove.address)
    client.subscribe("/rtda/labels", "/rtda/state")
    _, labels = client.messages("/rtda/labels", 1)[0]
    assert json.loads(labels)["classes"][0] == {"index": 0, "name": "road", "color": [128, 64, 128]}
    client.close()
    other = FoxgloveClient(foxglove.address)
    other.subscribe("/rtda/state")
    log_ns, payload = other.messages("/rtda/state", 1)[0]
    fields = protobuf_fields(payload)
    assert (fields[2], fields[3], fields[4]) == (4, b"lost: front: cable pulled", b"front")
    assert time_of_protobuf(fields[1]) == log_ns
    other.close()


def test_foxglove_never_waits_for_a_result_that_is_being_sent(foxglove: Publisher, client: FoxgloveClient) -> None:
    client.subscribe("/rtda/labels")
    client.messages("/rtda/labels", 1)
    with foxglove._lock:  # as while a picture is encoded
        server = threading.Thread(target=foxglove._welcome, args=("/rtda/labels",), daemon=True)
        server.start()
        server.join(PATIENCE_S)
        assert not server.is_alive(), "the server's thread waited"
    foxglove.write(result())
    client.messages("/rtda/labels", 1)


def test_foxglove_hears_at_once_when_the_camera_is_lost(foxglove: Publisher, client: FoxgloveClient) -> None:
    client.subscribe("/rtda/state")
    assert protobuf_fields(client.messages("/rtda/state", 1)[0][1])[3] == b"live: the camera is live"
    foxglove.on_state("lost", "front: no frame for 2 s")
    assert protobuf_fields(client.messages("/rtda/state", 1)[0][1])[3] == b"lost: front: no frame for 2 s"


def test_a_foxglove_client_that_never_reads_holds_nobody_up(foxglove: Publisher) -> None:
    """200 pictures of 3 MB are far more than what sockets and queues hold: waiting for the client would never end."""
    client = FoxgloveClient(foxglove.address)
    client.subscribe("/rtda/mask")
    _until_wanted(foxglove, "mask")
    content = bytes(3_000_000)
    before_b = _resident_b()
    one = result()
    done = threading.Event()

    def send() -> None:
        for number in range(200):
            foxglove._send_image("mask", number, "png", content, one)
        done.set()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert done.wait(PATIENCE_S), "the client that never reads stopped the sender"
    sender.join()
    assert _resident_b() - before_b < 300_000_000  # a few are kept for it; all would be 600 MB
    client._socket.socket.close()


def test_a_port_that_is_taken_is_told_with_a_way_out() -> None:
    _needs_foxglove()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"cannot serve Foxglove on 127.0.0.1:{port}") as caught:
            open_publisher(f"foxglove://127.0.0.1:{port}", tiny_spec(), name="x")
    assert "in use" in caught.value.why and "foxglove://127.0.0.1:0" in caught.value.hint


def test_a_closed_foxglove_server_gives_its_port_back(foxglove: Publisher) -> None:
    port = int(foxglove.address.rpartition(":")[2])
    client = FoxgloveClient(foxglove.address)
    foxglove.close()
    foxglove.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()
    client.close()


def _answer(port: int, *headers: str, path: str = "/") -> int:
    """The status that a handshake with these headers gets."""
    lines = [f"GET {path} HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: foxglove.sdk.v1", *headers]
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as made:
        made.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(made.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8765", "", 101),  # a program
        ("localhost:8765", "https://app.foxglove.dev", 101),
        ("localhost:8765", "file://", 101),  # Foxglove's own program
        ("localhost:8765", "http://localhost:8080", 101),  # a page that this machine serves
        ("localhost:8765", "https://lichtblick.example.org", 101),  # was named
        ("localhost:8765", "https://evil.example", 403),
        ("localhost:8765", "https://app.foxglove.dev.evil.example", 403),
        ("localhost:8765", "http://app.foxglove.dev", 403),
        ("localhost:8765", "null", 403),
        ("evil.example:8765", "", 403),  # its name leads here now
        ("192.0.2.1:8765", "", 403),
    ],
)
def test_no_page_of_another_site_reads_the_camera(shared_foxglove: int, host: str, origin: str, status: int) -> None:
    assert _answer(shared_foxglove, f"Host: {host}", *([f"Origin: {origin}"] if origin else [])) == status


@pytest.fixture(scope="module")
def shared_foxglove() -> Iterator[int]:
    _needs_foxglove()
    uri = "foxglove://127.0.0.1:0?origin=https://lichtblick.example.org"
    with open_publisher(uri, tiny_spec(), name="front") as sink:
        yield int(sink.address.rpartition(":")[2])


def test_a_refused_page_is_told_with_what_lets_it_in(foxglove: Publisher, caplog: Any) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    for _ in range(2):
        with pytest.raises(InvalidStatus):
            connect(foxglove.address, origin="https://evil.example", open_timeout=PATIENCE_S)  # type: ignore[arg-type]
    name = foxglove.address.replace("ws", "foxglove")
    said = (
        f"{name}: a page of 'https://evil.example' was not let in; {name}?origin=https://evil.example lets its pages in"
    )
    assert caplog.text.count(said) == 1


def test_the_server_behind_the_gate_is_at_no_address_that_a_page_can_guess(foxglove: Any) -> None:
    host, port = foxglove._gate._inner
    assert host.startswith("127.") and host != "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), PATIENCE_S)


def test_who_is_elsewhere_needs_the_token() -> None:
    _needs_foxglove()
    with open_publisher("foxglove://0.0.0.0:0", tiny_spec(), name="front") as sink:
        port, query = int(sink.address.rpartition(":")[2]), sink.url.partition("/?")[2]
        assert query.startswith("token=") and "token" not in sink.address
        origin = "Origin: https://whatever.example"
        assert _answer(port, "Host: robot.local", origin, path=f"/?{query}") == 101
        assert _answer(port, "Host: robot.local", origin, path=f"/?{query[:-1]}") == 403
        assert _answer(port, "Host: localhost", path="/") == 403


# --- Zenoh ---


@pytest.fixture()
def zenoh() -> Iterator[Publisher]:
    _needs_zenoh()
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    with open_publisher(f"zenoh://robot/front?listen={endpoint}", tiny_spec(), name="front") as sink:
        sink.endpoint = endpoint  # type: ignore[attr-defined]
        yield sink


@pytest.fixture()
def peer(zenoh: Any) -> Iterator[ZenohPeer]:
    one = ZenohPeer(zenoh.endpoint, "robot/front/**")
    yield one
    one.close()


def test_zenoh_gets_masks_bit_for_bit_with_their_stamps(zenoh: Publisher, peer: ZenohPeer) -> None:
    _until_wanted(zenoh, "mask", "overlay", "statistics")
    given: List[Result] = [result(number, captured_ns=1000 + number) for number in range(5)]
    for one in given:
        zenoh.write(one)
    samples = peer.samples("/mask", 5)
    headers = [json.loads(sample.attachment.to_bytes()) for sample in samples]
    offset_ns = headers[0]["stamp_ns"] - given[0].captured_ns
    for one, sample, header in zip(given, samples, headers):
        assert str(sample.key_expr) == "robot/front/mask" and str(sample.encoding) == "image/png"
        assert header["stamp_ns"] == one.captured_ns + offset_ns and header["captured_ns"] == one.captured_ns
        assert header["sequence"] == one.sequence and header["size_wh"] == [96, 64]
        assert len(header["spec_sha256"]) == 64
        assert np.array_equal(_picture(sample.payload.to_bytes()), one.mask)


def test_zenoh_gets_everything_of_one_frame(zenoh: Publisher, peer: ZenohPeer) -> None:
    _until_wanted(zenoh, "mask", "overlay", "statistics")
    zenoh.write(result(9))
    found = {}
    while len(found) < 5:
        sample = peer.sample()
        found[str(sample.key_expr).rpartition("/")[2]] = sample
    assert sorted(found) == ["labels", "mask", "overlay", "state", "statistics"]
    stamps = {json.loads(found[topic].attachment.to_bytes())["stamp_ns"] for topic in ("mask", "overlay", "statistics")}
    assert len(stamps) == 1
    assert str(found["overlay"].encoding) == "image/jpeg"
    assert _picture(found["overlay"].payload.to_bytes()).shape == (64, 96, 3)
    assert json.loads(found["statistics"].payload.to_bytes())["sequence"] == 9
    assert json.loads(found["labels"].payload.to_bytes())["classes"][4]["name"] == "vegetation"


def test_zenoh_peers_that_come_late_hear_of_labels_and_state(zenoh: Any) -> None:
    zenoh.on_state("lost", "front: cable pulled")  # before anybody listens, and no frame comes
    peer = ZenohPeer(zenoh.endpoint, "robot/front/**")
    (state,) = peer.samples("/state", 1)
    assert json.loads(state.payload.to_bytes()) == {
        "state": "lost",
        "message": "front: cable pulled",
        "source": "front",
    }
    assert json.loads(peer.samples("/labels", 1)[0].payload.to_bytes())["source"] == "front"
    peer.close()


def _reachable() -> List[str]:
    """The addresses of this process's TCP and UDP sockets that others could reach."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in links and fields[3] in ("0A", "07"):  # listens; for UDP: not connected
                host = fields[1].partition(":")[0]
                if not (host.endswith("7F") if len(host) == 8 else host == "0" * 24 + "01000000"):
                    found.append(f"{table} {fields[1]}")
    return found


def test_zenoh_by_itself_is_reached_by_peers_here_and_nobody_else() -> None:
    _needs_zenoh()
    before = _reachable()
    with open_publisher("zenoh://robot/here", tiny_spec(), name="front") as sink:
        assert sink.url.startswith("zenoh robot/here/** at tcp/127.0.0.1:74")
        assert [one for one in _reachable() if one not in before] == []
        peer = ZenohPeer(sink.url.rpartition(" ")[2], "robot/here/**")
        assert json.loads(peer.samples("/labels", 1)[0].payload.to_bytes())["source"] == "front"
        peer.close()


def test_nothing_is_encoded_while_no_zenoh_peer_listens(zenoh: Publisher) -> None:
    assert not any(zenoh._wanted(topic) for topic in ("mask", "overlay", "statistics"))


def test_closing_zenoh_ends_its_threads(zenoh: Publisher) -> None:
    assert "rtda-zenoh-labels" in {thread.name for thread in threading.enumerate()}
    zenoh.close()
    zenoh.close()
    assert "rtda-zenoh-labels" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("uri", "kind", "said"),
    [
        ("zenoh://a//b?scouting=off", ConfigError, "no Zenoh key"),
        ("zenoh://a?scouting=off&listen=somewhere", ConfigError, "refuses this configuration"),
        ("zenoh://a?config=missing.json5", ConfigError, "refuses this configuration"),
        ("zenoh://a?network=on&scouting=off&listen=tcp/192.0.2.1:7447", DeviceError, "cannot listen or connect"),
    ],
)
def test_what_zenoh_refuses_is_told_in_its_words(uri: str, kind: type, said: str) -> None:
    _needs_zenoh()
    with pytest.raises(kind, match=said) as caught:
        open_publisher(uri, tiny_spec(), name="x")
    assert caught.value.why and ".rs" not in caught.value.why and caught.value.hint
