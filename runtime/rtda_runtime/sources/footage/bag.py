"""Bags: ROS 1, ROS 2 (SQLite and MCAP, several files, compressed), and MCAP of any program; one topic of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional
from urllib.parse import quote

from rtda_deploy.errors import RtdaError, SourceError
from rtda_runtime.sources.footage.bags.files import bag_files, open_storage
from rtda_runtime.sources.footage.bags.recording import BagRecording, Part

__all__ = ["open_bag_recording"]

_OURS = ("/rtda/mask", "/rtda/overlay")  # what --publish mcap: writes: pictures, but not what the camera saw
_KINDS = "sensor_msgs/Image, sensor_msgs/CompressedImage, foxglove CompressedImage, CompressedVideo, RawImage"
_MOST_LISTED = 12

_Topics = Dict[str, List[Part]]


def open_bag_recording(path: Path, topic: Optional[str]) -> BagRecording:
    """A topic of pictures of a bag; it holds no file open.

    Args:
        path: A ``.bag``, ``.db3`` or ``.mcap``, or the folder of a ``metadata.yaml``.
        topic: None: the only one that has pictures.

    Raises:
        FileAccessError: If a file is missing, empty or unreadable.
        SourceError: If it is no bag, holds no pictures that are read, or several topics of them and none is named.
        MissingPackageError: If the package that reads it is not installed.
    """
    files = bag_files(path)
    parts = [Part(storage, found) for storage in map(open_storage, files) for found in storage.topics]
    topics: _Topics = {}
    for part in parts:
        if part.topic.kind and part.topic.num_messages:
            topics.setdefault(part.topic.name, []).append(part)
    if not topics:
        raise _no_pictures(path, parts)
    name = _typed(path, topics, topic) if topic is not None else _only(path, files, topics)
    chosen = topics[name]
    first = max(chosen, key=lambda part: part.topic.num_messages).topic
    if not first.readable:
        raise SourceError(
            f"{path}: {name} holds {first.type} in the encoding {first.wire!r}, which is not read",
            hint="read are ros1 and cdr of ROS; protobuf and json of Foxglove's types",
        )
    same = [part for part in chosen if part.topic.kind == first.kind and part.topic.readable]
    return BagRecording(files, same, f"{path} {name}" if len(topics) > 1 else str(path))


def _typed(path: Path, topics: _Topics, topic: str) -> str:
    """The name in the bag of a topic that was typed, with or without its first slash."""
    for name in (topic, f"/{topic}"):
        if name in topics:
            return name
    raise SourceError(f"{path} has no pictures in a topic {topic}", why=_listed(topics), hint=_addresses(path, topics))


def _only(path: Path, files: List[Path], topics: _Topics) -> str:
    """The topic that is meant where none was typed: of several those that are no depth, and not our own masks."""
    filmed = [name for name in topics if name not in _OURS]
    if len(filmed) > 1:
        filmed = [name for name in filmed if not _is_depth(files, topics[name])] or filmed
    if len(filmed) == 1:
        return filmed[0]
    if not filmed:
        raise SourceError(
            f"{path} holds masks and overlays of rtda-deploy, not what its camera saw",
            why=_listed(topics),
            hint=f"to see one all the same: {_addresses(path, topics)}",
        )
    raise SourceError(
        f"{path} has {len(filmed)} topics of pictures",
        why=_listed({name: topics[name] for name in filmed}),
        hint=f"name one: {_addresses(path, filmed)}",
    )


def _is_depth(files: List[Path], parts: List[Part]) -> bool:
    """Whether the first message is depth or raw sensor data."""
    part = parts[0]
    if not part.topic.readable or part.topic.kind == "foxglove/CompressedVideo":
        return False
    try:
        BagRecording(files, [part], part.topic.name)
    except RtdaError as err:
        return "depth" in f"{err.message} {err.why}".lower()
    return False


def _listed(topics: _Topics) -> str:
    """``/front (sensor_msgs/msg/Image, 120 messages), ...``"""
    lines = [
        f"{name} ({parts[0].topic.type}, {sum(part.topic.num_messages for part in parts)} messages)"
        for name, parts in topics.items()
    ]
    more = [f"and {len(lines) - _MOST_LISTED} more"] if len(lines) > _MOST_LISTED else []
    return "it has " + ", ".join([*lines[:_MOST_LISTED], *more])


def _addresses(path: Path, names: object) -> str:
    assert isinstance(names, (list, dict))
    return "   ".join(f"bag:{path}?topic={quote(name)}" for name in list(names)[:_MOST_LISTED])


def _no_pictures(path: Path, parts: List[Part]) -> SourceError:
    counts: Dict[str, int] = {}
    for part in parts:
        counts[part.topic.type] = counts.get(part.topic.type, 0) + part.topic.num_messages
    held = [f"{type_ or 'no type'} ({count})" for type_, count in counts.items() if count]
    empty = [part.topic.name for part in parts if part.topic.kind]
    why = f"it has {', '.join(held[:_MOST_LISTED])}" if held else "it has no messages"
    if empty:
        why += f"; {', '.join(empty[:_MOST_LISTED])} is there, without messages"
    return SourceError(f"{path} holds no pictures", why=why, hint=f"read are {_KINDS}")
