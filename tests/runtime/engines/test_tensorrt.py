"""The TensorRT engine on a GPU made of NumPy, and on a real one where there is one."""

from __future__ import annotations

import gc
import importlib.util
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.engine_contract import EngineContract, OpenEngine
from runtime.fake_gpu import FakeGpu, FakeTensorrt, plan, write_engine
from runtime.kernels_on_host import host_compiler
from runtime.models import tiny_logits, tiny_spec, write_model

from rtda_deploy.engine_file import sidecar_path
from rtda_deploy.errors import DeviceError, EngineError, FileAccessError, MissingPackageError, SpecError
from rtda_deploy.spec import ModelSpec
from rtda_runtime import Segmenter, upsample_argmax
from rtda_runtime.engines import open_engine
from rtda_runtime.engines.cuda.compilers import NoCompiler
from rtda_runtime.engines.cuda.context import open_cuda
from rtda_runtime.engines.tensorrt import TensorrtEngine, open_tensorrt
from rtda_runtime.mask.groups import ClassGroups
from rtda_runtime.mask.regions import RegionOfInterest
from rtda_runtime.result import Result
from rtda_runtime.sinks.overlay import Overlay

Open = Callable[..., TensorrtEngine]


@pytest.fixture()
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture()
def open_(gpu: FakeGpu) -> Open:
    def open_it(path: Path, trt: Any = None, **options: Any) -> TensorrtEngine:
        return open_tensorrt(path, trt=trt or FakeTensorrt(gpu), cuda=open_cuda(driver=gpu), **options)

    return open_it


class _FakeContract(EngineContract):
    integrated = False
    graph = True

    @pytest.fixture()
    def open_tiny(self, tmp_path: Path) -> OpenEngine:
        def open_it(
            seed: int = 0, *, spec: Optional[ModelSpec] = None, confidence: str = "", claims: Optional[ModelSpec] = None
        ) -> TensorrtEngine:
            gpu, asked = FakeGpu(integrated=self.integrated), spec or tiny_spec()
            image = {"uint8": "UINT8", "float32": "FLOAT"}[asked.input_dtype], list(asked.input_shape)
            content = plan(seed, output=asked.output, confidence=confidence, image_dtype=image[0], image_shape=image[1])
            path = write_engine(tmp_path / f"tiny{seed}.engine", content, claims or spec)
            return open_tensorrt(path, trt=FakeTensorrt(gpu), cuda=open_cuda(driver=gpu), graph=self.graph)

        return open_it


class TestOnAGpuOfItsOwnMemory(_FakeContract):
    pass


class TestOnAnIntegratedGpu(_FakeContract):
    integrated = True


class TestWithoutACudaGraph(_FakeContract):
    graph = False


@pytest.mark.gpu
@pytest.mark.trt
class TestOnARealGpu(EngineContract):
    logit_tolerance = 1e-3  # fast convolutions (Winograd) round more; fp32 engines are built without TF32

    @pytest.fixture()
    def open_tiny(self, tmp_path: Path) -> OpenEngine:
        pytest.importorskip("tensorrt", reason="TensorRT is not installed", exc_type=ImportError)
        try:
            open_cuda().close()
        except DeviceError as err:
            pytest.skip(f"no GPU: {err.message}")
        from rtda_export.tensorrt import engine_from_onnx

        def open_it(seed: int = 0, *, claims: Any = None, **options: Any) -> Any:
            onnx = write_model(tmp_path / f"tiny{seed}.onnx", seed=seed, **options)
            engine = tmp_path / f"tiny{seed}.engine"
            engine_from_onnx(onnx, engine, precision="fp32")
            return open_engine(engine, spec=claims)

        return open_it


def test_answers_cross_the_bus_once_each_way_and_the_network_is_one_launch(
    tmp_path: Path, gpu: FakeGpu, open_: Open
) -> None:
    with open_(write_engine(tmp_path / "a.engine", plan())) as engine:
        assert engine.graph and "CUDA graph" in engine.description and "no CUDA graph" not in engine.description
        gpu.diary.clear()
        engine.infer()
        assert gpu.diary == ["to_device", "launch", "to_host", "synchronize"]


def test_the_cpu_prepares_the_frames_of_a_network_that_takes_pixels(tmp_path: Path, open_: Open) -> None:
    spec = tiny_spec(input="uint8", layout="nhwc")
    content = plan(image_dtype="UINT8", image_shape=[1, 64, 96, 3])
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    with open_(write_engine(tmp_path / "a.engine", content, spec)) as engine:
        assert engine.frame_path() is None, "the kernels write normalised planes"
        mask = Segmenter(engine).segment(frame).mask
    logits = tiny_logits(frame.transpose(2, 0, 1)[None].astype(np.float32)).astype(np.float32)
    np.testing.assert_array_equal(mask, upsample_argmax(logits, (64, 96)))


def test_the_graph_is_recorded_after_a_run_and_without_the_copies(tmp_path: Path, gpu: FakeGpu, open_: Open) -> None:
    with open_(write_engine(tmp_path / "a.engine", plan())):
        first, begin, end = (gpu.diary.index(name) for name in ("execute", "begin_capture", "end_capture"))
        assert first < gpu.diary.index("synchronize") < begin
        assert gpu.diary[begin : end + 1] == ["begin_capture", "execute", "end_capture"]


def test_an_integrated_gpu_copies_nothing(tmp_path: Path) -> None:
    gpu = FakeGpu(integrated=True)
    path = write_engine(tmp_path / "a.engine", plan())
    with open_tensorrt(path, trt=FakeTensorrt(gpu), cuda=open_cuda(driver=gpu)) as engine:
        engine.infer()
        times = engine.device_times()
        assert times["h2d"] == times["d2h"] == 0.0 and times["compute"] > 0
    assert not {"to_device", "to_host", "allocate"} & set(gpu.diary)


def test_device_times_are_those_of_three_parts_and_the_answer_is_computed(tmp_path: Path, open_: Open) -> None:
    with open_(write_engine(tmp_path / "a.engine", plan())) as engine:
        answer = engine.infer()
        engine.input_buffer[:] = 0.5
        assert engine.device_times() == {"h2d": 1.0, "compute": 1.0, "d2h": 1.0}  # the fake's clock ticks per event
        np.testing.assert_allclose(answer, tiny_logits(engine.input_buffer), atol=1e-4)
    with pytest.raises(EngineError, match="is closed"):
        engine.device_times()


@pytest.mark.parametrize("call", ["begin_capture", "end_capture"])
def test_a_graph_that_cannot_be_recorded_is_said_and_done_without(
    tmp_path: Path, gpu: FakeGpu, open_: Open, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    gpu.refuse[call] = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
    with caplog.at_level(logging.WARNING), open_(write_engine(tmp_path / "a.engine", plan())) as engine:
        engine.input_buffer[:] = 1.0
        np.testing.assert_allclose(engine.infer(), tiny_logits(engine.input_buffer), atol=1e-4)
        assert not engine.graph and "no CUDA graph" in engine.description
    assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in caplog.text


def test_a_network_that_refuses_to_be_recorded_runs_without_a_graph(
    tmp_path: Path, gpu: FakeGpu, open_: Open, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_engine(tmp_path / "a.engine", plan(fails="capture"))
    with caplog.at_level(logging.WARNING), open_(path) as engine:
        engine.input_buffer[:] = 1.0
        np.testing.assert_allclose(engine.infer(), tiny_logits(engine.input_buffer), atol=1e-4)
    assert "a kernel could not be launched" in caplog.text
    assert "end_capture" in gpu.diary  # or the stream would stay in capture for ever


def test_the_context_is_pushed_for_each_call_only(tmp_path: Path, gpu: FakeGpu, open_: Open) -> None:
    with open_(write_engine(tmp_path / "a.engine", plan())) as engine:
        assert gpu.pushed == 0
        engine.infer()
        assert gpu.pushed == 0
    assert gpu.pushed == 0


def test_everything_is_given_back_in_an_order_that_tensorrt_survives(tmp_path: Path, gpu: FakeGpu, open_: Open) -> None:
    trt = FakeTensorrt(gpu)
    engine = open_(write_engine(tmp_path / "a.engine", plan()), trt)
    engine.device_times()
    gpu.diary.clear()
    engine.close()
    assert trt.dead == ["context", "engine", "runtime"]
    order = [name for name in gpu.diary if name != "destroy_event"]
    assert order[0] == "synchronize" and "destroy_graph" in order
    assert order.index("destroy_graph") < order.index("free") < order.index("destroy_stream")
    del engine
    gc.collect()
    assert not gpu.live and gpu.retained == 0 and gpu.diary[-1] == "release"


def test_an_engine_that_nobody_closed_is_closed_with_its_last_reference(
    tmp_path: Path, gpu: FakeGpu, open_: Open
) -> None:
    trt = FakeTensorrt(gpu)
    engine: Any = open_(write_engine(tmp_path / "a.engine", plan()), trt)
    del engine
    gc.collect()
    assert trt.dead == ["context", "engine", "runtime"] and not gpu.live


def test_memory_that_an_array_still_shows_outlives_the_engine_and_the_context_too(
    tmp_path: Path, gpu: FakeGpu, open_: Open
) -> None:
    engine = open_(write_engine(tmp_path / "a.engine", plan()))
    engine.input_buffer[:] = 1.0
    answer = engine.infer()[2:4]
    expected = answer.copy()
    engine.close()
    del engine
    gc.collect()
    assert len(gpu.live) == 1 and gpu.retained == 1
    np.testing.assert_array_equal(answer, expected)
    del answer
    gc.collect()
    assert not gpu.live and gpu.retained == 0


def test_closing_in_another_thread_than_the_one_that_opened_works(tmp_path: Path, gpu: FakeGpu, open_: Open) -> None:
    trt = FakeTensorrt(gpu)
    engine = open_(write_engine(tmp_path / "a.engine", plan()), trt)
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join(PATIENCE_S)
    assert engine.closed and trt.dead == ["context", "engine", "runtime"]


def test_a_gpu_that_fell_over_can_still_be_closed(
    tmp_path: Path, gpu: FakeGpu, open_: Open, caplog: pytest.LogCaptureFixture
) -> None:
    trt = FakeTensorrt(gpu)
    engine = open_(write_engine(tmp_path / "a.engine", plan()), trt)
    gpu.refuse = dict.fromkeys(("synchronize", "free", "destroy_graph"), "CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(EngineError, match="inference failed") as caught:
        engine.infer()
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in caught.value.why
    engine.close()
    assert trt.dead == ["context", "engine", "runtime"] and "destroy_stream" in gpu.diary
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in caplog.text


def test_the_interpreter_may_end_with_engines_open(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", plan())
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
import atexit, pathlib
from runtime.fake_gpu import FakeGpu, FakeTensorrt
gpu = FakeGpu(); trt = FakeTensorrt(gpu)
atexit.register(lambda: print(trt.dead, gpu.pushed))  # runs after the engine's own end
from rtda_runtime.engines.cuda.context import open_cuda
from rtda_runtime.engines.tensorrt import open_tensorrt
engine = open_tensorrt(pathlib.Path({str(path)!r}), trt=trt, cuda=open_cuda(driver=gpu))
answer = engine.infer()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[0] == "['context', 'engine', 'runtime'] 0"


def test_an_engine_without_a_sidecar_asks_for_its_spec(tmp_path: Path, open_: Open) -> None:
    path = tmp_path / "a.engine"
    path.write_bytes(plan())
    with pytest.raises(SpecError, match=r"a\.engine has no a\.engine\.json beside it") as caught:
        open_engine(path)
    assert "--spec" in caught.value.hint
    with open_(path, spec=tiny_spec()) as engine:
        assert engine.spec == tiny_spec()


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ({"tensorrt": "10.0.1"}, "built with TensorRT 10.0.1, this machine has 8.5.2.2"),
        ({"compute_capability": (8, 7)}, "built for compute capability 8.7"),
        ({"gpu": "Another GPU"}, "Another GPU, here is Fake GPU"),
    ],
)
def test_an_engine_of_another_machine_is_refused_with_the_rebuild_command_before_it_is_loaded(
    tmp_path: Path, gpu: FakeGpu, open_: Open, built: Any, said: str
) -> None:
    trt = FakeTensorrt(gpu)
    trt.Runtime = None  # type: ignore[assignment,misc]
    with pytest.raises(EngineError) as caught:
        open_(write_engine(tmp_path / "a.engine", plan(), **built), trt)
    assert said in caught.value.message and "\n" not in caught.value.message
    assert "rtda-deploy export" in caught.value.hint and "--to engine" in caught.value.hint
    gc.collect()
    assert gpu.retained == 0


def test_an_engine_that_was_cut_off_is_refused_before_anything_of_nvidia_is_asked_for(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", plan())
    path.write_bytes(plan()[:-20])
    with pytest.raises(EngineError, match="truncated"):
        open_engine(path)


def test_tensorrt_gives_its_own_reason_for_an_engine_it_cannot_load(tmp_path: Path, gpu: FakeGpu, open_: Open) -> None:
    trt = FakeTensorrt(gpu)
    with pytest.raises(EngineError, match=r"TensorRT 8\.5\.2\.2 cannot load a\.engine") as caught:
        open_(write_engine(tmp_path / "a.engine", b"ftrt but not really"), trt)
    assert caught.value.why == "Serialization assertion magicTagRead failed"
    assert "rtda-deploy export" in caught.value.hint
    del caught
    gc.collect()
    assert trt.dead == ["runtime"] and not gpu.live and gpu.retained == 0


def test_a_full_gpu_is_said(tmp_path: Path, open_: Open) -> None:
    with pytest.raises(EngineError, match="cannot prepare") as caught:
        open_(write_engine(tmp_path / "a.engine", plan(fails="context")))
    assert "out of memory" in caught.value.why


def test_a_run_that_tensorrt_refuses_is_an_error_with_its_reason(tmp_path: Path, gpu: FakeGpu, open_: Open) -> None:
    with pytest.raises(EngineError) as caught:
        open_(write_engine(tmp_path / "a.engine", plan(fails="execute")))
    assert "could not be launched" in caught.value.why
    del caught  # its traceback shows the arrays
    gc.collect()
    assert not gpu.live and gpu.retained == 0


def test_no_driver_is_said_in_words(tmp_path: Path, gpu: FakeGpu, open_: Open) -> None:
    trt = FakeTensorrt(gpu)
    trt.loads = False
    with pytest.raises(DeviceError, match="no NVIDIA driver") as caught:
        open_(write_engine(tmp_path / "a.engine", plan()), trt)
    assert "error: 35" in caught.value.why and caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_shape": [4, 3, 64, 96]}, "batches of 4; the runtime takes one frame at a time"),
        ({"image_shape": [-1, 3, 64, 96]}, "no fixed shape"),
        ({"image_dtype": "HALF"}, "input image is float16, expected float32"),
        ({"answer_dtype": "INT32"}, "output logits is int32, expected float32"),
        ({"image_format": "CHW32"}, "in a layout of its own"),
        ({"answer_mode": "INPUT"}, "has inputs"),
        (
            {"output": "auxiliary", "confidence": "float32", "answer_name": "auxiliary", "image_mode": "OUTPUT"},
            "has inputs",
        ),
    ],
)
def test_an_engine_that_does_not_fit_its_spec_is_refused(
    tmp_path: Path, gpu: FakeGpu, open_: Open, changes: Any, said: str
) -> None:
    with pytest.raises(EngineError) as caught:
        open_(write_engine(tmp_path / "a.engine", plan(**changes)))
    assert said in caught.value.message and caught.value.hint
    del caught
    gc.collect()
    assert not gpu.live


def test_a_provider_that_runs_no_engines_is_refused(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", plan())
    with pytest.raises(DeviceError, match="does not run on provider cpu"):
        open_engine(path, "cpu")


def test_without_tensorrt_the_install_line_is_given(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed")
    path = write_engine(tmp_path / "a.plan", plan())
    with pytest.raises(MissingPackageError, match="tensorrt is not installed") as caught:
        open_engine(path)
    assert "tensorrt-cu12" in caught.value.hint


def test_bindings_without_their_libraries_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "tensorrt"
    package.mkdir(parents=True)
    text = "libnvinfer.so.8: cannot open shared object file: No such file or directory"
    (package / "__init__.py").write_text(f"raise ImportError({text!r})")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingPackageError, match=r"installed but does not load: libnvinfer\.so\.8"):
        open_engine(write_engine(tmp_path / "a.engine", plan()))


def test_an_engine_that_is_gone_is_a_file_error(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", plan())
    path.unlink()
    assert sidecar_path(path).exists()
    with pytest.raises(FileAccessError):
        open_engine(path)


# --- frames in, masks out ------------------------------------------------------------------------------------------


class Ends:
    """A segmenter on a GPU of the host's memory, and one that goes over the host, with the diary of the first."""

    def __init__(self, folder: Path, *, integrated: bool = False, **options: Any) -> None:
        content = options.pop("content", plan())
        spec = options.pop("spec", tiny_spec())
        compilers = options.pop("compilers", [host_compiler])
        segmenter = {name: options.pop(name) for name in ("groups", "region", "confidence") if name in options}
        path = write_engine(folder / "a.engine", content, spec)
        self.gpu, self.other = FakeGpu(integrated=integrated), FakeGpu(integrated=integrated)
        self.trt = FakeTensorrt(self.gpu)
        self.engine = open_tensorrt(path, trt=self.trt, cuda=open_cuda(driver=self.gpu), compilers=compilers, **options)
        plain = open_tensorrt(path, trt=FakeTensorrt(self.other), cuda=open_cuda(driver=self.other))
        plain.frame_path = lambda *_: None  # type: ignore[method-assign,assignment]
        self.segmenter, self.host = Segmenter(self.engine, **segmenter), Segmenter(plain, **segmenter)

    def check(self, frame: np.ndarray) -> Result:
        """Both ways give the same mask; the linear resize may be a level of 256 off in one pixel of a hundred."""
        result = self.segmenter.segment(frame)
        expected = self.host.segment(frame).mask
        assert result.mask.shape == frame.shape[:2] and (result.mask != expected).mean() < 2e-3
        return result

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *ignored: Any) -> None:
        self.segmenter.close()
        self.host.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _frame(height: int = 90, width: int = 130, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_frame_in_and_the_mask_out_are_all_that_crosses_the_bus_in_one_launch(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        ends.check(_frame(seed=1))
        gpu = ends.gpu
        gpu.diary.clear()
        gpu.bytes_in = gpu.bytes_out = 0
        ends.check(_frame(seed=2))
        assert gpu.diary == ["launch", "synchronize"]
        assert (gpu.bytes_in, gpu.bytes_out) == (90 * 130 * 3, 90 * 130)


def test_one_graph_holds_copy_frame_network_mask_and_copy_and_was_run_before_it_was_recorded(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        ends.gpu.diary.clear()
        ends.check(_frame())
        diary = ends.gpu.diary
        begin, end = diary.index("begin_capture"), diary.index("end_capture")
        steps = ["to_device", "start", "execute", "start", "to_host"]
        assert diary[begin : end + 1] == ["begin_capture", *steps, "end_capture"]
        assert diary[begin - 6 : begin] == [*steps, "synchronize"]


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("integrated", [False, True])
def test_sizes_may_change_and_each_is_recorded_once(tmp_path: Path, resize: str, integrated: bool) -> None:
    sizes = [(90, 130), (64, 96), (130, 90), (90, 130), (7, 200), (64, 96)]
    with Ends(tmp_path, integrated=integrated, spec=tiny_spec(resize=resize)) as ends:
        for seed, size_hw in enumerate(sizes):
            ends.check(_frame(*size_hw, seed))
        assert ends.gpu.diary.count("begin_capture") == 1 + len(set(sizes))  # the network's own is the first


def test_more_sizes_than_are_kept_leave_nothing_behind(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        for height in range(40, 45):
            ends.check(_frame(height, 50))
        gc.collect()
        live = len(ends.gpu.live)
        for height in range(45, 50):
            ends.check(_frame(height, 50))
            gc.collect()
            assert len(ends.gpu.live) == live
        ends.check(_frame(40, 50))
        assert ends.gpu.diary.count("destroy_graph") == 7


def test_the_size_that_was_used_longest_ago_is_let_go(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        for height in (40, 41, 42, 43, 40, 44):
            ends.check(_frame(height, 50))
        recorded = ends.gpu.diary.count("begin_capture")
        ends.check(_frame(40, 50))
        assert ends.gpu.diary.count("begin_capture") == recorded
        ends.check(_frame(41, 50))
        assert ends.gpu.diary.count("begin_capture") == recorded + 1


def test_an_integrated_gpu_reads_and_writes_where_frames_and_masks_are(tmp_path: Path) -> None:
    with Ends(tmp_path, integrated=True) as ends:
        ends.check(_frame(seed=1))
        ends.gpu.diary.clear()
        ends.gpu.bytes_in = ends.gpu.bytes_out = 0
        ends.check(_frame(seed=2))
        assert ends.gpu.diary == ["launch", "synchronize"]
        assert ends.gpu.bytes_in == ends.gpu.bytes_out == 0


@pytest.mark.parametrize("call", ["begin_capture", "end_capture"])
def test_frames_go_without_a_graph_where_none_can_be_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    with Ends(tmp_path) as ends:
        ends.gpu.refuse[call] = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
        ends.check(_frame(seed=1))
        ends.gpu.diary.clear()
        ends.check(_frame(seed=2))
        assert ends.gpu.diary == ["to_device", "start", "execute", "start", "to_host", "synchronize"]
    assert "segments frames without a CUDA graph" in caplog.text and "CAPTURE_UNSUPPORTED" in caplog.text


def test_no_graph_means_no_graph(tmp_path: Path) -> None:
    with Ends(tmp_path, graph=False) as ends:
        ends.check(_frame())
        assert "begin_capture" not in ends.gpu.diary


def test_two_threads_get_their_own_masks(tmp_path: Path) -> None:
    frames = [_frame(90, 130, 1), _frame(64, 70, 2)]
    with Ends(tmp_path) as ends:
        expected = [ends.check(frame).mask.copy() for frame in frames]
        wrong: List[int] = []

        def use(index: int) -> None:
            for _ in range(10):
                if not np.array_equal(ends.segmenter.segment(frames[index]).mask, expected[index]):
                    wrong.append(index)

        threads = [threading.Thread(target=use, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not wrong and not any(thread.is_alive() for thread in threads)
        assert ends.gpu.pushed == 0


def test_frames_and_pictures_may_take_turns(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        first = ends.check(_frame(seed=1)).mask.copy()
        ends.engine.input_buffer[:] = 0.5
        np.testing.assert_allclose(ends.engine.infer(), tiny_logits(ends.engine.input_buffer), atol=1e-4)
        np.testing.assert_array_equal(ends.check(_frame(seed=1)).mask, first)


def test_a_slice_of_a_picture_is_a_frame(tmp_path: Path) -> None:
    large = _frame(200, 300)
    with Ends(tmp_path) as ends:
        for view in (large[10:74, 20:116], large[::2, ::3], large[:64, :96, ::-1]):
            ends.check(view)


def test_everything_is_given_back_at_the_end(tmp_path: Path) -> None:
    ends = Ends(tmp_path)
    result = ends.check(_frame())
    kept = result.mask.copy()
    ends.gpu.diary.clear()
    ends.segmenter.close()
    ends.segmenter.close()
    order = ends.gpu.diary
    assert order.count("destroy_graph") == 2 and ends.gpu.modules == 0
    assert order.index("synchronize") < order.index("destroy_graph") < order.index("unload_module")
    assert order.index("unload_module") < order.index("free")
    assert ends.trt.dead == ["context", "engine", "runtime"]
    with pytest.raises(EngineError, match="is closed"):
        ends.segmenter.segment(_frame())
    gpu = ends.gpu
    del ends
    gc.collect()
    assert not gpu.live and gpu.retained == 0 and gpu.pushed == 0
    np.testing.assert_array_equal(result.mask, kept)


def test_a_path_ends_with_its_engine(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        path = ends.engine.frame_path()
        assert path is not None
        with pytest.raises(EngineError, match="was given no frame"):
            path.run()
        path.put(_frame())
        assert path.graph
        ends.engine.close()
        for use in (path.run, lambda: path.take(np.empty((90, 130), np.uint8)), lambda: path.put(_frame())):
            with pytest.raises(EngineError, match="closed"):
                use()
        with pytest.raises(EngineError, match="closed"):
            ends.engine.frame_path()


def test_a_gpu_without_memory_for_a_size_says_so_and_goes_on_with_others(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        ends.check(_frame())
        gc.collect()
        live = len(ends.gpu.live)
        for call in ("allocate", "allocate_pinned", "to_device", "start"):
            ends.gpu.refuse[call] = "CUDA_ERROR_OUT_OF_MEMORY"
            with pytest.raises(EngineError) as caught:
                ends.segmenter.segment(_frame(50, 60))
            assert "nvidia-smi" in caught.value.hint
            del caught
            gc.collect()
            assert len(ends.gpu.live) == live
            ends.gpu.refuse.clear()
        ends.check(_frame())
        ends.check(_frame(50, 60))


def test_a_gpu_that_fails_in_a_frame_is_an_inference_that_failed(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        ends.check(_frame())
        ends.gpu.refuse["launch"] = "CUDA_ERROR_ILLEGAL_ADDRESS"
        with pytest.raises(EngineError, match=r"a\.engine: inference failed") as caught:
            ends.segmenter.segment(_frame())
        assert "CUDA_ERROR_ILLEGAL_ADDRESS" in caught.value.why
        ends.gpu.refuse.clear()


def test_logits_that_are_no_numbers_are_an_error_of_that_frame(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        ends.check(_frame())
        ends.trt.spoilt = True
        with pytest.raises(EngineError, match="NaN"):
            ends.segmenter.segment(_frame())
        ends.trt.spoilt = False
        ends.check(_frame())


def test_groups_are_made_on_the_way(tmp_path: Path) -> None:
    groups = ClassGroups.parse(["drivable=road,car"], tiny_spec())
    with Ends(tmp_path, groups=groups) as ends:
        assert set(np.unique(ends.check(_frame()).mask)) == {0, 1}
        assert ends.gpu.diary.count("start") > 0


def test_a_mask_network_has_its_mask_enlarged_on_the_way(tmp_path: Path) -> None:
    spec = tiny_spec(output="mask", resize="letterbox")
    with Ends(tmp_path, content=plan(output="mask", confidence="float32"), spec=spec) as ends:
        ends.check(_frame(200, 90))
        assert ends.gpu.diary.count("start") > 0


@pytest.mark.parametrize("what", ["region", "confidence", "area", "cubic"])
def test_what_the_kernels_do_not_do_goes_over_the_host(tmp_path: Path, what: str) -> None:
    spec = tiny_spec(interpolation=what) if what in ("area", "cubic") else tiny_spec()
    options: Dict[str, Any] = {
        "region": {"region": RegionOfInterest(0, 0.5, 1, 1)},
        "confidence": {"confidence": True},
    }.get(what, {})
    with Ends(tmp_path, spec=spec, **options) as ends:
        np.testing.assert_array_equal(ends.segmenter.segment(_frame()).mask, ends.host.segment(_frame()).mask)
        assert not {"start", "load_module"} & set(ends.gpu.diary)


def test_without_a_compiler_frames_go_over_the_host_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def absent() -> Any:
        raise NoCompiler("nvcc: not found")

    with caplog.at_level(logging.WARNING), Ends(tmp_path, compilers=[absent]) as ends:
        for seed in range(3):
            ends.check(_frame(seed=seed))
        Segmenter(ends.engine).segment(_frame())
        assert "start" not in ends.gpu.diary
    (said,) = (record.getMessage() for record in caplog.records)
    assert "masks made on the CPU" in said and "nvcc: not found" in said and "Fix: " in said


def test_stages_are_the_frame_the_gpu_and_the_mask(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        result = ends.check(_frame())
        assert set(result.timing) == {"preprocess", "infer", "postprocess"}
        path = ends.engine.frame_path()
        assert path is not None
        path.put(_frame())
        ends.gpu.diary.clear()
        steps = ("h2d", "preprocess", "compute", "postprocess", "d2h")
        assert path.times_ms() == dict.fromkeys(steps, 1.0)  # the fake's clock ticks per event
        events = ends.gpu.diary.index("record")
        assert ends.gpu.diary[:events].count("launch") == 2  # or the GPU would wait for Python between two steps
    with Ends(tmp_path, integrated=True) as ends:
        path = ends.engine.frame_path()
        assert path is not None
        path.put(_frame())
        assert path.times_ms() == {**dict.fromkeys(steps, 1.0), "h2d": 0.0, "d2h": 0.0}


def test_an_overlay_is_drawn_in_the_same_pass_and_costs_its_own_bytes_only(tmp_path: Path) -> None:
    with Ends(tmp_path) as ends:
        frame = _frame()
        path = ends.engine.frame_path(palette=tiny_spec().palette)
        assert path is not None
        mask, overlay = np.empty((90, 130), np.uint8), np.empty((90, 130, 3), np.uint8)
        path.put(frame, alpha=0.4)
        ends.gpu.bytes_in = ends.gpu.bytes_out = 0
        path.run()
        path.take(mask)
        path.take(mask, overlay)
        assert (ends.gpu.bytes_in, ends.gpu.bytes_out) == (frame.nbytes, mask.nbytes + overlay.nbytes)
        expected = Overlay(tiny_spec(), 0.4, legend=False, outline=False).draw(frame, mask)
        assert np.abs(overlay.astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(mask, ends.check(frame).mask)
