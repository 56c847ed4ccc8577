"""An RTSP camera on 127.0.0.1 behind a password; run by the system's Python, which has GStreamer's bindings.

Prints its port when it listens, and ends when its stdin is closed.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=smpte ! video/x-raw,width=160,height=96,framerate=25/1"
    " ! {encoder} ! {payloader} name=pay0 pt=96 )"
)
ENCODERS = (("x264enc tune=zerolatency key-int-max=5", "rtph264pay"), ("jpegenc", "rtpjpegpay"))


def main() -> None:
    Gst.init(None)
    encoder, payloader = next(
        pair for pair in ENCODERS if Gst.ElementFactory.find(pair[0].split()[0]) and Gst.ElementFactory.find(pair[1])
    )
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("user", "secret"), token)
    server.set_auth(auth)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(encoder=encoder, payloader=payloader))
    factory.set_shared(True)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role("viewer")
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", right, True)
    factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/x", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_HUP, lambda *_: loop.quit())
    loop.run()


main()
