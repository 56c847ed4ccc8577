"""The sink itself: takes results, owns the server."""

from __future__ import annotations

import secrets
from typing import Any, Callable, Mapping, Optional, Tuple

from rtda_deploy.masking import mask_path
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sinks.http import Guard
from rtda_runtime.sinks.kinds import SinkContext
from rtda_runtime.sinks.view.address import listen, parse_address, view_url
from rtda_runtime.sinks.view.feed import Feed
from rtda_runtime.sinks.view.server import ViewLimits, ViewServer

__all__ = ["ViewSink", "opener"]

_TOKEN_BYTES = 24
_LIMITS = ViewLimits()


def opener(address: str, context: SinkContext) -> Callable[[], ViewSink]:
    """What opens the view of ``run --view``."""

    def opened() -> ViewSink:
        title = f"{context.model} · {context.source}"
        drawn: Any = {"titles": context.titles, "alpha": context.alpha, "outline": context.outline}
        return ViewSink(address, context.spec, stats=context.stats, title=title, **drawn)

    return opened


class ViewSink(Sink):
    """Shows the newest result in a browser.

    Pictures are drawn and encoded only while somebody looks, in the view's own threads; a slow or silent client costs
    neither the loop nor another client anything.

    Args:
        address: ``auto`` (127.0.0.1, port 8080 or the next free one), ``:8080`` (127.0.0.1), or any other, such as
            ``0.0.0.0:8080``, which needs the token that is part of :attr:`url`.
        spec: Class names and palette.
        stats: The pipeline's statistics, as :attr:`Pipeline.stats`; called about once a second while somebody looks,
            from the view's threads, one at a time.
        title: What runs: model and camera, for people.
        titles: What to call the two networks of a comparison.
        alpha: Weight of the mask's colours in the overlay.
        outline: Lines around regions: True, False, or None: where they are hard to see.
        limits: What clients may take.

    Attributes:
        url: To open in a browser; holds the token where one is needed, so it is for the user's eyes, not for logs.

    Raises:
        ConfigError: If the address makes no sense.
        DeviceError: If the port is taken or not allowed.
        MissingPackageError: If OpenCV is not installed.
    """

    name = "view"
    keeps = False

    def __init__(
        self,
        address: str,
        spec: ModelSpec,
        *,
        stats: Callable[[], Mapping[str, Any]] = dict,
        title: str = "rtda-deploy",
        titles: Tuple[str, str] = ("model A", "model B"),
        alpha: float = 0.5,
        outline: Optional[bool] = None,
        limits: ViewLimits = _LIMITS,
    ) -> None:
        opencv("for the view")
        where = parse_address(address)
        self._feed = Feed(spec, stats=stats, title=mask_path(title), titles=titles, alpha=alpha, outline=outline)
        token = "" if where.loopback else secrets.token_urlsafe(_TOKEN_BYTES)
        listening = listen(where)
        self.port = int(listening.getsockname()[1])
        self.url = view_url(where, self.port, token)
        others = "this machine only; --view 0.0.0.0:8080 lets others look, with a token in the URL"
        self.note = f"{self.url}   ({'whoever has this URL can look' if token else others})"
        self._server = ViewServer(listening, self._feed, Guard(token, f"rtda_view_{self.port}"), limits)

    def write(self, result: Result) -> Mapping[str, float]:
        """Keep the result as the newest; it is drawn later, if somebody looks."""
        self._feed.put(result)
        self._server.announce()
        return {}

    @property
    def encoded(self) -> int:
        """Pictures drawn and encoded so far."""
        return self._feed.encoded

    def close(self) -> None:
        """End every connection and the view's threads, within a second. Calling it again does nothing."""
        self._server.close()
