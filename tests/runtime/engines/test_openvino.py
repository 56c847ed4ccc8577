"""The OpenVINO engine; all of it runs wherever OpenVINO is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from runtime.engine_contract import EngineContract, OpenEngine
from runtime.models import tiny_logits, tiny_spec, write_model
from runtime.quantised import write_quantised

from rtda_deploy.errors import DeviceError, EngineError, MissingPackageError, SpecError
from rtda_deploy.optional import available
from rtda_runtime.engines import open_engine
from rtda_runtime.engines.openvino import open_openvino, openvino_core
from rtda_runtime.machine.cores import threads_text, usable_cores

needs_openvino = pytest.mark.skipif(not available("openvino"), reason="OpenVINO is not installed")


@needs_openvino
class TestOpenvinoEngine(EngineContract):
    @pytest.fixture()
    def open_tiny(self, tmp_path: Path) -> OpenEngine:
        def open_(seed: int = 0, *, claims: Any = None, **options: Any) -> Any:
            path = write_model(tmp_path / f"tiny{seed}.onnx", seed=seed, **options)
            return open_engine(path, "openvino", spec=claims, threads=1)

        return open_

    def test_threads_and_precision_are_said_in_the_description(self, model_path: Path) -> None:
        for threads, said in ((1, "1 thread"), (2, "2 threads"), (None, threads_text(usable_cores()))):
            with open_engine(model_path, "openvino", threads=threads) as engine:
                assert engine.description.endswith(f" on cpu in fp32, {said}")
                assert engine.provider == "openvino"


class OneCore:
    """The core of this process with what a test changes; a second one would end in the test (see ``openvino_core``)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(openvino_core(), name)


@needs_openvino
@pytest.mark.parametrize("threads", [1, None])
def test_openvino_has_the_threads_that_are_said_and_binds_them_to_no_core(model_path: Path, threads: Any) -> None:
    made: List[Any] = []

    class Noting(OneCore):
        def compile_model(self, *words: Any) -> Any:
            made.append(openvino_core().compile_model(*words))
            return made[-1]

    open_openvino(model_path, threads=threads, core=Noting()).close()
    assert made[0].get_property("INFERENCE_NUM_THREADS") == (threads or usable_cores())
    assert made[0].get_property("ENABLE_CPU_PINNING") is False


@needs_openvino
def test_float32_is_float32_unless_bfloat16_was_asked_for(model_path: Path) -> None:
    picture = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    expected = tiny_logits(picture)
    errors = {}
    for precision, provider in (("fp32", "openvino"), ("bf16", "openvino-bf16")):
        try:
            with open_engine(model_path, provider, threads=1) as engine:
                assert engine.provider == provider and f" in {precision}, " in engine.description
                engine.input_buffer[:] = picture
                errors[precision] = np.abs(engine.infer() - expected).max() / np.ptp(expected)
        except DeviceError as err:
            assert precision == "bf16"
            pytest.skip(f"{err.message}: {err.why}")
    assert errors["fp32"] < 1e-6  # float32 has 24 bits
    assert 1e-4 < errors["bf16"] < 2e-2  # bfloat16 has 8


@needs_openvino
def test_an_int8_file_runs_in_int8_and_says_so(tmp_path: Path) -> None:
    path = write_quantised(tmp_path / "int8.onnx")
    with open_engine(path, "openvino") as engine, open_engine(path, "cpu") as reference:
        assert " in int8, " in engine.description
        picture = np.random.default_rng(0).standard_normal(engine.input_shape)
        engine.input_buffer[:] = reference.input_buffer[:] = picture
        expected = reference.infer()
        np.testing.assert_allclose(engine.infer(), expected, atol=1e-3 * np.ptp(expected))
        exact = tiny_logits(engine.input_buffer)
        assert np.abs(engine.infer() - exact).max() > 1e-3 * np.ptp(exact), "it would be float32"


@needs_openvino
@pytest.mark.parametrize("able", [["FP32", "INT8", "BIN"], ["FP32", "BF16"]])
def test_bfloat16_is_refused_where_the_processor_has_none(model_path: Path, able: List[str]) -> None:
    class Elsewhere(OneCore):
        """OpenVINO on a processor that can do what is said here."""

        def get_property(self, device: str, name: str) -> Any:
            return able if name == "OPTIMIZATION_CAPABILITIES" else openvino_core().get_property(device, name)

    core = Elsewhere()
    open_openvino(model_path, threads=1, core=core).close()
    if "BF16" in able:
        open_openvino(model_path, provider="openvino-bf16", threads=1, core=core).close()
        return
    with pytest.raises(DeviceError, match="does not compute in bfloat16") as caught:
        open_openvino(model_path, provider="openvino-bf16", core=core)
    assert "FP32, INT8" in caught.value.why and "--provider openvino" in caught.value.hint


@needs_openvino
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": ["n", 3, "h", "w"]}, "no fixed shape: ?x3x?x?"),
        ({"second_output": True}, "outputs [logits, auxiliary]"),
    ],
)
def test_a_model_that_no_spec_fits_is_refused(tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(EngineError) as caught:
        open_engine(write_model(tmp_path / "odd.onnx", **options), "openvino")
    assert said in caught.value.message and caught.value.hint


@needs_openvino
def test_a_model_without_a_spec_asks_for_one(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", with_spec=False)
    with pytest.raises(SpecError, match=r"foreign\.onnx says nothing"):
        open_engine(path, "openvino")
    with open_engine(path, "openvino", spec=tiny_spec()) as engine:
        assert engine.spec == tiny_spec()


@needs_openvino
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_model_that_was_cut_off_is_an_error(tmp_path: Path, model_path: Path, cut: float) -> None:
    path = tmp_path / "cut.onnx"
    content = model_path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(EngineError, match=r"cut\.onnx is no whole ONNX file"):
        open_engine(path, "openvino", spec=tiny_spec())


@needs_openvino
def test_an_operator_that_openvino_does_not_know_is_an_error_with_its_reason(tmp_path: Path) -> None:
    import onnx

    path = write_model(tmp_path / "odd.onnx")
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, str(path))
    with pytest.raises(EngineError) as caught:
        open_engine(path, "openvino")
    assert caught.value.why and "\n" not in caught.value.why and len(caught.value.why) <= 200


_CLOSED_ELSEWHERE = """
import gc, os, signal, sys, threading
from rtda_runtime.engines import open_engine

engine = open_engine(sys.argv[1], "openvino")
engine.infer()
engines = [engine]
del engine

def end():
    engines.pop().close()
    gc.collect()

thread = threading.Thread(target=end)
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@needs_openvino
def test_a_signal_after_another_thread_closed_the_engine_is_handled(model_path: Path) -> None:
    """OpenVINO frees the signal stack of the thread that opened it when the last of its cores goes."""
    command = [sys.executable, "-c", _CLOSED_ELSEWHERE, str(model_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.skipif(available("openvino"), reason="OpenVINO is installed")
def test_without_openvino_the_install_line_is_given(model_path: Path) -> None:
    with pytest.raises(MissingPackageError, match="openvino is not installed") as caught:
        open_engine(model_path, "openvino")
    assert "rtda-deploy[openvino]" in caught.value.hint
