"""``.bag`` of ROS 1, by rosbags."""

from __future__ import annotations

import contextlib
import platform
import shlex
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from rtda_deploy.border import parsing
from rtda_deploy.errors import MissingPackageError, SourceError
from rtda_deploy.optional import available, require
from rtda_runtime.sources.footage.bags.storage import Entries, MessageReader, Storage, Topic, entries_of

__all__ = ["ROS1_MAGIC", "Ros1Storage"]

ROS1_MAGIC = b"#ROSBAG V"


class Ros1Storage(Storage):
    """Places are (where a chunk begins in the file, where the message is in it).

    Raises:
        SourceError: If it is no bag of version 2.0, has no index, is encrypted, or compressed in an unknown way.
        MissingPackageError: If rosbags is not installed.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self.path = path
        self._shown = shown
        self._rosbag1 = _rosbag1()
        found: Dict[Tuple[str, str], List[Any]] = {}
        with self._bag() as bag:
            for link in bag.connections:
                found.setdefault((link.topic, link.msgtype), []).append(link)
            self.topics = [
                Topic(*key, "ros1", sum(link.msgcount for link in links), tuple(link.id for link in links))
                for key, links in found.items()
            ]
            self._entries = {topic: _entries(bag, topic) for topic in self.topics if topic.kind}

    def entries(self, topic: Topic) -> Entries:
        return self._entries[topic]

    @contextlib.contextmanager
    def reader(self) -> Iterator[MessageReader]:
        with self._bag() as bag:
            link = bag.connections[0]
            pictures = [bag.indexes[id_] for topic in self._entries for id_ in topic.ids]
            entries = {entry[1:]: entry for index in pictures for entry in index}

            def message(place: Tuple[int, int]) -> bytes:
                bag.indexes = {link.id: [entries[place]]}  # what it is to read, in whatever topic
                _, _, content = next(bag.messages([link]))
                return bytes(content)

            yield message

    @contextlib.contextmanager
    def _bag(self) -> Iterator[Any]:
        bag = self._rosbag1.Reader(self.path)
        name = shlex.quote(self._shown.name)
        hint = f"where ROS 1 is installed: rosbag reindex {name}   (its damaged parts: rosbag fix)"
        with parsing(SourceError, f"{self._shown} cannot be read as a bag of ROS 1", hint=hint):
            bag.open()
        try:
            yield bag
        finally:
            bag.close()


def _entries(bag: Any, topic: Topic) -> Entries:
    rows = [(entry.time, entry.chunk_pos, entry.offset) for id_ in topic.ids for entry in bag.indexes[id_]]
    return entries_of(sorted(rows, key=lambda row: row[1:]))


def _rosbag1() -> Any:
    if sys.version_info < (3, 10) and not available("rosbags"):
        raise MissingPackageError(
            f"package rosbags needs Python 3.10 or newer, this is {platform.python_version()}; it reads bags of ROS 1",
            hint="on another machine: pip install rosbags; rosbags-convert --src run.bag --dst run --dst-storage mcap",
        )
    return require("rosbags.rosbag1", extra="footage", purpose="to read bags of ROS 1")
