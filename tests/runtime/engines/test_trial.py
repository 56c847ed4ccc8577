"""Files tried in every library, each in a process of its own: one that would end ours is known before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.deadly import write_deadly, write_misleading
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import ConfigError, EngineError
from rtda_deploy.optional import available
from rtda_runtime.engines import EngineKind, open_engine
from rtda_runtime.engines.kinds import kinds_of
from rtda_runtime.engines.openvino import installed_version
from rtda_runtime.engines.trial import Trial, _otherwise, told, trials, tried

onnx = pytest.importorskip("onnx")
needs_openvino = pytest.mark.skipif(not available("openvino"), reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime.quantization")
    return write_deadly(tmp_path_factory.mktemp("deadly") / "pyramid.int8.onnx")


@pytest.fixture
def contest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` measures, as it does outside the tests."""
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RTDA_CONTEST", raising=False)


@needs_openvino
def test_a_library_that_a_file_ends_is_named_and_the_others_run_it(deadly: Path) -> None:
    found = {trial.library: trial for trial in trials(deadly)}
    assert found["onnxruntime"].error == found["onnxruntime"].sentence == ""
    dead = found["openvino"]
    assert dead.fatal and "SIGSEGV" in dead.error and dead.version == installed_version()
    assert dead.sentence == f"OpenVINO {dead.version} cannot take it: {dead.error}"


@needs_openvino
def test_a_library_that_answers_otherwise_than_onnx_runtime_is_named_and_refuses_the_file(tmp_path: Path) -> None:
    path = write_misleading(tmp_path / "pooled.int8.onnx")
    found = {trial.library: trial for trial in trials(path)}
    wrong = found["openvino"]
    assert found["onnxruntime"].error == "" and wrong.fatal and "of their spread away" in wrong.error
    model = onnx.load(str(path))
    facts = {"precision": "int8", "libraries": {"openvino": wrong.to_dict()}}
    onnx.helper.set_model_props(model, {"rtda.spec": tiny_spec().to_json(), "rtda.precision": json.dumps(facts)})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="cannot take") as caught:
        open_engine(path, "openvino")
    assert wrong.error in caught.value.why


def test_answers_that_differ_by_rounding_are_the_same_and_others_are_named() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((1, 5, 8, 8)).astype(np.float32)
    mask = rng.integers(0, 5, (1, 64, 64)).astype(np.uint8)
    assert _otherwise(logits, logits + 0.05) == _otherwise(mask, np.where(mask == 3, 2, mask)) == ""
    assert "40 %" in _otherwise(logits, logits + np.float32(0.4) * logits.std())
    assert "% of a test picture another class" in _otherwise(mask, np.where(mask > 2, 0, mask))
    assert "another shape" in _otherwise(mask, mask[:, ::2])


@needs_openvino
def test_a_file_that_says_so_is_refused_by_that_version_and_auto_takes_the_other(
    deadly: Path, tmp_path: Path, contest: None
) -> None:
    model, path = onnx.load(str(deadly)), tmp_path / "said.onnx"
    dead = Trial("openvino", "OpenVINO", installed_version(), "it ends", fatal=True)
    facts = {"precision": "int8", "libraries": {"openvino": dead.to_dict()}}
    onnx.helper.set_model_props(model, {"rtda.spec": tiny_spec().to_json(), "rtda.precision": json.dumps(facts)})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"cannot take said\.onnx") as caught:
        open_engine(path, "openvino")
    assert "it ends" in caught.value.why and "--provider cpu" in caught.value.hint
    with open_engine(path) as engine:
        assert engine.provider == "cpu"


@needs_openvino
def test_auto_survives_a_quantised_file_that_says_nothing(
    deadly: Path, contest: None, caplog: pytest.LogCaptureFixture
) -> None:
    with open_engine(deadly) as engine:
        assert engine.provider == "cpu"
    assert "OpenVINO is out" in caplog.text and "SIGSEGV" in caplog.text


def test_a_file_that_is_refused_ends_nothing(tmp_path: Path) -> None:
    path = write_model(tmp_path / "other.onnx", tiny_spec(size_hw=(64, 64)), shape=(1, 3, 64, 96))
    for trial in trials(path):
        assert not trial.fatal and "64" in trial.error, trial


def test_a_library_that_does_not_answer_in_time_cannot_take_the_file(tmp_path: Path) -> None:
    kind = next(kind for kind in kinds_of("x.onnx") if kind.name == "ONNX Runtime")
    found = tried(write_model(tmp_path / "m.onnx"), kind, timeout_s=0.01)
    assert found is not None and found.fatal and "within 0.01 s" in found.error


def test_a_kind_without_a_cpu_is_not_tried() -> None:
    with pytest.raises(ConfigError, match="no provider on the CPU"):
        tried("x.engine", EngineKind("Toy", (".toy",), ("toy",), "toy:open", ()))


@pytest.mark.parametrize(
    "facts", [{}, {"libraries": 3}, {"libraries": {"openvino": []}}, {"libraries": {"openvino": {"name": 1}}}]
)
def test_what_a_file_does_not_say_properly_it_does_not_say(facts: Any) -> None:
    assert told(facts, "openvino") is None


def test_what_was_written_is_read_back() -> None:
    trial = Trial("openvino", "OpenVINO", "1.2", "it ends", fatal=True)
    assert told({"libraries": {"openvino": json.loads(json.dumps(trial.to_dict()))}}, "openvino") == trial
