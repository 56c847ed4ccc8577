"""What may be typed after --view, who can look then, and what is said where it cannot listen."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Iterator

import pytest

from rtda_deploy.errors import ConfigError, DeviceError
from rtda_runtime.sinks.view.address import ViewAddress, listen, parse_address, view_url


@pytest.fixture()
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("typed", "host", "port", "loopback"),
    [
        ("auto", "127.0.0.1", 8080, True),
        (":8080", "127.0.0.1", 8080, True),
        (":9000", "127.0.0.1", 9000, True),
        ("http://:9000/", "127.0.0.1", 9000, True),
        ("localhost:9000", "127.0.0.1", 9000, True),
        ("127.0.0.1", "127.0.0.1", 8080, True),
        ("127.3.2.1:1", "127.3.2.1", 1, True),
        ("[::1]:8080", "::1", 8080, True),
        ("[::1]", "::1", 8080, True),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False),
        ("[::]:8080", "::", 8080, False),
        ("192.168.1.20:8080", "192.168.1.20", 8080, False),
        ("192.168.1.20", "192.168.1.20", 8080, False),
    ],
)
def test_addresses_mean_what_people_type(typed: str, host: str, port: int, loopback: bool) -> None:
    address = parse_address(typed)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)
    assert address.search is (typed == "auto")


@pytest.mark.parametrize(
    "typed",
    ["", ":", "8080", ":x", ":-1", ":70000", "http://", "https://:8080", "1.2.3.4:5:6", "[::1", "a b:1", "ftp:"],
)
def test_what_is_no_address_is_refused_with_examples(typed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(typed)
    assert caught.value.exit_code == 2
    assert "--view :" in caught.value.hint


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no machine is called"):
        parse_address("no-such-robot.invalid:8080")


def test_a_typed_port_that_is_taken_is_an_error_that_says_how_to_see_who_has_it(taken: int) -> None:
    with pytest.raises(DeviceError, match=f"127.0.0.1:{taken}") as caught:
        listen(parse_address(f":{taken}"))
    assert caught.value.exit_code == 3
    assert "--view auto" in caught.value.hint and f"ss -ltnp 'sport = :{taken}'" in caught.value.hint


def test_auto_takes_the_next_free_port(taken: int) -> None:
    with listen(ViewAddress("127.0.0.1", taken, search=True)) as made:
        port = made.getsockname()[1]
        assert port > taken
        with listen(ViewAddress("127.0.0.1", taken, search=True)) as next_one:
            assert next_one.getsockname()[1] > port


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(DeviceError, match="does not have that address") as caught:
        listen(ViewAddress("192.0.2.55", 8080))
    assert "0.0.0.0" in caught.value.hint


def test_a_failed_attempt_leaves_no_socket_open(taken: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.suppress(DeviceError):
        listen(ViewAddress("127.0.0.1", taken))
    assert len(os.listdir("/proc/self/fd")) == before


def test_urls_are_ones_that_a_browser_opens() -> None:
    assert view_url(ViewAddress("127.0.0.1", 0), 8080, "") == "http://127.0.0.1:8080/"
    assert view_url(ViewAddress("::1", 0), 8080, "") == "http://[::1]:8080/"
    assert view_url(ViewAddress("192.168.1.20", 0), 80, "abc") == "http://192.168.1.20:80/?token=abc"
    for everywhere in ("0.0.0.0", "::"):
        assert "0.0.0.0" not in view_url(ViewAddress(everywhere, 0), 8080, "abc"), "others could not open that"


def test_ipv6_loopback_listens() -> None:
    try:
        probe = socket.socket(socket.AF_INET6)
        probe.bind(("::1", 0))
        probe.close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listen(parse_address("[::1]:0")) as made:
        assert made.family == socket.AF_INET6
