"""``.mcap``, by mcap: of ROS 1, of ROS 2 and of any other program."""

from __future__ import annotations

import collections
import contextlib
import io
import struct
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

from rtda_deploy.border import parsing
from rtda_deploy.errors import RtdaError, SourceError
from rtda_deploy.optional import require
from rtda_runtime.sources.footage.bags.messages import picture_type
from rtda_runtime.sources.footage.bags.packed import unpacked
from rtda_runtime.sources.footage.bags.storage import Entries, MessageReader, Storage, Topic, entries_of

__all__ = ["MCAP_MAGIC", "McapStorage"]

MCAP_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")  # kind and length
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQII")  # first and last time, size, checksum, length of the compression's name
_SCHEMA, _CHANNEL, _CHUNKED, _LOOSE, _DATA_END, _FOOTER = 3, 4, 6, 5, 15, 2  # kinds of records
_COMPRESSIONS = ("", "lz4", "zstd")

Row = Tuple[int, int, int]  # log time, and the place


class _Contents(NamedTuple):
    """Channels, names of types by their schemas' ids, and how many messages each channel has."""

    channels: Dict[int, Any]
    types: Dict[int, str]
    counts: Dict[int, int]


class McapStorage(Storage):
    """Places are (-1, where a record begins in the file), or (where its compressed chunk begins, where in it).

    A file with a summary is read by its own index; any other is walked through once, and read as far as it is whole.

    Raises:
        SourceError: If it is no MCAP, holds no whole message, or is compressed in a way that mcap does not know.
        MissingPackageError: If mcap is not installed.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self.path = path
        self._shown = shown
        self._mcap = _Library()
        self._rows: Optional[Dict[int, List[Row]]] = None
        self.notes: List[str] = []
        with self._stream() as stream:
            self._summary = self._read_summary(stream)
            contents = self._contents() if self._summary else self._walk(stream)
        self.topics = _topics(contents)

    def entries(self, topic: Topic) -> Entries:
        with self._stream() as stream:
            if self._rows is None:
                rows = [row for chunk in self._chunks() for row in self._indexed(stream, chunk, topic.ids)]
                if len(rows) == topic.num_messages:
                    return entries_of(rows)
                self._walk(stream)  # its index does not name all of them
            walked = self._rows or {}
            return entries_of(sorted((row for id_ in topic.ids for row in walked.get(id_, ())), key=_place))

    @contextlib.contextmanager
    def reader(self) -> Iterator[MessageReader]:
        with self.path.open("rb") as stream:
            kept: Dict[int, bytes] = {}

            def message(place: Tuple[int, int]) -> bytes:
                chunk, offset = place
                if chunk < 0:
                    stream.seek(offset)
                    _, length = _RECORD.unpack(stream.read(_RECORD.size))
                    content = stream.read(length)
                else:
                    if chunk not in kept:
                        kept.clear()  # one at a time
                        kept[chunk] = self._chunk_data(stream, chunk)
                    _, length = _RECORD.unpack_from(kept[chunk], offset)
                    content = kept[chunk][offset + _RECORD.size : offset + _RECORD.size + length]
                if len(content) < length:
                    raise EOFError("it ends inside a message")
                return unpacked(content[_MESSAGE.size :])

            yield message

    @contextlib.contextmanager
    def _stream(self) -> Iterator[BinaryIO]:
        hint = f"what is whole of it: mcap recover {self._shown.name} -o whole.mcap"
        with parsing(SourceError, f"{self._shown} cannot be read as MCAP", hint=hint), self.path.open("rb") as stream:
            yield stream

    def _read_summary(self, stream: BinaryIO) -> Any:
        """None: it has none, or one that is not whole."""
        end = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, end - len(MCAP_MAGIC)))
        if end < 2 * len(MCAP_MAGIC) or stream.read() != MCAP_MAGIC:
            self.notes.append("it has no end: it was cut off, or is being written; read as far as it is whole")
            return None
        stream.seek(0)
        summary = self._mcap.summary(stream)
        statistics = summary.statistics if summary else None
        whole = (
            statistics is not None
            and statistics.chunk_count == len(summary.chunk_indexes)
            and statistics.channel_count == len(summary.channels)
            and statistics.schema_count == len(summary.schemas)
            and all(chunk.message_index_offsets or not chunk.message_index_length for chunk in summary.chunk_indexes)
        )
        if not whole:
            return None
        for chunk in summary.chunk_indexes:
            self._check_compression(chunk.compression)
        return summary

    def _contents(self) -> _Contents:
        types = {id_: schema.name for id_, schema in self._summary.schemas.items()}
        return _Contents(self._summary.channels, types, self._summary.statistics.channel_message_counts)

    def _chunks(self) -> List[Any]:
        """In the order of the file."""
        return sorted(self._summary.chunk_indexes, key=lambda chunk: chunk.chunk_start_offset)

    def _indexed(self, stream: BinaryIO, chunk: Any, ids: Tuple[int, ...]) -> List[Row]:
        """Times and places of the messages of some channels in a chunk, by its index."""
        start = chunk.chunk_start_offset
        plain = start + _RECORD.size + _CHUNK.size + 8  # where the records of one without compression begin
        found: List[Row] = []
        for id_ in ids:
            offset = chunk.message_index_offsets.get(id_)
            if offset is not None:
                stream.seek(offset + _RECORD.size)
                for log_ns, inner in self._mcap.message_index(stream):
                    found.append((log_ns, start, inner) if chunk.compression else (log_ns, -1, plain + inner))
        return sorted(found, key=_place)

    def _walk(self, stream: BinaryIO) -> _Contents:
        """Go through the records of the file one by one, without reading pixels that are not compressed."""
        contents = _Contents({}, {}, collections.Counter())
        self._rows = collections.defaultdict(list)  # of topics that hold pictures
        end = stream.seek(0, io.SEEK_END)
        place = len(MCAP_MAGIC)
        broken = 0
        while place + _RECORD.size <= end:
            stream.seek(place)
            kind, length = _RECORD.unpack(stream.read(_RECORD.size))
            if kind in (_DATA_END, _FOOTER) or place + _RECORD.size + length > end:
                break
            if kind == _CHUNKED:
                try:
                    self._walk_chunk(self._chunk_data(stream, place), place, contents)
                except RtdaError:
                    raise
                except Exception:
                    broken += 1
            elif kind in (_SCHEMA, _CHANNEL, _LOOSE):
                content = stream.read(_MESSAGE.size if kind == _LOOSE else length)
                self._note_record(kind, content, (-1, place), contents)
            place += _RECORD.size + length
        if broken:
            self.notes.append(f"{broken} of its chunks are damaged and left out")
        return contents

    def _walk_chunk(self, data: bytes, chunk: int, contents: _Contents) -> None:
        place = 0
        while place + _RECORD.size <= len(data):
            kind, length = _RECORD.unpack_from(data, place)
            begin = place + _RECORD.size
            if begin + length > len(data):
                break
            size = _MESSAGE.size if kind == _LOOSE else length
            self._note_record(kind, data[begin : begin + size], (chunk, place), contents)
            place = begin + length

    def _note_record(self, kind: int, content: bytes, place: Tuple[int, int], contents: _Contents) -> None:
        if kind == _SCHEMA:
            schema = self._mcap.schema(content)
            contents.types[schema.id] = schema.name
        elif kind == _CHANNEL:
            channel = self._mcap.channel(content)
            contents.channels[channel.id] = channel
        elif kind == _LOOSE and self._rows is not None:
            id_, _, log_ns, _ = _MESSAGE.unpack(content)
            contents.counts[id_] += 1
            channel = contents.channels.get(id_)
            if channel is not None and picture_type(contents.types.get(channel.schema_id, "")):
                self._rows[id_].append((log_ns, *place))

    def _chunk_data(self, stream: BinaryIO, start: int) -> bytes:
        stream.seek(start + _RECORD.size)
        chunk = self._mcap.chunk(stream)
        self._check_compression(chunk.compression)
        return self._mcap.chunk_data(chunk)

    def _check_compression(self, compression: str) -> None:
        if compression not in _COMPRESSIONS:
            raise SourceError(
                f"{self._shown} is compressed with {compression!r}, which is unknown",
                hint=f"known: {', '.join(filter(None, _COMPRESSIONS))}; where it was recorded:"
                f" mcap compress {self._shown.name} --compression zstd -o other.mcap",
            )


class _Library:
    """What is used of mcap, the same in 1.0 and 1.6."""

    def __init__(self) -> None:
        asked = {"extra": "footage", "purpose": "to read MCAP files"}
        self._reader: Any = require("mcap.reader", **asked)
        self._streams: Any = require("mcap.stream_reader", **asked)
        self._records: Any = require("mcap.records", **asked)
        self._data: Any = require("mcap.data_stream", **asked)

    def summary(self, stream: BinaryIO) -> Any:
        return self._reader.make_reader(stream).get_summary()

    def schema(self, content: bytes) -> Any:
        return self._records.Schema.read(self._data.ReadDataStream(io.BytesIO(content)))

    def channel(self, content: bytes) -> Any:
        return self._records.Channel.read(self._data.ReadDataStream(io.BytesIO(content)))

    def chunk(self, stream: BinaryIO) -> Any:
        return self._records.Chunk.read(self._data.ReadDataStream(stream))

    def chunk_data(self, chunk: Any) -> bytes:
        """What is in a chunk, its checksum compared."""
        data, length = self._streams.get_chunk_data_stream(chunk, validate_crc=True)
        return bytes(data.read(length))

    def message_index(self, stream: BinaryIO) -> List[Tuple[int, int]]:
        """Log times and offsets."""
        found: List[Tuple[int, int]] = self._records.MessageIndex.read(self._data.ReadDataStream(stream)).records
        return found


def _topics(contents: _Contents) -> List[Topic]:
    """Channels of one name, type and encoding are one topic."""
    found: Dict[Tuple[str, str, str], List[int]] = {}
    for id_, channel in contents.channels.items():
        type_ = contents.types.get(channel.schema_id, "")
        found.setdefault((channel.topic, type_, channel.message_encoding), []).append(id_)
    return [Topic(*key, sum(contents.counts.get(id_, 0) for id_ in ids), tuple(ids)) for key, ids in found.items()]


def _place(row: Row) -> Tuple[int, int]:
    return row[1:]
