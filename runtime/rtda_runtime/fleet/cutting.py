"""Footage cut into units of at most :data:`UNIT_FRAMES` frames, each with the names of their masks.

Units of a video begin at a key frame where one is near, so that no frame is decoded twice.
"""

from __future__ import annotations

import collections
import hashlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple

import numpy as np

from rtda_deploy.border import parsing
from rtda_deploy.errors import ConfigError, FileAccessError, SourceError
from rtda_runtime.fleet.asked import Asked
from rtda_runtime.fleet.listing import Listing, RecordingFile
from rtda_runtime.fleet.plan import FORMAT, Fault
from rtda_runtime.fleet.units import UNIT_FRAMES, Unit
from rtda_runtime.sources.footage.address import FootageAddress
from rtda_runtime.sources.footage.base import Recording, numbers_every
from rtda_runtime.sources.footage.frame_names import frame_name, plain_name, recording_folders
from rtda_runtime.sources.footage.kinds import open_footage

__all__ = ["cut_footage"]

Told = Callable[[int, int], None]


def cut_footage(
    listing: Listing, asked: Asked, told: Told, unit_frames: int = UNIT_FRAMES
) -> Tuple[Tuple[Unit, ...], Tuple[Fault, ...]]:
    """Cut footage into units. Recordings are opened, which reads their index; a damaged one becomes a fault.

    Args:
        listing: What is to be labelled.
        asked: What labels depend on.
        told: Called with (done, total) recordings.
        unit_frames: The most frames of a unit.

    Returns:
        The units in the order of the footage, and the files that cannot be labelled.

    Raises:
        ConfigError: If two frames would be called alike.
        MissingPackageError: If the package that reads a kind of recording is not installed.
    """
    maker = _Maker(asked, unit_frames)
    units: List[Unit] = []
    faults: List[Fault] = []
    names = _root_names([folder.path for folder in listing.folders], len(listing.recordings))
    for folder, prefix in zip(listing.folders, names):
        broken = [name for name in folder.files if name.splitlines() != [name]]
        faults += [Fault(str(folder.path / name), "its name holds a line break") for name in broken]
        units += maker.of_pictures(folder.path, [name for name in folder.files if name not in broken], prefix)
    opened, unreadable = _opened(listing.recordings, told)
    folders = recording_folders([recording for _, recording in opened])
    for (one, recording), prefix in zip(opened, folders):
        units += maker.of_recording(one, recording, f"{prefix}/")
    _refuse_twice(units)
    return tuple(units), (*faults, *unreadable)


def _refuse_twice(units: Sequence[Unit]) -> None:
    """Refuse footage of which two frames would have one mask."""
    taken: Dict[str, str] = {}
    for unit in units:
        for name in unit.mask_names():
            if name in taken:
                raise ConfigError(
                    f"two frames would be called {name}: of {taken[name]} and of {unit.path}",
                    hint="label them into folders of their own",
                )
            taken[name] = unit.path


def _opened(
    recordings: Sequence[RecordingFile], told: Told
) -> Tuple[List[Tuple[RecordingFile, Recording]], List[Fault]]:
    found, faults = [], []
    for done, one in enumerate(recordings):
        told(done, len(recordings))
        try:
            with parsing(SourceError, f"{one.path} cannot be read", hint="does a player show it to its end?"):
                meant = FootageAddress(one.asked.kind, str(one.path), one.asked.topic)
                found += [(one, recording) for recording in open_footage(meant)]
        except (SourceError, FileAccessError) as err:
            faults.append(Fault(str(one.path), err.message))
    if recordings:
        told(len(recordings), len(recordings))
    return found, faults


class _Maker:
    def __init__(self, asked: Asked, unit_frames: int) -> None:
        self._states = {state[0]: list(state) for state in asked.files}
        self._head = [asked.sha256, dict(asked.options)]
        self._most = unit_frames

    def of_pictures(self, folder: Path, files: Sequence[str], prefix: str) -> Iterator[Unit]:
        stems = [str(Path(name).with_suffix("")) for name in files]
        # Names stay whole where a.jpg and a.png lie side by side, or a.jpg and a.jpg.png.
        twice = {stem for stem, count in collections.Counter(stems).items() if count > 1}.union(files)
        for start in range(0, len(files), self._most):
            part = tuple(files[start : start + self._most])
            names = [name if stem in twice else stem for name, stem in zip(part, stems[start : start + self._most])]
            states = [self._states[str(folder / name)] for name in part]
            yield Unit(
                id=self._id("pictures", states, ""),
                kind="pictures",
                path=str(folder),
                topic="",
                files=part,
                numbers=(),
                folder=prefix,
                names=tuple(names),
            )

    def of_recording(self, one: RecordingFile, recording: Recording, prefix: str) -> Iterator[Unit]:
        numbers = numbers_every(recording, one.asked.every_s, one.asked.from_s, one.asked.to_s)
        own = str(one.path)
        below = [path for path in self._states if path.startswith(f"{own}/")] if own not in self._states else [own]
        states = [self._states[path] for path in sorted(below)]
        taken: Set[str] = set()
        for part in _cut(numbers, recording.keys, self._most):
            names = [frame_name(int(recording.times_ns[number]), number, taken) for number in part]
            yield Unit(
                id=self._id(one.asked.kind, states, [recording.topic, part]),
                kind=one.asked.kind,
                path=str(one.path),
                topic=one.asked.topic or "",
                files=(),
                numbers=tuple(part),
                folder=prefix,
                names=tuple(names),
            )

    def _id(self, kind: str, states: Sequence[Any], part: Any) -> str:
        text = json.dumps([FORMAT, *self._head, kind, states, part], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _cut(numbers: Sequence[int], keys: np.ndarray, most: int) -> Iterator[List[int]]:
    """Parts of at most ``most`` frames; the next begins at the last key frame of the second half, if there is one."""
    start = 0
    while start < len(numbers):
        end = min(start + most, len(numbers))
        if end < len(numbers):
            half = range(end, start + most // 2, -1)
            end = next((place for place in half if keys[numbers[place]]), end)
        yield list(numbers[start:end])
        start = end


def _root_names(roots: Sequence[Path], recordings: int) -> List[str]:
    """What goes before the pictures of each folder: nothing where it is the only one, and nothing else is labelled."""
    if len(roots) == 1 and not recordings:
        return [""]
    stems = [plain_name(root.name) for root in roots]
    return [f"{name}/" if stems.index(name) == place else f"{name}-{place + 1}/" for place, name in enumerate(stems)]
