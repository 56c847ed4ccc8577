"""Passwords as people type them, and what the server gets."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from runtime.streams import byte_server, jpeg

from rtda_runtime.sources import open_source
from rtda_runtime.sources.ffmpeg import escape_login


@pytest.mark.parametrize(
    ("typed", "login"),
    [
        ("user:a/b@{}", "user:a/b"),
        ("user:a#b@{}", "user:a#b"),
        ("user:a?b@{}", "user:a?b"),
        ("user:se:c@r/e?t#1@{}", "user:se:c@r/e?t#1"),
        ("user:12/34@{}", "user:12/34"),
        ("me@mail.com:a/b@{}", "me@mail.com:a/b"),
        ("user:a%41b@{}", "user:a%41b"),
        ("user:100%@{}", "user:100%"),
        ("user:p%40ss%2F@{}", "user:p@ss/"),
        ('user:it\'s "x"@{}', 'user:it\'s "x"'),
        (":secret@{}", ":secret"),
    ],
)
def test_the_server_gets_the_password_that_was_typed(typed: str, login: str) -> None:
    picture = jpeg(np.full((48, 64, 3), 90, np.uint8))
    with byte_server([picture], login=login) as host, open_source(f"http://{typed.format(host)}/cam?fps=5") as source:
        assert source.size_wh == (64, 48)


@settings(deadline=None)
@given(password=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x17F), min_size=1))
@example("%")
@example("a@b/c@d")
@example("x?y=z")
def test_any_password_before_an_address_with_a_port_is_one(password: str) -> None:
    parts = urlsplit(escape_login(f"rtsp://user:{password}@10.0.0.2:554/1"))
    assert (parts.hostname, parts.port, parts.path) == ("10.0.0.2", 554, "/1")
    if "%" not in password:
        assert unquote(parts.password or "") == password


@pytest.mark.parametrize(
    "address",
    ["rtsp://host/1", "rtsp://host:554/1", "http://host:80/x@y.jpg", "http://u:p@host/v?mail=a@b.c", "rtsp://u@h:1/x",
     "http://TOKEN@host/x", "rtsp://u:pw@[fe80::1]:554/x", "rtsp://u:p%40ss@host/1", "http://u:p@host.x/a@10.0.0.1/",
     "udp://@239.0.0.1:1234", "srt://host:9000?passphrase=a@b", "clip.mp4"],
)  # fmt: skip
def test_what_is_an_address_already_stays_as_it_is(address: str) -> None:
    assert escape_login(address) == address
