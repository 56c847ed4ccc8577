"""The metadata reader, on bytes written by hand and on files of the onnx package."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rtda_deploy.errors import EngineError, FileAccessError, SpecError
from rtda_deploy.onnx_file import read_onnx_metadata, spec_from_metadata
from rtda_deploy.spec import ModelSpec

SPEC = ModelSpec(size_hw=(64, 96), class_names=("road", "sky"), palette=((128, 64, 128), (70, 130, 180)))


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _entry(key: str, value: str) -> bytes:
    return _field(14, _field(1, key.encode()) + _field(2, value.encode()))


IR_VERSION = _varint(1 << 3) + _varint(8)
GRAPH = _field(7, b"\x0a\x03abc")
MODEL = IR_VERSION + _entry("author", "me") + GRAPH + _entry("rtda.spec", SPEC.to_json())


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_entries_before_and_after_the_graph_are_found(tmp_path: Path) -> None:
    found = read_onnx_metadata(_written(tmp_path / "a.onnx", MODEL))
    assert set(found) == {"author", "rtda.spec"}
    assert spec_from_metadata(found, "a.onnx") == SPEC


def test_a_file_without_metadata_has_none_and_its_spec_is_asked_for(tmp_path: Path) -> None:
    found = read_onnx_metadata(_written(tmp_path / "a.onnx", IR_VERSION + GRAPH))
    assert found == {}
    with pytest.raises(SpecError, match=r"a\.onnx says nothing") as caught:
        spec_from_metadata(found, "a.onnx")
    assert "--spec" in caught.value.hint


def test_text_of_all_languages_survives_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    content = IR_VERSION + GRAPH + _entry("name", "first") + _entry("name", "Straße 道路")
    assert read_onnx_metadata(_written(tmp_path / "a.onnx", content)) == {"name": "Straße 道路"}


def test_fields_of_fixed_length_and_of_later_versions_are_stepped_over(tmp_path: Path) -> None:
    later = _varint(99 << 3 | 1) + bytes(8) + _varint(98 << 3 | 5) + bytes(4) + _field(97, b"new")
    assert read_onnx_metadata(_written(tmp_path / "a.onnx", later + MODEL))["author"] == "me"


def test_weights_of_gigabytes_are_stepped_over_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    weights = 5 << 30
    with path.open("wb") as stream:
        stream.write(IR_VERSION + _varint(7 << 3 | 2) + _varint(weights))
        stream.seek(weights, os.SEEK_CUR)  # a hole: it takes no room on the disk
        stream.write(_entry("author", "me"))
    assert read_onnx_metadata(path) == {"author": "me"}


@pytest.mark.parametrize("cut", [*range(1, 60, 3), len(MODEL) - 1])
def test_a_file_cut_anywhere_is_refused_or_lacks_only_what_was_cut(tmp_path: Path, cut: int) -> None:
    path = _written(tmp_path / "a.onnx", MODEL[:cut])
    try:
        found = read_onnx_metadata(path)
    except EngineError as err:
        assert err.why and err.hint
    else:
        assert cut >= len(IR_VERSION + _entry("author", "me") + GRAPH)
        assert found == {"author": "me"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"hello world, no model at all", "unknown wire type 4"),
        (b"\x00\x00", "field 0"),
        (b"\x08" + b"\xff" * 11, "longer than 64 bits"),
        (IR_VERSION, "no graph"),
        (GRAPH + b"\x72\xff\xff\xff\xff\x7f", "are left"),
        (GRAPH + _field(14, b"\x0a\x7fab"), "are left"),  # an entry whose text is longer than the entry
        (GRAPH + _field(14, _field(1, b"\xff\xfe")), "utf-8"),
        (b"\x80", "inside a number"),
    ],
)
def test_bytes_that_are_no_model_are_refused_with_what_is_wrong(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(EngineError, match=r"a\.onnx is no whole ONNX file") as caught:
        read_onnx_metadata(_written(tmp_path / "a.onnx", content))
    assert re.search(why, caught.value.why)


def test_missing_and_empty_files_are_file_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    for name in ("gone.onnx", "empty.onnx"):
        with pytest.raises(FileAccessError, match=name):
            read_onnx_metadata(tmp_path / name)


def test_it_reads_what_the_onnx_package_writes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph)
    entries = {"rtda.spec": SPEC.to_json(), "empty": "", "long": "x" * 100_000}
    onnx.helper.set_model_props(model, entries)
    assert read_onnx_metadata(_written(tmp_path / "real.onnx", model.SerializeToString())) == entries
