"""What every file of a bag promises: its topics, when messages were logged, and any of them by its place."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Callable, ContextManager, Iterable, NamedTuple, Sequence, Tuple

import numpy as np

from rtda_runtime.sources.footage.bags.messages import picture_type, readable

__all__ = ["Entries", "MessageReader", "Storage", "Topic", "entries_of"]

MessageReader = Callable[[Tuple[int, int]], bytes]  # the message at a place


class Topic(NamedTuple):
    """Messages of one name, type and encoding in one file.

    Attributes:
        name: Such as ``/front/image_raw``.
        type: As the file has it: ``sensor_msgs/msg/Image``.
        wire: How its messages are encoded: one of :data:`.messages.WIRES`, or what nothing here reads.
        num_messages: How many it has.
        ids: What the file calls it; several where several programs published.
    """

    name: str
    type: str
    wire: str
    num_messages: int
    ids: Tuple[int, ...]

    @property
    def kind(self) -> str:
        """The short name of its type, where its messages hold pictures; else empty."""
        return picture_type(self.type) or ""

    @property
    def readable(self) -> bool:
        """Whether its messages are read here."""
        return bool(self.kind) and readable(self.kind, self.wire)


class Entries(NamedTuple):
    """When the messages of a topic were logged, and where they stand.

    Attributes:
        log_ns: int64 (N,), nanoseconds since 1970, in the order of the file.
        places: int64 (N, 2); what they mean is the file's own.
    """

    log_ns: np.ndarray
    places: np.ndarray


class Storage(abc.ABC):
    """One file of a bag. It is closed but while a reader is open.

    Attributes:
        path: The file.
        topics: What it holds, in the file's own order.
        notes: What a person should know: that it is cut off.
        holds: What has to live as long as it does: a temporary file.
    """

    path: Path
    topics: Sequence[Topic]
    notes: Sequence[str] = ()
    holds: object = None

    @abc.abstractmethod
    def entries(self, topic: Topic) -> Entries:
        """The messages of a topic, without reading them where the file has an index.

        Raises:
            SourceError: If the file is damaged.
        """

    @abc.abstractmethod
    def reader(self) -> ContextManager[MessageReader]:
        """Opens the file; what it gives returns the bytes of the message at a place.

        Any exception of it means that this message cannot be read.
        """


def entries_of(rows: Iterable[Tuple[int, int, int]]) -> Entries:
    """Of time and place, row by row."""
    table = np.fromiter((number for row in rows for number in row), np.int64).reshape(-1, 3)
    return Entries(table[:, 0], table[:, 1:])
