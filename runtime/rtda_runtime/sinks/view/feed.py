"""The newest result, what is known about it, and its pictures: drawn and encoded only when somebody asks.

One thread gives results (:meth:`Feed.put`); any other asks for the rest, one at a time: a picture is drawn once.
"""

from __future__ import annotations

import collections
import json
import logging
import statistics
import threading
import time
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.files import utf8_text
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.groups import count_classes
from rtda_runtime.result import Result
from rtda_runtime.sinks.view.painter import MODES, Painter
from rtda_runtime.sources.base import stale_after_s

__all__ = ["Feed", "Part"]

BOUNDARY = "rtda-frame"

_MAX_WIDTH = 1280  # of a stream's picture; snapshots keep the camera's size
_MAX_FPS = 15.0  # of a stream; what a robot's CPU and a wireless link carry without being noticed
_JPEG_QUALITY = 80
_PNG_COMPRESSION = 3
_KEPT = 240  # results whose age the sparkline shows
_FPS_OVER_S = 2.0
_FIRST_PERIOD_S = 1.0  # until two results came
_STATS_KEPT_S = 1.0  # percentiles over a long run cost milliseconds; all clients share one look
_LEAST_SHARE = 1e-6

_log = logging.getLogger(__name__)


class Part(NamedTuple):
    """One picture of a stream, with the headers that stand before it; ``key`` differs where the picture does."""

    key: Tuple[int, str, int]
    data: bytes


class _Arrival(NamedTuple):
    at_ns: int
    age_ms: Optional[float]  # None: of a recording, which has none


class Feed:
    """What the view shows.

    Args:
        spec: Class names and palette.
        stats: The pipeline's statistics; ``state``, ``dropped``, ``losses``, ``source``, ``provider``, ``stages``,
            ``shift``, ``shadow`` are shown where they are there. While it raises there are none, which is logged once.
        title: What runs, for people.
        titles: What to call the two networks of a comparison.
        clock: The clock of ``Result.captured_ns``.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        stats: Callable[[], Mapping[str, Any]],
        title: str,
        titles: Tuple[str, str] = ("model A", "model B"),
        alpha: float = 0.5,
        outline: Optional[bool] = None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.encoded = 0
        self._spec = spec
        self._stats = stats
        self._title = title
        self._titles = titles
        self._clock = clock
        self._painter = Painter(spec, alpha, outline)
        self._lock = threading.Lock()  # over the newest result
        self._asking = threading.RLock()  # over what is drawn and what is kept of it
        self._newest: Optional[Result] = None
        self._count = 0
        self._arrivals: Deque[_Arrival] = collections.deque(maxlen=_KEPT)
        self._seen_stats: Tuple[int, Mapping[str, Any]] = (0, {})
        self._warned = False
        self._parts: Dict[str, Tuple[int, Part]] = {}  # mode -> when it was encoded, what
        self._shares: Tuple[int, Dict[str, Any]] = (0, {})

    def put(self, result: Result) -> None:
        """Take the newest result; nothing is drawn or copied."""
        arrival = _Arrival(self._clock(), float(result.timing.get("age", 0.0)) if result.live else None)
        with self._lock:
            self._newest = result
            self._count += 1
            self._arrivals.append(arrival)

    def state(self) -> Tuple[str, float]:
        """``waiting`` (nothing came yet), ``live``, ``stale`` or ``lost``, and for how many seconds nothing came."""
        with self._asking:
            newest, _, arrivals = self._look()
            now = self._clock()
            sampled_ns, stats = self._sample(now)
            source = str(stats.get("state", "live"))
            if newest is None or not arrivals:
                return ("lost" if source == "lost" else "waiting"), 0.0
            since_s = (now - arrivals[-1].at_ns) / 1e9
            if arrivals[-1].at_ns > sampled_ns:  # what came after the look at the source knows better
                source = "live"
            if source == "lost":
                return "lost", since_s
            if source in ("stale", "ended") or newest.state == "stale" or since_s > _stale_after_s(arrivals):
                return "stale", since_s
            return "live", since_s

    def has_mode(self, mode: str) -> bool:
        """Whether the results have what ``mode`` shows; unknown before the first, so then they might."""
        return mode != "compare" or self._newest is None or self._newest.compared is not None

    def part(self, mode: str) -> Tuple[Optional[Part], Optional[float]]:
        """The newest picture for a stream, and the seconds until a newer one may be made, if there is one to make.

        However many clients ask, a picture is drawn and encoded once; the same bytes go to all.
        """
        with self._asking:
            newest, count, _ = self._look()
            if newest is None:
                return None, None
            state, since_s = self.state()
            key = (count, state, 0 if state == "live" else int(since_s))
            now = self._clock()
            encoded_ns, part = self._parts.get(mode, (0, None))
            if part is not None:
                if part.key == key:
                    return part, None
                wait_s = 1.0 / _MAX_FPS - (now - encoded_ns) / 1e9
                if wait_s > 0:
                    return part, wait_s
            made = Part(
                key, self._multipart(self._encode(newest, mode, ".jpg", _MAX_WIDTH, state, since_s), newest, state)
            )
            self._parts[mode] = (now, made)
            return made, None

    def snapshot(self, mode: str, suffix: str) -> Optional[Tuple[bytes, int]]:
        """The newest picture at the camera's size as a file's content (``.png``, ``.jpg``), and its number."""
        with self._asking:
            newest, _, _ = self._look()
            if newest is None:
                return None
            return self._encode(newest, mode, suffix, None, *self.state()), newest.sequence

    def report(self) -> Dict[str, Any]:
        """Everything the page shows, as JSON-ready values; nothing in it is NaN."""
        with self._asking:
            newest, count, arrivals = self._look()
            state, since_s = self.state()
            _, stats = self._sample(self._clock())
            stages = stats.get("stages") or {}
            ages = [arrival.age_ms for arrival in arrivals if arrival.age_ms is not None]
            return {
                "title": self._title,
                "titles": list(self._titles),
                "source": str(stats.get("source", "")),
                "provider": str(stats.get("provider", "")),
                "state": state,
                "since_s": round(since_s, 3),
                "stale_after_s": round(_stale_after_s(arrivals), 3),
                "sequence": None if newest is None else newest.sequence,
                "frames": count,
                "dropped": 0 if newest is None else int(newest.dropped),
                "losses": int(stats.get("losses", 0)),
                "fps": round(_recent_fps(arrivals, self._clock()), 2),
                "size": None if newest is None else [int(newest.mask.shape[1]), int(newest.mask.shape[0])],
                "modes": [mode for mode in MODES if mode != "compare" or (newest is not None and self.has_mode(mode))],
                "age_ms": _summary(ages),
                "ages_ms": [round(age, 1) for age in ages],
                "stages_ms": {name: round(float(values["p50"]), 2) for name, values in stages.items() if name != "age"},
                "encoded": self.encoded,
                **{name: stats[name] for name in ("shift", "shadow") if name in stats},
                **self._class_shares(newest, count),
            }

    def _look(self) -> Tuple[Optional[Result], int, List[_Arrival]]:
        with self._lock:
            return self._newest, self._count, list(self._arrivals)

    def _sample(self, now_ns: int) -> Tuple[int, Mapping[str, Any]]:
        sampled_ns, stats = self._seen_stats
        if not stats or now_ns - sampled_ns > _STATS_KEPT_S * 1e9:
            self._seen_stats = (now_ns, self._asked())
        return self._seen_stats

    def _asked(self) -> Mapping[str, Any]:
        try:
            return self._stats()
        except Exception as err:  # the caller's, such as one that speaks of a pipeline which is not there yet
            if not self._warned:
                self._warned = True
                _log.warning("view: no statistics: %s: %s", type(err).__name__, err)
            return {}

    def _encode(
        self, result: Result, mode: str, suffix: str, max_width: Optional[int], state: str, since_s: float
    ) -> bytes:
        cv2: Any = opencv("for the view")
        picture = self._painter.draw(result, mode, max_width)
        if state != "live":
            said = "CAMERA LOST" if state == "lost" else "STALE"
            self._painter.mark(picture, f"{said}: no new frame for {int(since_s)} s")
        if suffix == ".png":
            options = [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION]
        else:
            options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        _, content = cv2.imencode(suffix, picture, options)
        self.encoded += 1
        return bytes(content.tobytes())

    def _multipart(self, jpeg: bytes, result: Result, state: str) -> bytes:
        age = f"X-Age-Ms: {(self._clock() - result.captured_ns) / 1e6:.1f}\r\n" if result.live else ""
        head = (
            f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
            f"X-Sequence: {result.sequence}\r\nX-State: {state}\r\n"
            f"{age}\r\n"
        )
        return b"".join((head.encode("ascii"), jpeg, b"\r\n"))

    def _class_shares(self, result: Optional[Result], count: int) -> Dict[str, Any]:
        if self._shares[0] != count or not self._shares[1]:
            self._shares = (count, self._count_classes(result))
        return self._shares[1]

    def _count_classes(self, result: Optional[Result]) -> Dict[str, Any]:
        compared = None if result is None else result.compared
        first = None if result is None else count_classes(result.mask, self._spec)
        second = None if compared is None else count_classes(compared, self._spec)
        rows: List[Dict[str, Any]] = []
        for name, rgb in zip(self._spec.class_names, self._spec.palette):
            row: Dict[str, Any] = {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*rgb)}
            row["share"] = 0.0 if first is None else _share(first.shares[name])
            if second is not None:
                row["compared"] = _share(second.shares[name])
            rows.append(row)
        return {"classes": rows, "unlabelled": 0.0 if first is None else _share(first.unlabelled)}


def _share(value: float) -> float:
    return round(value, 5) if value > _LEAST_SHARE else 0.0


def _stale_after_s(arrivals: List[_Arrival]) -> float:
    recent = arrivals[-31:]
    gaps = [(b.at_ns - a.at_ns) / 1e9 for a, b in zip(recent, recent[1:])]
    return stale_after_s([statistics.median(gaps) if gaps else _FIRST_PERIOD_S])


def _recent_fps(arrivals: List[_Arrival], now_ns: int) -> float:
    """Results per second; 0 once none came for longer than they usually take."""
    recent = [arrival.at_ns for arrival in arrivals if now_ns - arrival.at_ns <= _FPS_OVER_S * 1e9]
    if len(recent) < 2:
        recent = [arrival.at_ns for arrival in arrivals[-2:]]  # fewer than one a second
    if len(recent) < 2 or recent[-1] == recent[0] or now_ns - recent[-1] > _stale_after_s(arrivals) * 1e9:
        return 0.0
    return (len(recent) - 1) / ((recent[-1] - recent[0]) / 1e9)


def _summary(values_ms: List[float]) -> Dict[str, Optional[float]]:
    if not values_ms:
        return {"now": None, "p50": None, "p95": None, "max": None}
    p50, p95 = (float(value) for value in np.percentile(values_ms, (50, 95)))
    return {
        "now": round(values_ms[-1], 1),
        "p50": round(p50, 1),
        "p95": round(p95, 1),
        "max": round(max(values_ms), 1),
    }


def report_json(report: Mapping[str, Any]) -> bytes:
    """The report as the server sends it; a file's name in it may be no text."""
    return utf8_text(json.dumps(report, allow_nan=False, ensure_ascii=False)).encode("utf-8")
