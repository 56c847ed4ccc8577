"""Small pictures of frames that were looked at, as many as a contact sheet can need and no more."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np

from rtda_deploy.optional import require

__all__ = ["Thumbnails"]

_DROPPED = 64  # of each reason, evenly spread; a sheet shows eight
_CANDIDATES = 4096  # of frames that may be chosen; of 160x90 pixels, 5 kB each
_QUALITY = 85


class Thumbnails:
    """Pictures by the places of their frames; memory is bounded, whatever the length of the footage."""

    def __init__(self) -> None:
        self._content: Dict[int, bytes] = {}
        self._groups: Dict[Optional[str], _Spread] = {}

    def add(self, place: int, picture: np.ndarray, reason: Optional[str]) -> None:
        """Keep a frame's picture, or leave it out.

        Args:
            place: Its number, in ascending order.
            picture: uint8 (h, w, 3) BGR, small; not kept.
            reason: Why it is dropped; None where it may be chosen.
        """
        group = self._groups.setdefault(reason, _Spread(_DROPPED if reason else _CANDIDATES))
        for left in group.add(place):
            self._content.pop(left, None)
        if place in group.places:
            cv2: Any = require("cv2", extra="training")
            self._content[place] = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()

    def __contains__(self, place: int) -> bool:
        return place in self._content

    def picture(self, place: int) -> np.ndarray:
        """The picture of a place that is kept: uint8 (h, w, 3) BGR."""
        cv2: Any = require("cv2", extra="training")
        return np.asarray(cv2.imdecode(np.frombuffer(self._content[place], np.uint8), cv2.IMREAD_COLOR))


class _Spread:
    """At most so many of a row of places, evenly spread: every one, then every second, every fourth ..."""

    def __init__(self, most: int) -> None:
        self._most, self._step, self._count = most, 1, 0
        self.places: List[int] = []

    def add(self, place: int) -> List[int]:
        """Take a place if it is its turn; gives those that had to leave."""
        if self._count % self._step == 0:
            self.places.append(place)
        self._count += 1
        if len(self.places) <= self._most:
            return []
        left, self.places, self._step = self.places[1::2], self.places[::2], 2 * self._step
        return left
