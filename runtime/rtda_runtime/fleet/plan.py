"""The plan of a label run: what is labelled with what, cut into units; ``plan.json`` in the output folder holds it.

The first run writes it, every later run into the same folder works on it, and a run that asks for something else is
refused: labels of two networks, or of footage that changed meanwhile, never lie in one folder.

A unit has at most :data:`UNIT_FRAMES` frames. Units of a video begin at a key frame where one is near, so that no
frame is decoded twice.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import ConfigError, DataError, FileAccessError, SourceError
from rtda_deploy.files import file_bytes, write_text
from rtda_runtime.fleet.listing import FileState, Listing, RecordingFile
from rtda_runtime.fleet.units import Unit
from rtda_runtime.sources.footage.address import FootageAddress
from rtda_runtime.sources.footage.base import Recording, numbers_every
from rtda_runtime.sources.footage.frame_names import frame_name, plain_name, recording_folders
from rtda_runtime.sources.footage.kinds import open_footage

__all__ = ["PLAN", "UNIT_FRAMES", "Asked", "Fault", "Plan", "make_plan"]

PLAN = "plan.json"
UNIT_FRAMES = 200  # names and numbers of so many are about 5 kB
_FORMAT = 1

Told = Callable[[int, int], None]


class Fault(NamedTuple):
    """What cannot be labelled, and why."""

    name: str
    why: str


@dataclasses.dataclass(frozen=True)
class Asked:
    """What labels depend on.

    Attributes:
        model: Name of the model file, for people.
        sha256: Of that file.
        options: ``provider``, ``confidence``, ``layout`` and the like, JSON-ready.
        files: Every file of the footage, with its size and time.
        rates: Of the recordings that are not taken whole: their path and ``every``, ``from``, ``to``, ``topic``.
    """

    model: str
    sha256: str
    options: Mapping[str, Any]
    files: Sequence[FileState]
    rates: Sequence[Tuple[str, str]]

    @classmethod
    def of(cls, model: Path, sha256: str, options: Mapping[str, Any], listing: Listing) -> Asked:
        """What a listing asks for.

        Raises:
            FileAccessError: If a file is gone.
        """
        rates = [(str(one.path), _rate(one.asked)) for one in listing.recordings]
        return cls(model.name, sha256, dict(options), listing.states(), [pair for pair in rates if pair[1]])

    def to_dict(self) -> Dict[str, Any]:
        """As it is read back from JSON, in which there are no tuples."""
        values = {
            "model": self.model,
            "sha256": self.sha256,
            "options": dict(self.options),
            "files": [list(state) for state in self.files],
            "rates": [list(pair) for pair in self.rates],
        }
        found: Dict[str, Any] = json.loads(json.dumps(values))
        return found


@dataclasses.dataclass(frozen=True)
class Plan:
    """All units of a run.

    Attributes:
        asked: What labels depend on, as :meth:`Asked.to_dict` has it.
        units: In the order of the footage.
        faults: Files that could not be planned.
        files: How many files the footage has.
    """

    asked: Dict[str, Any]
    units: Tuple[Unit, ...]
    faults: Tuple[Fault, ...]

    @property
    def frames(self) -> int:
        """Of all units."""
        return sum(len(unit) for unit in self.units)

    @property
    def files(self) -> int:
        """Of the footage."""
        return len(self.asked["files"])

    def write(self, folder: Path) -> None:
        """Write ``plan.json``, whole or not at all.

        Raises:
            FileAccessError: If it cannot be written.
        """
        values = {
            "format": _FORMAT,
            "asked": self.asked,
            "faults": [list(fault) for fault in self.faults],
            "units": [unit.to_dict() for unit in self.units],
        }
        write_text(folder / PLAN, json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Optional[Plan]:
        """The plan of an output folder; None where there is none.

        Raises:
            DataError: If the file is no plan.
        """
        path = folder / PLAN
        if not path.is_file():
            return None
        hint = "choose another --out; this folder's labels cannot be added to"
        with parsing(DataError, f"{path} is no plan of labels", hint=hint):
            values = json_values(file_bytes(path), str(path), DataError, hint=hint)
            if values["format"] != _FORMAT:
                raise DataError(f"{path} is of format {values['format']}, known is {_FORMAT}", hint=hint)
            units = tuple(Unit.of(unit) for unit in values["units"])
            return cls(values["asked"], units, tuple(Fault(*fault) for fault in values["faults"]))

    def refuse_other(self, folder: Path, asked: Asked) -> None:
        """Check that what is asked for is what this plan was made for.

        Raises:
            ConfigError: If it is not; it says what differs.
        """
        wanted = asked.to_dict()
        if wanted == self.asked:
            return
        before = self.asked
        if before["sha256"] != wanted["sha256"]:
            was, now = (f"{each['model']} ({each['sha256'][:12]})" for each in (before, wanted))
            raise ConfigError(
                f"{folder} holds labels of another model: {was}, now {now}", hint="choose another folder with --out"
            )
        if before["options"] != wanted["options"]:
            keys = sorted({*before["options"], *wanted["options"]})
            differ = [key for key in keys if before["options"].get(key) != wanted["options"].get(key)]
            told = ", ".join(f"{key} {before['options'].get(key)}, now {wanted['options'].get(key)}" for key in differ)
            raise ConfigError(
                f"{folder} holds labels made with other options: {told}", hint="type the same, or another --out"
            )
        raise ConfigError(
            f"{folder} holds labels of other footage: {_difference(before, wanted)}",
            hint="choose another folder with --out; labels of several folders may be used together",
        )


def make_plan(listing: Listing, asked: Asked, told: Told, unit_frames: int = UNIT_FRAMES) -> Plan:
    """Cut footage into units. Recordings are opened, which reads their index; a damaged one becomes a fault.

    Args:
        listing: What is to be labelled.
        asked: What labels depend on.
        told: Called with (done, total) recordings.
        unit_frames: The most frames of a unit.

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
    return Plan(asked.to_dict(), tuple(units), (*faults, *unreadable))


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
            names = [name if stem in twice else stem for name, stem in zip(part, stems[start:])]
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
        text = json.dumps([_FORMAT, *self._head, kind, states, part], sort_keys=True)
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


def _rate(asked: FootageAddress) -> str:
    return str(dataclasses.replace(asked, path="")).partition("?")[2]


def _difference(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = ({state[0]: state for state in each["files"]} for each in (before, wanted))
    changed = [path for path in old if path in new and old[path] != new[path]]
    counts = {"new": [path for path in new if path not in old], "gone": [path for path in old if path not in new]}
    told = [f"{len(paths)} files {what}, such as {paths[0]}" for what, paths in counts.items() if paths]
    told += [f"{len(changed)} files changed, such as {changed[0]}"] if changed else []
    return "; ".join(told) or "another rate or part of the recordings"
