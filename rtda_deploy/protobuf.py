"""The wire format of protobuf, as far as reading files needs it (ONNX, MCAP): a message is walked over, field by field.

Nothing is copied that is not asked for, so that a file of gigabytes takes no longer than a small one, and every length
is held against the bytes that are there: a file that was cut off is told from a whole one.

Source: protobuf's "Encoding" page.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple, Union

__all__ = ["BrokenMessage", "Message"]

Value = Union[int, Tuple[int, int]]  # a number, or where the bytes of a field begin and end

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class BrokenMessage(Exception):
    """Bytes that are no protobuf message of the expected kind."""


class Message:
    """One protobuf message: a range of bytes that is walked over once for each question.

    Every method raises :class:`BrokenMessage` where the bytes are no protobuf message, end too early, or hold a number
    where text or a message is asked for and the other way round.
    """

    def __init__(self, content: Any, begin: int, end: int) -> None:
        self._content, self._begin, self._end = content, begin, end

    def numbers(self, field: int) -> List[int]:
        """Every value of a field of numbers."""
        found = []
        for value in self._values(field):
            if not isinstance(value, int):
                raise BrokenMessage("a message where a number is expected")
            found.append(value)
        return found

    def messages(self, field: int) -> List[Message]:
        """The messages in a field; none of them is walked over yet."""
        found = []
        for value in self._values(field):
            if isinstance(value, int):
                raise BrokenMessage("a number where a message is expected")
            found.append(Message(self._content, *value))
        return found

    def texts(self, field: int) -> List[str]:
        """Every value of a field of text, which is UTF-8."""
        return [bytes(part.content).decode("utf-8") for part in self.messages(field)]

    @property
    def content(self) -> Any:
        """Its bytes, a piece of what it was made of: of a ``memoryview``, not copied."""
        return self._content[self._begin : self._end]

    def number(self, field: int) -> int:
        """The last number in a field, which is the one that counts; 0 where there is none."""
        return (self.numbers(field) or [0])[-1]

    def text(self, field: int) -> str:
        """The last text in a field, which is the one that counts; empty where there is none."""
        return (self.texts(field) or [""])[-1]

    def _values(self, wanted: int) -> Iterator[Value]:
        return (value for number, value in self._fields() if number == wanted)

    def _fields(self) -> Iterator[Tuple[int, Value]]:
        """Number and value of each field, in the order of the file."""
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
