"""Footage as a source of frames: recordings one after the other, as fast as they are read or at their own times."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import Callable, Generator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError, SourceError
from rtda_deploy.folders import walk
from rtda_deploy.masking import mask_password
from rtda_runtime.sources.base import LIVE, STALE, Frame, GrabbingSource, frame_rate
from rtda_runtime.sources.footage.address import (
    FOOTAGE_OPTIONS,
    FootageAddress,
    footage_kind,
    names_footage,
    split_address,
)
from rtda_runtime.sources.footage.base import Recording, numbers_every
from rtda_runtime.sources.footage.kinds import open_footage

__all__ = ["Part", "Playback", "footage_files", "is_footage", "open_playback", "parse_playback"]

_log = logging.getLogger(__name__)

_SPEED = {"video": 0.0, "bag": 1.0}  # a bag is played as its robot saw it
_FASTEST = 1000.0
_LATE_NS = 500_000_000  # behind its times by so much, it goes on from now: no burst of frames
_STALE_S = 0.5  # a pause of so long is no fault of the recording, and is told
_KIND = re.compile(r"(video|bag):(?!//)")
_OPTIONS_TYPED = re.compile(rf".+\?(.*&)?({'|'.join((*FOOTAGE_OPTIONS, 'speed'))})=.*", re.DOTALL)


class Part(NamedTuple):
    """A recording, and which of its frames are played, ascending."""

    recording: Recording
    numbers: Sequence[int]


class Playback(GrabbingSource):
    """Recordings that are played one after the other.

    Each frame's ``recorded_ns`` is its time in its recording; of the second and later ones these times go on from the
    one before.

    Args:
        name: As typed.
        parts: What is played.
        speed: How many seconds of the recording pass in one; 0: as fast as it is read.
        clock: Nanoseconds.
        sleep: Waits so many seconds.

    Raises:
        SourceError: If no frame can be decoded.
    """

    live = False
    stamp = "read"

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        *,
        speed: float = 0.0,
        clock: Callable[[], int] = time.perf_counter_ns,
        sleep: Optional[Callable[[float], object]] = None,
    ) -> None:
        self.name = name
        self.paced = speed > 0
        self.num_frames = sum(len(part.numbers) for part in parts)
        self.fps = frame_rate(1e9 / max(1, _step_ns(parts[0])))
        self._parts = parts
        self._before = [part.recording.damaged for part in parts]
        self._speed = speed
        self._clock = clock
        self._interrupted = threading.Event()
        self._sleep = sleep or self._interrupted.wait
        self._anchor: Optional[Tuple[int, int]] = None  # a time of the recording, and when it was due
        self._waits = False
        self._played = self._play()
        self._first = self._grab(0.0)
        if self._first is None:
            raise SourceError(f"{name} holds no frame that can be decoded", hint="is it damaged? Try it in a player")
        self.size_wh = (self._first.image.shape[1], self._first.image.shape[0])

    @property
    def damaged(self) -> int:
        return sum(part.recording.damaged - before for part, before in zip(self._parts, self._before))

    @property
    def state(self) -> str:
        return STALE if self._waits else LIVE

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self._interrupted.is_set():
            raise self._closed_error()
        if self.paced and self._anchor is None and self._first is not None and self._first.recorded_ns is not None:
            self._anchor = (self._first.recorded_ns, self._clock())
        return super().read(timeout_s)

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._closed, self._first = True, None
        self._interrupted.set()
        with contextlib.suppress(ValueError):  # another thread decodes just now: it ends when that is done
            self._played.close()

    def _grab(self, timeout_s: float) -> Optional[Frame]:
        found = next(self._played, None)
        if found is None:
            return None
        sequence, recorded_ns, image = found
        if self._anchor is not None:
            self._await(recorded_ns, self._anchor)
        return Frame(image=image, captured_ns=self._clock(), sequence=sequence, recorded_ns=recorded_ns)

    def _await(self, recorded_ns: int, anchor: Tuple[int, int]) -> None:
        """Wait until a frame is due; one that is late by far is given at once, and the next ones count from it."""
        now_ns = self._clock()
        due_ns = anchor[1] + round((recorded_ns - anchor[0]) / self._speed)
        if now_ns - due_ns > _LATE_NS:
            self._anchor = (recorded_ns, now_ns)
        if due_ns <= now_ns:
            return
        wait_s = (due_ns - now_ns) / 1e9
        self._waits = wait_s > _STALE_S
        self._sleep(wait_s)
        self._waits = False
        if self._interrupted.is_set():
            raise self._closed_error()

    def _play(self) -> Generator[Tuple[int, int, np.ndarray], None, None]:
        """Sequence, time and picture of each frame."""
        first = begins_ns = 0
        for part in self._parts:
            places = {number: first + place for place, number in enumerate(part.numbers)}
            for frame in part.recording.frames(part.numbers):
                yield places[frame.number], begins_ns + frame.time_ns, frame.image
            first += len(part.numbers)
            begins_ns += int(part.recording.times_ns[part.numbers[-1]]) + _step_ns(part)


def is_footage(address: str) -> bool:
    """Whether an address names footage that is played: by its kind, its options, or because it is no film of one file.

    A video file alone is none: it is played as any film. What may be a mistyped address of a camera is none either.
    """
    with contextlib.suppress(ValueError, OSError):  # what no file can be called
        if os.path.isfile(address):
            return footage_kind(address) == "bag"
        bare = _KIND.sub("", address).partition("?")[0]
        if mask_password(bare) != bare and not os.path.lexists(bare):
            return False
        if _KIND.match(address) or _OPTIONS_TYPED.fullmatch(address):
            return True
        if "?" in address and os.path.lexists(bare):  # options that are misspelt, or of training
            return footage_kind(bare) is not None
        several = "," in address or glob.has_magic(address)
        return (several or os.path.isdir(address)) and footage_kind(address) is not None
    return False


def parse_playback(text: str) -> Tuple[FootageAddress, float]:
    """What is played, and how fast: ``bag:run.mcap?topic=/front&speed=2``.

    Raises:
        ConfigError: If it names no footage, or an option makes no sense.
    """
    kind, path, options = split_address(text)
    kind = kind or footage_kind(path) or ""
    typed = options.pop("speed", None)
    unknown = sorted(set(options) - set(FOOTAGE_OPTIONS))
    if unknown:
        known = ", ".join(f"{option}=" for option in (*FOOTAGE_OPTIONS, "speed"))
        raise ConfigError(f"{text}: option {unknown[0]!r} is unknown", hint=f"known: {known}")
    address = FootageAddress.of(kind, path, options)
    if typed is None:
        return address, _SPEED[address.kind]
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", typed) or float(typed) > _FASTEST:
        raise ConfigError(
            f"{address}: speed={typed} is no speed", hint="such as 1 (at its own times), 0.5, 0 (as fast as it is read)"
        )
    return address, float(typed)


def unpaced(text: str) -> str:
    """The same address, as fast as it is read where it would be played at its own times and no speed is typed."""
    if not names_footage(text) or "speed=" in text or not parse_playback(text)[1]:
        return text
    return f"{text}{'&' if '?' in text else '?'}speed=0"


def open_playback(address: FootageAddress, speed: float) -> Playback:
    """Open footage to be played.

    Raises:
        FileAccessError: If a file is missing or unreadable.
        SourceError: If no frame can be decoded, or none is in the part that is asked for.
        MissingPackageError: If the package that reads such a recording is not installed.
    """
    parts = []
    for recording in open_footage(address):
        for note in recording.notes:
            _log.warning("%s: %s", recording.name, note)
        parts.append(Part(recording, numbers_every(recording, address.every_s, address.from_s, address.to_s)))
    if not any(part.numbers for part in parts):
        lengths = ", ".join(f"{part.recording.duration_s:.3g} s" for part in parts)
        raise SourceError(f"{address} holds no frame between from= and to=", hint=f"it is {lengths} long")
    return Playback(str(address), [part for part in parts if part.numbers], speed=speed)


def footage_files(text: str) -> List[Path]:
    """The files that such an address reads; of a bag that is a folder all that lie in it."""
    paths = parse_playback(text)[0].paths()
    return [file for path in paths for file in (walk(path, lambda name: True).files if path.is_dir() else [path])]


def _step_ns(part: Part) -> int:
    """The usual time from one frame to the next, nanoseconds."""
    steps = np.diff(part.recording.times_ns[np.asarray(part.numbers)])
    return int(np.median(steps)) if len(steps) else 0
