"""The metadata of an ``.onnx`` file, read without the onnx package and without reading its weights.

An ONNX file is one protobuf message, a row of fields each with its length. All but the metadata are stepped over with
a seek, so that a file of gigabytes takes no longer than a small one. Every length is held against the bytes that are
there: a file that was cut off is told from a whole one.

Source: onnx/onnx.proto3 (ModelProto, StringStringEntryProto); protobuf's "Encoding" page for the wire format.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, Mapping, Tuple, Union

from rtda_deploy.errors import EngineError, SpecError
from rtda_deploy.files import file_error, readable_file
from rtda_deploy.spec import ModelSpec

__all__ = ["PRECISION_KEY", "SPEC_KEY", "precision_from_metadata", "read_onnx_metadata", "spec_from_metadata"]

SPEC_KEY = "rtda.spec"  # name of the ModelSpec in the metadata
PRECISION_KEY = "rtda.precision"  # name of what FP16 rescue and calibration found, JSON

_GRAPH, _METADATA = 7, 14  # fields of ModelProto
_KEY, _VALUE = 1, 2  # fields of StringStringEntryProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST_ENTRY = 64 << 20  # bytes; a spec has about 4 KiB, and no more than this is read into memory at once


def read_onnx_metadata(path: Union[str, Path]) -> Dict[str, str]:
    """The ``metadata_props`` of an ONNX file, key to value; of a key that is there twice, the last.

    Raises:
        EngineError: If it is no whole ONNX file.
        FileAccessError: If it cannot be read.
    """
    file = readable_file(path, what="model")
    try:
        with file.open("rb") as stream:
            return _metadata(stream, os.fstat(stream.fileno()).st_size)
    except OSError as err:
        raise file_error(err, file, "read") from err
    except (_Broken, UnicodeDecodeError) as err:
        raise EngineError(
            f"{file.name} is no whole ONNX file",
            why=str(err),
            hint="was it copied to its end? Compare its size with the original's, or export it again",
        ) from err


def spec_from_metadata(metadata: Dict[str, str], name: str) -> ModelSpec:
    """The spec in a file's metadata; ``name`` is the file's, for errors.

    Raises:
        SpecError: If there is none, or it is broken.
    """
    text = metadata.get(SPEC_KEY)
    if not text:
        raise SpecError(
            f"{name} says nothing about its classes, mean and size (no {SPEC_KEY} in its metadata)",
            hint=f"write them into the file: rtda-deploy export {name} --spec spec.json",
        )
    return ModelSpec.from_json(text, where=f"{SPEC_KEY} in {name}")


def precision_from_metadata(metadata: Mapping[str, str]) -> Dict[str, Any]:
    """What an export wrote of the file's precision: ``precision``, ``keep_fp32`` or ``kept_float``, and reasons.

    ``{"precision": "fp32"}`` where it wrote nothing that can be read.
    """
    with contextlib.suppress(ValueError):
        found = json.loads(metadata.get(PRECISION_KEY, ""))
        if isinstance(found, dict):
            return {"precision": "fp32", **found}
    return {"precision": "fp32"}


class _Broken(Exception):
    """Bytes that are no ONNX file."""


def _metadata(stream: BinaryIO, size: int) -> Dict[str, str]:
    found: Dict[str, str] = {}
    has_graph = False
    for number, kind, length in _fields(stream, size):
        has_graph = has_graph or (number == _GRAPH and kind == _BYTES)
        if number == _METADATA and kind == _BYTES:
            key, value = _entry(stream, stream.tell(), length)
            found[key] = value
    if not has_graph:
        raise _Broken("it holds no graph")
    return found


def _entry(stream: BinaryIO, begin: int, length: int) -> Tuple[str, str]:
    texts = {_KEY: "", _VALUE: ""}
    for number, kind, size in _fields(stream, begin + length):
        if number in texts and kind == _BYTES:
            if size > _LONGEST_ENTRY:
                raise _Broken(f"an entry of its metadata has {size} bytes")
            texts[number] = stream.read(size).decode("utf-8")
    return texts[_KEY], texts[_VALUE]


def _fields(stream: BinaryIO, end: int) -> Iterator[Tuple[int, int, int]]:
    """Number, wire type and length of each field up to ``end``; the stream stands at its first byte, and may be moved.

    The length of a number is 0: it was read.
    """
    place = stream.tell()
    while place < end:
        stream.seek(place)
        key = _varint(stream, end)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _varint(stream, end)
            length = 0
        elif kind == _BYTES:
            length = _varint(stream, end)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _Broken(f"it has a field of unknown kind {kind} at byte {place}")
        if number == 0:
            raise _Broken(f"it has a field without a number at byte {place}")
        place = stream.tell()
        if length > end - place:
            raise _Broken(f"a field at byte {place} needs {length} bytes, {end - place} are left")
        yield number, kind, length
        place += length


def _varint(stream: BinaryIO, end: int) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1) if stream.tell() < end else b""
        if not byte:
            raise _Broken(f"it ends inside a number, at byte {end}")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _Broken("it has a number of more than 64 bits")
