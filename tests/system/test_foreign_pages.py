"""A web page of another site, in a real browser on this machine, cannot read the camera."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path
from typing import Iterator

import pytest
from patience import PATIENCE_S
from runtime.models import tiny_spec
from system.chromium import Browser

from rtda_runtime.sinks.publish import open_publisher

pytestmark = pytest.mark.system

_TRY = """new Promise(done => {{
  const socket = new WebSocket("{url}", ["foxglove.sdk.v1"]);
  socket.onmessage = () => done("reads");
  socket.onerror = socket.onclose = () => done("refused");
}})"""

_SANDBOXED = """new Promise(done => {
  window.onmessage = event => done(event.data);
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.srcdoc = `<script>(TRY).then(said => parent.postMessage(said, "*"))</script>`;
  document.body.append(frame);
})"""  # its Origin is "null"


@pytest.fixture()
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "index.html").write_text("<!doctype html><title>page</title>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join(PATIENCE_S)
    server.server_close()


def test_pages_of_other_sites_are_refused_by_foxglove(tmp_path: Path, port: int) -> None:
    pytest.importorskip("foxglove", reason="foxglove-sdk is not installed")
    uri = "foxglove://127.0.0.1:0?origin=http://friend.example"
    with open_publisher(f"{uri}:{port}", tiny_spec(), name="front") as sink, Browser(
        tmp_path, flags=["--host-resolver-rules=MAP *.example 127.0.0.1"]
    ) as browser:
        url = sink.address
        found = {}
        for site in (f"http://evil.example:{port}/", f"http://friend.example:{port}/", f"http://127.0.0.1:{port}/"):
            browser.open(site)
            found[site.split(":")[1].strip("/")] = browser.value(_TRY.format(url=url))
        browser.open(f"http://evil.example:{port}/")
        rebound = browser.value(_TRY.format(url=url.replace("127.0.0.1", "evil.example")))
        sandboxed = browser.value(_SANDBOXED.replace("TRY", _TRY.format(url=url)))
    assert found == {"evil.example": "refused", "friend.example": "reads", "127.0.0.1": "reads"}
    assert rebound == sandboxed == "refused"
