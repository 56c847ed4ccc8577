from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, List

import numpy as np
import pytest
from runtime.engine_contract import EngineContract, OpenEngine
from runtime.fakes import NumpyEngine
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import ConfigError, DeviceError, EngineError, FileAccessError, SpecError
from rtda_deploy.optional import require
from rtda_runtime.engines import open_engine, providers
from rtda_runtime.engines.onnxruntime import open_onnx, provider_plan
from rtda_runtime.machine.cores import threads_text, usable_cores


class _Noting:
    """The installed ONNX Runtime; keeps the options of the last session."""

    options: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(require("onnxruntime", extra="runtime"), name)

    def InferenceSession(self, path: str, *, sess_options: Any, providers: Any) -> Any:
        self.options = sess_options
        return require("onnxruntime", extra="runtime").InferenceSession(path, sess_options, providers)


class TestOrtEngine(EngineContract):
    @pytest.fixture()
    def open_tiny(self, tmp_path: Path) -> OpenEngine:
        def open_(seed: int = 0, *, claims: Any = None, **options: Any) -> Any:
            return open_engine(write_model(tmp_path / f"tiny{seed}.onnx", seed=seed, **options), "cpu", spec=claims)

        return open_

    def test_threads_are_said_in_the_description(self, model_path: Path) -> None:
        for threads, said in ((1, "1 thread"), (3, "3 threads"), (None, threads_text(usable_cores()))):
            with open_engine(model_path, "cpu", threads=threads) as engine:
                assert engine.description.endswith(f" on cpu, {said}")

    @pytest.mark.parametrize("threads", [1, None])
    def test_the_session_has_the_threads_that_are_said_and_they_do_not_spin_for_long(
        self, model_path: Path, threads: Any
    ) -> None:
        noting = _Noting()
        open_onnx(model_path, provider="cpu", threads=threads, ort=noting).close()
        assert noting.options.intra_op_num_threads == (threads or usable_cores())
        assert 0 < int(noting.options.get_session_config_entry("session.intra_op.spin_duration_us")) <= 1000

    def test_a_process_bound_to_one_core_computes_with_one_thread(self, model_path: Path) -> None:
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            with open_engine(model_path, "cpu") as engine:
                assert engine.description.endswith(", 1 thread")
        finally:
            os.sched_setaffinity(0, before)


def test_numpy_engine_of_the_other_tests_computes_the_same(model_path: Path) -> None:
    with open_engine(model_path, "cpu") as real, NumpyEngine() as fake:
        picture = np.random.default_rng(0).standard_normal(real.input_shape)
        real.input_buffer[:] = picture
        fake.input_buffer[:] = picture
        np.testing.assert_allclose(real.infer(), fake.infer(), atol=1e-4)


def test_auto_says_which_provider_it_took(model_path: Path) -> None:
    with open_engine(model_path, "auto") as engine:
        assert engine.provider in ("cpu", "cuda")
        assert engine.provider in engine.description


@pytest.mark.parametrize(
    ("available", "plan"),
    [
        (["CPUExecutionProvider"], ["cpu"]),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], ["cuda", "cpu"]),
        # TensorRT inside ONNX Runtime builds for minutes at each start: only when it is asked for.
        (["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"], ["cuda", "cpu"]),
    ],
)
def test_auto_tries_the_best_provider_first(available: Any, plan: Any) -> None:
    assert provider_plan("auto", available) == plan


def test_a_provider_that_was_asked_for_is_the_only_one_tried() -> None:
    assert provider_plan("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"]) == ["cuda"]


@pytest.mark.parametrize("asked", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_built_in_is_refused_with_what_there_is(asked: str) -> None:
    with pytest.raises(DeviceError) as caught:
        provider_plan(asked, ["CPUExecutionProvider"])
    assert asked in str(caught.value)
    assert "there is: cpu" in str(caught.value) + caught.value.hint
    assert caught.value.exit_code == 3


class _FallenBack:
    """An ONNX Runtime whose CUDA provider is built in and does not load, as without a driver."""

    __version__ = "1.0"

    @staticmethod
    def get_available_providers() -> Any:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    class SessionOptions:
        def add_session_config_entry(self, key: str, value: str) -> None: ...

    class InferenceSession:
        def __init__(self, path: str, **_: Any) -> None: ...

        def get_providers(self) -> Any:
            return ["CPUExecutionProvider"]


def test_a_silent_fall_back_to_the_cpu_is_an_error(model_path: Path) -> None:
    with pytest.raises(DeviceError, match="cuda was asked for and did not load") as caught:
        open_onnx(model_path, provider="cuda", ort=_FallenBack)
    assert "fell back to cpu" in caught.value.why


class _Recording(_FallenBack):
    """An ONNX Runtime that keeps what it was asked for."""

    asked: ClassVar[List[Any]] = []

    @staticmethod
    def get_available_providers() -> Any:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    class InferenceSession(_FallenBack.InferenceSession):
        def __init__(self, path: str, *, providers: Any, **_: Any) -> None:
            _Recording.asked = providers


def test_tensorrt_inside_onnx_runtime_keeps_its_engines_and_is_an_error_where_it_does_not_load(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DeviceError, match="tensorrt was asked for and did not load"):
        open_onnx(model_path, provider="tensorrt", ort=_Recording)
    (name, options), *others = _Recording.asked
    assert name == "TensorrtExecutionProvider" and options["trt_engine_cache_enable"] == "1"
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert others == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_a_network_for_several_pictures_at_a_time_is_refused_with_the_option(tmp_path: Path) -> None:
    path = write_model(tmp_path / "batch.onnx", shape=[4, 3, 64, 96])
    with pytest.raises(EngineError, match="built for batches of 4; the runtime takes one frame at a time") as caught:
        open_engine(path, "cpu")
    assert "--batch 1" in caught.value.hint


def test_unknown_provider_lists_the_known(model_path: Path) -> None:
    with pytest.raises(ConfigError, match="vulkan") as caught:
        open_engine(model_path, "vulkan")
    assert all(name in caught.value.hint for name in providers())


def test_no_threads_at_all_is_refused(model_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        open_engine(model_path, threads=0)


def test_model_without_spec_is_refused_with_the_option_to_type(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", with_spec=False)
    with pytest.raises(SpecError) as caught:
        open_engine(path)
    assert "--spec" in caught.value.hint


def test_given_spec_replaces_the_one_in_the_file(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", with_spec=False)
    own = tiny_spec(channel_order="bgr")
    with open_engine(path, spec=own) as engine:
        assert engine.spec == own


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}'])
def test_broken_spec_in_the_file_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = write_model(tmp_path / "odd.onnx", spec_text=text)
    with pytest.raises(SpecError, match=r"odd\.onnx"):
        open_engine(path)


def test_truncated_model_is_an_error_with_a_cause(tmp_path: Path, model_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    content = model_path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(EngineError, match=r"cut\.onnx cannot be loaded") as caught:
        open_engine(path)
    assert caught.value.why and "\n" not in caught.value.why and len(caught.value.why) <= 200
    assert caught.value.hint


def test_model_newer_than_onnxruntime_is_told_to_be_exported_again(tmp_path: Path) -> None:
    path = write_model(tmp_path / "new.onnx", ir_version=99)
    with pytest.raises(EngineError) as caught:
        open_engine(path)
    assert "rtda-deploy export" in caught.value.hint


def test_model_of_free_size_is_refused_with_the_export_command(tmp_path: Path) -> None:
    path = write_model(tmp_path / "free.onnx", shape=["n", 3, "h", "w"])
    with pytest.raises(EngineError, match="no fixed shape") as caught:
        open_engine(path)
    assert "--size" in caught.value.hint


def test_auxiliary_heads_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "heads.onnx", second_output=True)
    with pytest.raises(EngineError, match=r"outputs \[logits, auxiliary\]"):
        open_engine(path)


@pytest.mark.parametrize("name", ["gone.onnx", "gone.engine", "gone"])
def test_missing_model_is_a_file_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileAccessError, match="gone"):
        open_engine(tmp_path / name)


def test_empty_model_is_a_file_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(FileAccessError, match="0 bytes"):
        open_engine(path)


def test_checkpoint_is_refused_with_the_export_command(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"PK")
    with pytest.raises(EngineError) as caught:
        open_engine(path)
    assert f"rtda-deploy export {path}" in caught.value.hint
