"""What the view answers: its page, statistics, snapshots and health."""

from __future__ import annotations

import pkgutil
from typing import Callable, Dict, NamedTuple, Sequence, Tuple

from rtda_runtime.sinks.http import BadRequest, Request
from rtda_runtime.sinks.view.feed import Feed, report_json
from rtda_runtime.sinks.view.painter import MODES

__all__ = ["Answer", "Pages", "text_answer"]

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/script.js": ("script.js", "text/javascript; charset=utf-8"),
}
_JSON = "application/json"


class Answer(NamedTuple):
    """Status, media type, content and further headers of one answer."""

    status: int
    kind: str
    content: bytes
    headers: Sequence[Tuple[str, str]] = ()


class Pages:
    """Answers every request but the stream's.

    Args:
        feed: What is shown.
        streams: How many clients watch the stream, for ``/stats.json``.
    """

    def __init__(self, feed: Feed, streams: Callable[[], int]) -> None:
        self._feed = feed
        self._streams = streams
        self._files = {path: (_content(name), kind) for path, (name, kind) in _FILES.items()}
        self._answers: Dict[str, Callable[[Request], Answer]] = {
            "/stats.json": self._stats,
            "/snapshot.png": self._snapshot,
            "/snapshot.jpg": self._snapshot,
        }

    def answer(self, request: Request) -> Answer:
        """The answer to a request that the guard let in.

        Raises:
            BadRequest: If it asks for a mode that there is not.
        """
        if request.path in self._files:
            content, kind = self._files[request.path]
            return Answer(200, kind, content)
        if request.path not in self._answers:
            return text_answer(404, "no such page; there are /, /stream.mjpg, /snapshot.png, /stats.json and /healthz")
        return self._answers[request.path](request)

    def health(self) -> Answer:
        """Whether frames are fresh; needs no token, so it says nothing else."""
        state, since_s = self._feed.state()
        content = report_json({"state": state, "since_s": round(since_s, 3)})
        return Answer(200 if state == "live" else 503, _JSON, content)

    def mode(self, request: Request) -> str:
        """The ``?mode=`` of a request.

        Raises:
            BadRequest: If there is none of that name, or it needs a second model and there is one only.
        """
        mode = request.query.get("mode", MODES[0])
        if mode not in MODES:
            raise BadRequest(400, f"no such mode; there are {', '.join(MODES)}")
        if not self._feed.has_mode(mode):
            raise BadRequest(404, "this run has one model only; start it with --compare MODEL2")
        return mode

    def _stats(self, _: Request) -> Answer:
        return Answer(200, _JSON, report_json({**self._feed.report(), "clients": self._streams()}))

    def _snapshot(self, request: Request) -> Answer:
        mode = self.mode(request)
        suffix = request.path[-4:]
        taken = self._feed.snapshot(mode, suffix)
        if taken is None:
            return text_answer(503, "no frame came yet")
        content, sequence = taken
        name = f'attachment; filename="rtda-{mode}-{sequence:06d}{suffix}"'
        kind = "image/png" if suffix == ".png" else "image/jpeg"
        return Answer(200, kind, content, [("Content-Disposition", name)])


def text_answer(status: int, text: str, headers: Sequence[Tuple[str, str]] = ()) -> Answer:
    """A line of plain text."""
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


def _content(name: str) -> bytes:
    """A file of this package, from a folder or a zip; importlib.resources has no call that 3.8 and 3.13 both like."""
    content = pkgutil.get_data(__package__ or "", name)
    if content is None:
        raise FileNotFoundError(name)
    return content
