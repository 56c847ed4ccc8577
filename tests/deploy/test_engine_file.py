"""The sidecar of an engine: read back as written, refused where it is not one, and the sentences of a mismatch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict

import pytest

from rtda_deploy.engine_file import (
    EngineBuild,
    EngineSidecar,
    Machine,
    check_whole,
    mismatch,
    read_sidecar,
    rebuild_command,
    sidecar_path,
    write_sidecar,
)
from rtda_deploy.errors import EngineError, SpecError
from rtda_deploy.files import sha256_file
from rtda_deploy.spec import ModelSpec

SPEC = ModelSpec(size_hw=(64, 128), class_names=("road", "sky"), palette=((128, 64, 128), (70, 130, 180)))
BUILD = EngineBuild(
    onnx="best.onnx",
    onnx_sha256="ab" * 32,
    precision="fp16",
    tensorrt="8.5.2.2",
    gpu="Xavier",
    compute_capability=(7, 2),
    size_hw=(64, 128),
    kept_fp32=("/head/Conv",),
    workspace_mib=512,
    tactic_sources=("cudnn",),
    layers=40,
    seconds=12.5,
    rtda_deploy="0.1.0",
)


@pytest.fixture()
def engine(tmp_path: Path) -> Path:
    """An engine with its sidecar."""
    path = tmp_path / "best.fp16.engine"
    path.write_bytes(b"the engine")
    write_sidecar(path, EngineSidecar(SPEC, BUILD, sha256_file(path), 10))
    return path


def test_a_sidecar_is_read_back_as_it_was_written(engine: Path) -> None:
    assert sidecar_path(engine).name == "best.fp16.engine.json"
    sidecar = read_sidecar(engine)
    assert sidecar == EngineSidecar(SPEC, BUILD, sha256_file(engine), 10)
    assert EngineSidecar.from_json(sidecar.to_json()) == sidecar
    check_whole(engine, sidecar)


def test_the_text_is_what_the_documentation_shows(engine: Path) -> None:
    values = json.loads(sidecar_path(engine).read_text())
    assert set(values) == {"format", "spec", "built", "sha256", "size_bytes"}
    assert values["format"] == 1 and values["spec"]["version"] == 1
    assert values["built"]["compute_capability"] == [7, 2] and values["built"]["dla_core"] is None


def test_an_engine_without_a_sidecar_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.engine has no model\.engine\.json beside it") as caught:
        read_sidecar(tmp_path / "model.engine")
    assert "--spec spec.json" in caught.value.hint and "--to engine" in caught.value.hint


@pytest.mark.parametrize(
    "change, words",
    [
        ({"format": 2}, "format 2, this rtda-deploy reads 1"),
        ({"format": None}, "format None"),
        ({"built": None}, "does not describe an engine"),
        ({"built": {}}, "does not describe an engine"),
        ({"built": {**dataclasses.asdict(BUILD), "compute_capability": 7}}, "does not describe"),
        ({"built": {**dataclasses.asdict(BUILD), "compute_capability": [7]}}, "does not describe"),
        ({"built": {**dataclasses.asdict(BUILD), "tensorrt": None}}, "does not describe"),
        ({"built": {**dataclasses.asdict(BUILD), "kept_fp32": 3}}, "does not describe"),
        ({"size_bytes": "many"}, "does not describe"),
    ],
)
def test_what_is_no_sidecar_is_refused(engine: Path, change: Dict[str, Any], words: str) -> None:
    values = {**json.loads(sidecar_path(engine).read_text()), **change}
    sidecar_path(engine).write_text(json.dumps(values))
    with pytest.raises(EngineError, match=words) as caught:
        read_sidecar(engine)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '"a"'])
def test_other_text_is_refused(engine: Path, text: str) -> None:
    with pytest.raises(EngineError):
        EngineSidecar.from_json(text)


def test_a_broken_spec_in_it_is_called_that(engine: Path) -> None:
    values = json.loads(sidecar_path(engine).read_text())
    values["spec"]["mean"] = "grey"
    sidecar_path(engine).write_text(json.dumps(values))
    with pytest.raises(SpecError, match=r"best\.fp16\.engine\.json"):
        read_sidecar(engine)


def test_fields_of_a_later_version_are_passed_over(engine: Path) -> None:
    values = json.loads(sidecar_path(engine).read_text())
    values["new"], values["built"]["new"] = 1, 2
    sidecar_path(engine).write_text(json.dumps(values))
    assert read_sidecar(engine).built == BUILD


@pytest.mark.parametrize(
    "content, words",
    [
        (b"the engin", "is truncated: 9 bytes, 10 were built"),
        (b"the engine!", "not the engine"),
        (b"The engine", "sha256"),
    ],
)
def test_an_engine_that_is_not_whole_is_refused(engine: Path, content: bytes, words: str) -> None:
    sidecar = read_sidecar(engine)
    engine.write_bytes(content)
    with pytest.raises(EngineError, match=words) as caught:
        check_whole(engine, sidecar)
    assert rebuild_command(sidecar, engine) in caught.value.hint


@pytest.mark.parametrize(
    "here, sentence",
    [
        (Machine("8.5.2.2", "Xavier", (7, 2)), None),
        (
            Machine("10.16.1.11", "NVIDIA H100 80GB HBM3", (9, 0)),
            "a.engine was built with TensorRT 8.5.2.2, this machine has 10.16.1.11",
        ),
        (
            Machine("8.5.2.2", "Orin", (8, 7)),
            "a.engine was built for compute capability 7.2 (Xavier), this GPU has 8.7 (Orin)",
        ),
        (
            Machine("8.5.2.2", "Xavier NX", (7, 2)),
            "a.engine was built on another GPU of the same kind: Xavier, here is Xavier NX",
        ),
    ],
)
def test_a_mismatch_is_one_sentence(engine: Path, here: Machine, sentence: Any) -> None:
    found = mismatch(read_sidecar(engine), here, name="a.engine")
    assert found is None if sentence is None else found is not None and sentence in found


def test_the_rebuild_command_names_the_onnx_beside_the_engine(engine: Path) -> None:
    sidecar = read_sidecar(engine)
    command = rebuild_command(sidecar, engine)
    assert command == f"rtda-deploy export {engine.parent / 'best.onnx'} --to engine --precision fp16"
    dla = dataclasses.replace(
        sidecar, built=dataclasses.replace(BUILD, precision="int8", dla_core=1, onnx="my net.onnx")
    )
    assert rebuild_command(dla, "x.engine") == ("rtda-deploy export 'my net.onnx' --to engine --precision int8 --dla 1")


@pytest.mark.parametrize("field", ["onnx", "layers", "seconds", "rtda_deploy"])
def test_what_only_reports_makes_no_other_engine(field: str) -> None:
    assert BUILD.same_engine(dataclasses.replace(BUILD, **{field: "x" if field in ("onnx", "rtda_deploy") else 1}))


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "cd" * 32},
        {"precision": "fp32"},
        {"tensorrt": "8.6.1"},
        {"gpu": "Orin"},
        {"compute_capability": (8, 7)},
        {"size_hw": (32, 64)},
        {"kept_fp32": ()},
        {"dla_core": 0},
        {"workspace_mib": None},
        {"tactic_sources": None},
        {"optimization_level": 3},
    ],
)
def test_everything_else_does(change: Dict[str, Any]) -> None:
    assert not BUILD.same_engine(dataclasses.replace(BUILD, **change))
