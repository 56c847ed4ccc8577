"""The wire format of protobuf, as far as reading an ONNX file needs it: a message is walked over, field by field.

Nothing is copied that is not asked for, so that a file of gigabytes takes no longer than a small one, and every length
is held against the bytes that are there: a file that was cut off is told from a whole one.

Source: protobuf's "Encoding" page.
"""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path
from typing import Any, Iterator, Tuple, Type, Union

from rtda_deploy.border import reason
from rtda_deploy.errors import RtdaError
from rtda_deploy.files import file_error, readable_file
from rtda_deploy.model_files import impostor

__all__ = ["BrokenMessage", "Message", "Value", "number_of", "open_onnx_message"]

Value = Union[int, Tuple[int, int]]  # a number, or where the bytes of a field begin and end

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class BrokenMessage(Exception):
    """Bytes that are no protobuf message of the expected kind."""


class Message:
    """One protobuf message: a range of bytes that is walked over, field by field."""

    def __init__(self, content: Any, begin: int, end: int) -> None:
        self._content, self._begin, self._end = content, begin, end

    def fields(self) -> Iterator[Tuple[int, Value]]:
        """Number and value of each field, in the order of the file.

        Raises:
            BrokenMessage: Where the bytes are no protobuf message, or end too early.
        """
        place = self._begin
        while place < self._end:
            key, place = self._varint(place)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise BrokenMessage(f"field 0 at byte {place}")
            if kind == _VARINT:
                value, place = self._varint(place)
                yield number, value
                continue
            length = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if kind == _BYTES:
                length, place = self._varint(place)
            if length is None:
                raise BrokenMessage(f"unknown wire type {kind} at byte {place}")
            if length > self._end - place:
                raise BrokenMessage(f"a field at byte {place} needs {length} bytes, {self._end - place} are left")
            yield number, (place, place + length)
            place += length

    def inner(self, value: Value) -> Message:
        """The message in a field."""
        begin, end = _range(value)
        return Message(self._content, begin, end)

    def text(self, value: Value) -> str:
        """The text in a field."""
        begin, end = _range(value)
        return bytes(self._content[begin:end]).decode("utf-8")

    def entry(self) -> Tuple[str, str]:
        """Key and value of a StringStringEntryProto."""
        texts = {1: "", 2: ""}
        for number, value in self.fields():
            if number in texts:
                texts[number] = self.text(value)
        return texts[1], texts[2]

    def _varint(self, place: int) -> Tuple[int, int]:
        value = shift = 0
        while True:
            if place >= self._end:
                raise BrokenMessage(f"it ends inside a number at byte {place}")
            if shift > 63:
                raise BrokenMessage(f"a number at byte {place} is longer than 64 bits")
            byte = self._content[place]
            value |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                return value, place


def _range(value: Value) -> Tuple[int, int]:
    if isinstance(value, int):
        raise BrokenMessage("a number where a message is expected")
    return value


def number_of(value: Value) -> int:
    """The number in a field.

    Raises:
        BrokenMessage: If it holds bytes.
    """
    if not isinstance(value, int):
        raise BrokenMessage("a message where a number is expected")
    return value


@contextlib.contextmanager
def open_onnx_message(path: Union[str, Path], error: Type[RtdaError]) -> Iterator[Message]:
    """The message that an ``.onnx`` file is, open while the block runs; what is broken in it is raised as ``error``.

    Raises:
        FileAccessError: If the file cannot be read.
    """
    file = readable_file(path, what="model")
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield Message(content, 0, len(content))
    except OSError as err:
        raise file_error(err, file, "read") from err
    except RtdaError:
        raise
    except Exception as err:  # whatever walking over garbage leads to
        found = impostor(file)
        raise error(
            f"{file.name} is no whole ONNX file",
            why=f"it is {found.text}: {reason(err)}" if found else reason(err),
            hint=found.hint
            if found
            else "was it copied to its end? Compare its size with the original's, or export it again",
        ) from err
