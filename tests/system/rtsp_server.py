"""RTSP cameras on 127.0.0.1; run by the system's Python, which has GStreamer's bindings.

    /usr/bin/python3 rtsp_server.py [--port N] [--password SECRET] [--size 640x360]

========== ===============================================================
``/x``     colour bars, H.264, 160x96
``/clock`` the time of each picture drawn into it (timecode.py), H.264
``/jpeg``  colour bars as motion JPEG
``/sizes`` H.264 that changes from 160x96 to 320x192 after a second
``/odd``   a codec that no camera has
``/sound`` no picture at all
========== ===============================================================

25 pictures a second. With ``--password`` all ask for ``user`` and it. Prints its port when it listens, and ends when
its stdin is closed.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import Any

import gi
import timecode

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

FPS = 25
_H264 = "x264enc tune=zerolatency threads=1 speed-preset=ultrafast key-int-max=10 bframes=0"
_BARS = f"videotestsrc is-live=true pattern=smpte ! video/x-raw,width={{}},height={{}},framerate={FPS}/1"
_SMALL = _BARS.format(160, 96)
PIPELINES = {
    "/x": f"{_SMALL} ! {_H264} ! rtph264pay config-interval=-1 name=pay0 pt=96",
    "/jpeg": f"{_SMALL},format=I420 ! jpegenc ! rtpjpegpay name=pay0 pt=26",
    "/sizes": f"{_SMALL} ! videoscale ! capsfilter name=size caps=video/x-raw,width=160,height=96 ! {_H264}"
    " ! rtph264pay config-interval=-1 name=pay0 pt=96",
    "/odd": f"{_SMALL} ! {_H264} ! rtph264pay pt=96 ! capssetter caps=application/x-rtp,encoding-name=ODD name=pay0",
    "/sound": "audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay0 pt=8",
    "/clock": "appsrc name=clock is-live=true format=time do-timestamp=true block=true max-bytes=1000000"
    " caps=video/x-raw,format=I420,width={width},height={height},framerate="
    + f"{FPS}/1 ! {_H264} pass=quant quantizer=24"
    " ! rtph264pay config-interval=-1 name=pay0 pt=96",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0")
    parser.add_argument("--password")
    parser.add_argument("--size", default="640x360")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    if options.password:
        _ask_for(server, options.password)
    for path, pipeline in PIPELINES.items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( {pipeline.format(width=width, height=height)} )")
        factory.set_shared(True)
        factory.connect("media-configure", _configure, width, height)
        if options.password:
            factory.set_permissions(_permissions())
        server.get_mount_points().add_factory(path, factory)
    if not server.attach(None):
        sys.exit(f"port {options.port} is taken")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_HUP, lambda *_: loop.quit())
    loop.run()


def _ask_for(server: Any, password: str) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("user", password), token)
    server.set_auth(auth)


def _permissions() -> Any:
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role("viewer")
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", right, True)
    return permissions


def _configure(_factory: Any, media: Any, width: int, height: int) -> None:
    """Called when the first client of a camera comes."""
    element = media.get_element()
    source = element.get_by_name_recurse_up("clock")
    if source is not None:
        threading.Thread(target=_draw_clock, args=(source, width, height), daemon=True).start()
    size = element.get_by_name_recurse_up("size")
    if size is not None:
        larger = Gst.Caps.from_string("video/x-raw,width=320,height=192")
        GLib.timeout_add(1000, lambda: size.set_property("caps", larger))


def _draw_clock(source: Any, width: int, height: int) -> None:
    """Push a picture each period until nobody looks any more."""
    luma = bytearray(b"\x60" * (width * height))
    colour = b"\x80" * (width * height // 2)
    due = time.monotonic()
    number = 0
    while True:
        due += 1 / FPS
        time.sleep(max(0.0, due - time.monotonic()))
        number += 1
        for y in range(timecode.HEIGHT_PX + 16, height):  # something that moves, so that the stream is no still
            luma[y * width : (y + 1) * width] = b"\x60" * width
            start = y * width + (7 * number + y) % (width - 32)
            luma[start : start + 32] = b"\xc8" * 32
        timecode.draw(luma, width, timecode.now())
        if source.emit("push-buffer", Gst.Buffer.new_wrapped(bytes(luma) + colour)) != Gst.FlowReturn.OK:
            return


main()
