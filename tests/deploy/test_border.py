"""Borders: whatever a parser raises is one error of the file's kind, with why and a fix; good values come through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import ConfigError, DataError, EngineError, SpecError
from rtda_deploy.model_files import impostor, is_checkpoint_name
from rtda_deploy.spec import ModelSpec


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (RecursionError("x"), "nested too deep"),
        (MemoryError(), "more memory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "utf-8"),
        (OverflowError("int too large"), "int too large"),
        (KeyError("names"), "it lacks 'names'"),
        (AttributeError("no such"), "no such"),
        (IndexError(), "IndexError"),
        (RuntimeError("first\nsecond"), "^first$"),
    ],
)
def test_every_exception_of_a_parser_is_the_kinds_error(raised: Exception, why: str) -> None:
    with pytest.raises(DataError, match=r"x\.json is none") as caught, parsing(DataError, "x.json is none", hint="fix"):
        raise raised
    assert caught.value.hint == "fix" and caught.value.__cause__ is raised
    assert re.search(why, caught.value.why)


def test_an_error_of_our_own_passes_the_border_as_it_is() -> None:
    error = ConfigError("a", hint="b")
    with pytest.raises(ConfigError) as caught, parsing(DataError, "other", hint=""):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1' + "0" * 400 + "}", "too large"),
        ('{"a": 1e999}', "too large"),
        (b"\xff\xff{}", "utf-8"),
        (r'{"a": "\ud800"}', "utf-8"),
        ("{", "Expecting"),
    ],
)
def test_json_that_holds_no_values_is_refused_with_why(text: str, why: str) -> None:
    with pytest.raises(EngineError, match=r"m\.json is no JSON") as caught:
        json_values(text, "m.json", EngineError, hint="write it again")
    assert why in caught.value.why and caught.value.hint == "write it again"


def test_json_is_read_in_every_encoding_it_may_have() -> None:
    values = {"name": "straße 😀", "n": -(2**60), "x": 0.25}
    text = json.dumps(values)
    for content in (text, text.encode(), b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), text.encode("utf-32")):
        assert json_values(content, "m.json", EngineError, hint="") == values


SPEC = ModelSpec((64, 96), ("road", "sky"), ((1, 2, 3), (4, 5, 6))).to_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size_hw": [65536, 65536]}, "4,294,967,296 pixels"),
        ({"size_hw": [10**400, 8]}, "whole number"),
        ({"mean": [float("nan"), 0, 0]}, "mean"),
        ({"pixel_scale": 10**400}, "pixel_scale"),
        ({"class_names": ["road", "\ud800"]}, "half a UTF-16 pair"),
        ({"palette": [[1, 2, 3], 7]}, "palette"),
        ({"channel_order": ["rgb"]}, "channel_order"),
        ({"provenance": 3}, "provenance"),
    ],
)
def test_a_spec_with_a_value_that_is_none_is_one_error(change: dict, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_dict({**SPEC, **change}, where="spec.json")
    error = caught.value
    assert error.hint and "spec.json" in error.message
    assert said in error.message + error.why + error.hint


def test_a_score_that_was_not_to_be_had_does_not_spoil_a_spec() -> None:
    text = json.dumps({**SPEC, "provenance": {"metrics": {"miou": float("nan")}}})
    assert ModelSpec.from_json(text).size_hw == (64, 96)


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4\n", "Git LFS pointer", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page", "download it again"),
        (b"\x1f\x8b\x08" + bytes(30), "gzip", "tar xf"),
        (bytes(257) + b"ustar" + bytes(250), "tar archive", "tar xf m.onnx"),
        (b"\x30\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}', "safetensors", "torch.save"),
    ],
)
def test_what_stands_in_the_place_of_a_model_is_named(tmp_path: Path, content: bytes, what: str, fix: str) -> None:
    from rtda_deploy.onnx_file import read_onnx_metadata

    (tmp_path / "m.onnx").write_bytes(content)
    found = impostor(tmp_path / "m.onnx")
    assert found is not None and what in found.text and fix in found.hint
    with pytest.raises(EngineError) as caught:
        read_onnx_metadata(tmp_path / "m.onnx")
    assert what in caught.value.why and fix in caught.value.hint


def test_a_checkpoint_is_known_by_its_name() -> None:
    assert all(map(is_checkpoint_name, ("a.pth", "a.PT", "b/c.ckpt", "model_best.pth.tar")))
    assert not any(map(is_checkpoint_name, ("a.onnx", "a.tar", "pth", "a.pth.zip")))
