"""Of an address everything is masked that is not known to be harmless."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtda_deploy.masking import HARMLESS, mask_password


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://host/1", "rtsp://host/1"),
        ("rtsp://user:secret@host:554/1", "rtsp://***@host:554/1"),
        ("rtsp://user:se:c@r/e?t@host/1", "rtsp://***@host/1"),
        ("rtsp://user:123456@host/1", "rtsp://***@host/1"),
        ("rtsp://:secret@host/1", "rtsp://***@host/1"),
        ("rtsp://host:554/1", "rtsp://host:554/1"),
        ("http://secret@host", "http://***@host"),
        ("http://user:secret", "http://user:***"),
        ("rtsps://10.0.0.1:7441/AbCdEf0123456789?enableSrtp", "rtsps://10.0.0.1:7441/***?enableSrtp"),
        ("http://host/live/0123456789abcdef0123/1.m3u8", "http://host/live/***/1.m3u8"),
        ("http://host/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_D-1/x", "http://host/***/x"),
        ("http://host/c/123e4567-e89b-12d3-a456-426614174000", "http://host/c/***"),
        ("rtsp://host/Streaming/Channels/101", "rtsp://host/Streaming/Channels/101"),
        ("rtsp://host/h264Preview_01_main", "rtsp://host/h264Preview_01_main"),
        ("http://host/axis-cgi/mjpg/video.cgi", "http://host/axis-cgi/mjpg/video.cgi"),
        ("udp://@239.0.0.1:1234", "udp://@239.0.0.1:1234"),
        ("http://secret:@host/1", "http://***@host/1"),
        ("http://se/cret@host/1", "http://***@host/1"),
        ("http://host/v?user=a&password=secret&x=1", "http://host/v?user=***&password=***&x=***"),
        ("http://host/v?Token=secret&fps=30", "http://host/v?Token=***&fps=30"),
        ("http://host/v?%74oken=secret", "http://host/v?%74oken=***"),
        ("http://host/v?f%70s=30", "http://host/v?f%70s=30"),
        ("http://host/v?fps=30%26token%3Dsecret", "http://host/v?fps=***"),
        ("http://host/v?token%3Dsecret", "http://host/v?***"),
        ("http://host/v?fps=30&secret", "http://host/v?fps=***"),
        ("http://host/v?secret&fps=30", "http://host/v?***&fps=30"),
        ("http://host/v?640x480", "http://host/v?640x480"),
        ("http://host/v?sig=ab/secret==&fps=3", "http://host/v?sig=***&fps=3"),
        ("http://host/token=secret/1", "http://host/token=***"),
        ("http://host/1;jsessionid=secret?fps=3", "http://host/1;jsessionid=***"),
        ("http://host/v?url=rtsp://user:secret@other/1", "http://host/v?url=***"),
        ("gst:rtspsrc location=rtsp://u:secret@h ! appsink", "gst:rtspsrc location=rtsp://***@h ! appsink"),
        ("gst:rtspsrc location=http://h/?sig=secret latency=0", "gst:rtspsrc location=http://h/?sig=*** latency=0"),
        ("gst:rtspsrc user-pw=secret ! appsink", "gst:rtspsrc user-pw=*** ! appsink"),
        ('gst:rtspsrc user-pw="a b" latency=0 ! appsink', "gst:rtspsrc user-pw=*** latency=0 ! appsink"),
        ('gst:a extra-headers="x,y=\\"secret\\"" ! b', "gst:a extra-headers=*** ! b"),
        ("gst:a location=rtsp://u:p@h ! b. c location=rtsp://u:p@i ! d",
         "gst:a location=rtsp://***@h ! b. c location=rtsp://***@i ! d"),
        ("admin:/secret@host/1", "***@host/1"),
        ("rtsp://user:secret@host/v?password=secret", "rtsp://***@host/v?password=***"),
        ("http://host:80/v?password=a:b@c;d&x=1", "http://host:80/v?password=***&x=***"),
        ("cannot open http://host/v?fps=30: not found", "cannot open http://host/v?fps=30: not found"),
        ("video:hour.mp4?from=1:30&to=30m&every=0.5s&speed=4", "video:hour.mp4?from=1:30&to=30m&every=0.5s&speed=4"),
        ("bag:run.mcap?topic=/front/image_raw&to=9.5s", "bag:run.mcap?topic=/front/image_raw&to=9.5s"),
        ("folder:set?split=val&list=../some/val.txt&count=20%", "folder:set?split=val&list=../some/val.txt&count=20%"),
        ("video:a.mp4?to=30m&token=secret", "video:a.mp4?to=30m&token=***"),
        ("http://host/v?topic=/a/token=secret", "http://host/v?topic=***"),
        ("the server wants Authorization: Basic secret", "the server wants Authorization: ***"),
    ],
)  # fmt: skip
def test_what_may_be_a_secret_is_masked(uri: str, shown: str) -> None:
    assert mask_password(uri) == shown


# fmt: off
_KEYS = [
    "password", "pass", "passwd", "pwd", "pw", "psw", "passcode", "passphrase", "loginpas", "user_pass", "pass1",
    "token", "access_token", "auth_token", "id_token", "refresh_token", "bearer", "auth", "authorization",
    "Authorization", "secret", "client_secret", "secretkey", "key", "api_key", "apikey", "api-key", "x-api-key",
    "subscription-key", "account_key", "access_key", "accessKey", "private_key", "sig", "sign", "signature",
    "Signature", "hmac", "hash", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token",
    "X-Goog-Signature", "X-Goog-Credential", "AWSAccessKeyId", "Key-Pair-Id", "Policy", "se", "sv", "jwt", "sid",
    "session", "sessionid", "session_id", "PHPSESSID", "JSESSIONID", "cookie", "nonce", "otp", "code", "ticket",
    "user", "username", "usr", "login", "uid", "id", "credential", "credentials",
]
# fmt: on


@pytest.mark.parametrize("key", _KEYS)
def test_no_value_of_a_query_is_shown_because_nobody_thought_of_its_key(key: str) -> None:
    escaped = "".join(f"%{ord(letter):02X}" for letter in key)
    for name in (key, key.upper(), escaped):
        for text in (
            f"http://h/v?{name}=5ECRE7",
            f"rtsp://h:554/v?fps=5&{name}=5ECRE7&channel=1",
            f"h/v?{name}=5ECRE7",
        ):
            assert "5ECRE7" not in mask_password(text)
            assert mask_password(f"cannot read {text}").startswith("cannot read ")


_SECRETS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_characters="=!&;\x7f"), min_size=1)
_SHAPES = [  # of what people type; then the secret
    "rtsp://admin:{}@10.0.0.2:554/1",
    "rtsp://me@mail.com:{}@host/1",
    "http://:{}@host/cam.mjpg",
    "rtsp:/admin:{}@host/1",
    "rtsp//admin:{}@host/1",
    "admin:{}@host/1",
    "gst:rtspsrc location=rtsp://admin:{}@host/1 latency=0 ! decodebin ! appsink name=a",
    "rtsp://host:554/user=admin_password={}_channel=1_stream=0.sdp",
    "http://host/v?loginuse=admin&loginpas={}&fps=1",
    "http://host/v?pw={}",
    "http://host/v?access_key={}&fps=1",
    "http://host/v?never-seen={}&fps=1",
    "http://host/v?fps=1#{}",
    "gst:rtspsrc user-id=admin user-pw={} latency=0 ! decodebin ! appsink",
]


@pytest.mark.parametrize("shape", _SHAPES)
@settings(deadline=None, max_examples=60)
@given(secret=_SECRETS)
@example("it's")
@example('se"cret')
@example("se cret")
@example("se:c@r/e?t#1")
def test_of_no_secret_anything_is_left(shape: str, secret: str) -> None:
    secret = f"<{secret}>"
    before, after = shape.split("{}")
    shown = mask_password(f"{before}{secret}{after}")
    assert "<" not in shown and ">" not in shown
    assert mask_password(shown) == shown
    assert shown.endswith(f"***@{after[1:]}" if after.startswith("@") else f"***{after}")


@settings(deadline=None)
@given(secret=_SECRETS.filter(lambda text: not set(text) & set('\\"')))
@example("se cret")
@example("user=b ! c")
def test_of_no_quoted_secret_anything_is_left(secret: str) -> None:
    shown = mask_password(f'gst:rtspsrc user-pw="{secret}" latency=0 ! appsink')
    assert shown == "gst:rtspsrc user-pw=*** latency=0 ! appsink"


_TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~%", min_size=1).map("<{}>".format)
_NAMES = st.text("abcdefghijklmnopqrstuvwxyz-_.%", min_size=1, max_size=12).filter(lambda name: name not in HARMLESS)


@settings(deadline=None)
@given(token=_TOKENS, names=st.lists(_NAMES, min_size=1, max_size=3), user=st.booleans())
def test_a_token_is_masked_wherever_in_an_address_it_stands(token: str, names: list[str], user: bool) -> None:
    query = "&".join(f"{name}={token}" for name in names)
    shown = mask_password(f"http://{token + '@' if user else ''}host:80/live?{query}&width=64")
    assert "<" not in shown
    assert shown == f"http://{'***@' if user else ''}host:80/live?{'&'.join(f'{name}=***' for name in names)}&width=64"


_WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=15).filter(lambda word: word.strip(".-"))
_PATH = st.lists(_WORD, min_size=1, max_size=4).map("/".join)


@settings(deadline=None)
@given(host=_WORD, port=st.integers(1, 65535), path=_PATH, other=_WORD)
@example(host="a", port=1, path=".ws", other="0")  # a folder, no scheme
@pytest.mark.parametrize(
    "shape",
    ["rtsp://{host}/{path}", "rtsp://{host}:{port}/{path}?channel={port}&camera={other}",
     "rtsp://[fe80::1]:{port}/{path}", "http://{host}:{port}/{path}?fps=1&resolution=640x480", "{path}",
     "/{path}/10:30/me@{other}.mp4", "{path}/%06d.png", "file:///{path}/me@{other}.mp4", "test://bars?fps={port}",
     "csi://0", "gst:rtspsrc location=rtsp://{host}:{port}/{path} latency=0 ! h264parse ! appsink name={other}@x",
     "gst:v4l2src device=/dev/{other} ! video/x-raw(memory:NVMM), width={port}, format=(string)BGRx, framerate=30/1 "
     "! x264enc key-int-max=9 tune=zerolatency ! appsink drop=true"],
)  # fmt: skip
def test_addresses_without_secrets_stay_as_they_are(shape: str, host: str, port: int, path: str, other: str) -> None:
    address = shape.format(host=host, port=port, path=path, other=other)
    assert mask_password(address) == address


def test_the_docs_list_the_keys_whose_values_are_shown() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
    listed = text.split("and its key is one of: ")[1].split(".\n")[0]
    assert {key.strip("` ") for key in listed.split(",")} == HARMLESS
