"""``.db3``: the bags of ROS 2 in SQLite. Its tables are read with Python's own ``sqlite3``.

Source: rosbag2_storage_sqlite3, tables ``topics`` and ``messages``.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import ContextManager, Iterator, List, Tuple
from urllib.parse import quote

from rtda_deploy.border import parsing
from rtda_deploy.errors import SourceError
from rtda_runtime.sources.footage.bags.packed import unpacked
from rtda_runtime.sources.footage.bags.storage import Entries, MessageReader, Storage, Topic, entries_of

__all__ = ["SqliteStorage"]

_WAL = b"\x02\x02"  # bytes 18 and 19 of a file whose writer keeps a second file, -wal


class SqliteStorage(Storage):
    """Places are (id of the row, 0).

    Args:
        path: What is read.
        shown: What to call it, where ``path`` is a temporary file.

    Raises:
        SourceError: If it is no bag of ROS 2, or damaged.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self.path = path
        self._shown = shown
        with self._parsing(), self._connection() as connection:
            self.topics = self._topics(connection)

    def entries(self, topic: Topic) -> Entries:
        marks = ",".join("?" * len(topic.ids))
        query = f"SELECT timestamp, id, 0 FROM messages WHERE topic_id IN ({marks}) ORDER BY id"
        with self._parsing(), self._connection() as connection:
            return entries_of(connection.execute(query, topic.ids))

    @contextlib.contextmanager
    def reader(self) -> Iterator[MessageReader]:
        with self._connection() as connection:

            def message(place: Tuple[int, int]) -> bytes:
                row = connection.execute("SELECT data FROM messages WHERE id = ?", place[:1]).fetchone()
                return unpacked(bytes(row[0]))

            yield message

    def _topics(self, connection: sqlite3.Connection) -> List[Topic]:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"topics", "messages"} <= tables:
            raise SourceError(
                f"{self._shown} is an SQLite file, but no bag of ROS 2",
                why=f"it has no tables 'topics' and 'messages', but {', '.join(sorted(tables)) or 'none'}",
                hint="name the .db3 file that ros2 bag record wrote, or its folder",
            )
        counts = dict(connection.execute("SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id").fetchall())
        query = "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
        rows = connection.execute(query)
        return [Topic(name, type_, wire, counts.get(id_, 0), (id_,)) for id_, name, type_, wire in rows]

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Read only, and nothing is written beside the file: one that another process writes is read as it is now."""
        with self.path.open("rb") as stream:
            keeps_wal = stream.read(20)[18:20] == _WAL
        whole = keeps_wal and not Path(f"{self.path}-wal").exists()
        address = f"file:{quote(str(self.path.resolve()))}?mode=ro" + ("&immutable=1" if whole else "")
        # One thread at a time, but not one alone: a player opens it, another thread reads on.
        with contextlib.closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            yield connection

    def _parsing(self) -> ContextManager[None]:
        hint = f"copy it again; what is left of it: sqlite3 {self._shown.name} .recover | sqlite3 whole.db3"
        return parsing(SourceError, f"{self._shown} cannot be read as a bag of ROS 2", hint=hint)
