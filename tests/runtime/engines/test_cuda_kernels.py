"""``kernels.cu``: compiled by what NVIDIA offers, where that is installed, and run as C++ of the host."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime.fake_gpu import FakeGpu
from runtime.kernels_on_host import host_compiler
from runtime.models import tiny_spec
from runtime.upsampled import upsampled

from rtda_deploy.errors import EngineError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.cuda.compilers import Compiler, NoCompiler, nvcc, nvrtc
from rtda_runtime.engines.cuda.context import Cuda, open_cuda
from rtda_runtime.engines.cuda.frames import CudaFramePath, Network
from rtda_runtime.engines.cuda.kernels import SOURCE, Kernels, load_kernels
from rtda_runtime.mask.preprocess import Preprocessor
from rtda_runtime.mask.regions import grid_region
from rtda_runtime.mask.upsample import GridPlan, grid_plan, resize_mask, upsample_argmax
from rtda_runtime.sinks.overlay import Overlay

TIE = 1e-5  # of the logits' range: below this float32 may prefer either class
_CLASSES = np.arange(256, dtype=np.uint8)


class Path_:
    """The two ends of a network that computes nothing: its input can be read, its answer set."""

    def __init__(self, spec: ModelSpec, classes: np.ndarray = _CLASSES) -> None:
        self.gpu = FakeGpu()
        self.cuda = open_cuda(driver=self.gpu)
        self.spec = spec
        kind = np.uint8 if spec.output == "mask" else np.float32
        shape = spec.output_hw if spec.output == "mask" else (spec.num_classes, *spec.output_hw)
        with self.cuda.current():
            image = host_compiler().compile(SOURCE.read_text(encoding="utf-8"), (9, 0))
            kernels = Kernels(self.cuda, image)
            place = self.cuda.allocate(int(np.prod(spec.size_hw)) * 12)
            answer = self.cuda.allocate(int(np.prod(shape)) * np.dtype(kind).itemsize)
        self.input = self.gpu.at(place, (1, 3, *spec.size_hw), np.float32)
        self.answer = self.gpu.at(answer, tuple(shape), kind)
        self.answer[...] = 0
        network = Network("tiny.engine", spec, place, answer, lambda: None)
        self.path = CudaFramePath(self.cuda, kernels, network, classes=classes, palette=spec.palette)

    def segment(self, frame: np.ndarray, alpha: Optional[float] = None) -> Tuple[np.ndarray, np.ndarray]:
        """Mask and overlay."""
        mask, overlay = np.full(frame.shape[:2], 77, np.uint8), np.full(frame.shape, 77, np.uint8)
        self.path.put(frame, alpha=alpha)
        self.path.run()
        self.path.take(mask, overlay)
        return mask, overlay

    def __enter__(self) -> Path_:
        return self

    def __exit__(self, *ignored: Any) -> None:
        self.path.close()
        self.cuda.close()


def _frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- the frame becomes the network's input -------------------------------------------------------------------------


def _check_input(frame: np.ndarray, spec: ModelSpec) -> int:
    """The kernel's picture is that of ``Preprocessor``, or one level of 256 beside it; how often it is beside."""
    expected = np.full((1, 3, *spec.size_hw), np.nan, np.float32)
    Preprocessor(spec)(frame, expected)
    with Path_(spec) as tested:
        tested.input[...] = np.nan
        tested.segment(frame)
        found = tested.input
        off = found != expected
        for channel in range(3):
            step = spec.pixel_scale / spec.std[channel]  # of one level
            np.testing.assert_allclose(found[0, channel], expected[0, channel], rtol=0, atol=1.001 * step)
    return int(off.sum())


@settings(max_examples=60, deadline=None)
@given(
    frame_hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size_hw=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    resize=st.sampled_from(["stretch", "letterbox"]),
    interpolation=st.sampled_from(["linear", "nearest"]),
    channel_order=st.sampled_from(["rgb", "bgr"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_frame_becomes_what_the_preprocessor_makes_of_it(
    frame_hw: Any, size_hw: Any, resize: str, interpolation: str, channel_order: str, seed: int
) -> None:
    spec = tiny_spec(
        size_hw=(8 * size_hw[0], 8 * size_hw[1]),
        resize=resize,
        interpolation=interpolation,
        channel_order=channel_order,
    )
    _check_input(_frame(*frame_hw, seed), spec)


@pytest.mark.parametrize("frame_hw", [(720, 1280), (1080, 1920), (480, 640), (256, 512), (1024, 2048), (255, 511)])
def test_camera_sizes_are_those_of_opencv_but_for_one_pixel_in_a_hundred(frame_hw: Tuple[int, int]) -> None:
    spec = tiny_spec(size_hw=(256, 512))
    frame = cv2.GaussianBlur(_frame(*frame_hw), (0, 0), 2.0)
    assert _check_input(frame, spec) <= 0.01 * 3 * 256 * 512


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_network_whose_size_is_no_multiple_of_a_block_is_filled_to_its_end_and_not_beyond(resize: str) -> None:
    for size_hw in ((13, 37), (1, 1), (9, 65)):
        _check_input(_frame(50, 70), tiny_spec(size_hw=size_hw, output_stride=1, resize=resize))


def test_a_frame_of_the_networks_size_is_taken_as_it_is() -> None:
    for spec in (tiny_spec(), tiny_spec(resize="letterbox"), tiny_spec(interpolation="nearest")):
        assert _check_input(_frame(64, 96), spec) == 0


def test_rtdas_own_contract_is_met_to_the_bit() -> None:
    spec = tiny_spec(channel_order="bgr", pixel_scale=1.0, mean=(104.007, 116.669, 122.679), std=(1.0, 1.0, 1.0))
    assert _check_input(_frame(64, 96), spec) == 0


# --- the answer becomes the mask -----------------------------------------------------------------------------------


def _check_mask(mask: np.ndarray, logits: np.ndarray, size_hw: Any, region: Any) -> None:
    """``mask`` is the argmax of the enlarged logits, or a class as good as the best; so it is the CPU's mask too."""
    if region is not None and min(region[2:]) < 1.0:  # it may hold no cell's centre: then the nearest cell counts
        large = _planned(logits, grid_plan(logits.shape[1:], size_hw, region))
    else:
        large = upsampled(logits, size_hw, region)
    chosen = np.take_along_axis(large, mask[None].astype(np.intp), 0)[0]
    assert (large.max(0) - chosen).max() <= TIE * max(np.ptp(large), 1e-30)
    other = np.take_along_axis(large, upsample_argmax(logits, size_hw, region=region)[None].astype(np.intp), 0)[0]
    assert np.abs(other - chosen).max() <= TIE * max(np.ptp(large), 1e-30)


def _planned(logits: np.ndarray, plan: GridPlan) -> np.ndarray:
    """The upsampled logits in float64, where the CPU's plan says that the pixels lie."""
    down, across = plan.down.astype(np.float64)[:, None], plan.right_share.astype(np.float64)
    rows = logits[:, plan.top] * (1 - down) + logits[:, plan.bottom] * down
    return np.asarray(rows[..., plan.left] * (1 - across) + rows[..., plan.right] * across)


def _logits(rng: Any, shape: Tuple[int, ...], smooth: bool, offset: float) -> np.ndarray:
    logits = rng.standard_normal(shape)
    if smooth:  # large areas of one class, as real networks give
        logits[:, 1:] = logits[:, :1] + 0.2 * logits[:, 1:]
    return np.asarray(logits + offset, np.float32)


def _classes_spec(count: int, **changes: Any) -> ModelSpec:
    names = tuple(f"class {index}" for index in range(count))
    palette = tuple((index, 255 - index, (7 * index) % 256) for index in range(count))
    return tiny_spec(class_names=names, palette=palette, **changes)


@settings(max_examples=80, deadline=None)
@given(
    classes=st.integers(1, 12),
    grid_hw=st.tuples(st.integers(1, 11), st.integers(1, 19)),
    size_hw=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    resize=st.sampled_from(["stretch", "letterbox"]),
    smooth=st.booleans(),
    offset=st.sampled_from([0.0, 1e4, -3e5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_answer_becomes_the_mask_that_the_cpu_makes_of_it(
    classes: int, grid_hw: Any, size_hw: Any, resize: str, smooth: bool, offset: float, seed: int
) -> None:
    spec = _classes_spec(classes, size_hw=(8 * grid_hw[0], 8 * grid_hw[1]), resize=resize)
    rng = np.random.default_rng(seed)
    with Path_(spec) as tested:
        tested.answer[...] = _logits(rng, tested.answer.shape, smooth, offset)
        mask, _ = tested.segment(_frame(*size_hw))
        region = grid_region(spec, _box(spec, size_hw))
        _check_mask(mask, tested.answer, size_hw, region)


def _box(spec: ModelSpec, frame_hw: Tuple[int, int]) -> Any:
    return Preprocessor(spec)(np.zeros((*frame_hw, 3), np.uint8), np.empty((1, 3, *spec.size_hw), np.float32))


@pytest.mark.parametrize("size_hw", [(720, 1280), (480, 640), (135, 240), (100, 333), (16, 32), (5, 7), (1, 1)])
def test_19_classes_at_camera_sizes(size_hw: Tuple[int, int]) -> None:
    spec = _classes_spec(19, size_hw=(128, 256), resize="letterbox")
    with Path_(spec) as tested:
        tested.answer[...] = _logits(np.random.default_rng(3), tested.answer.shape, True, 0.0)
        mask, _ = tested.segment(_frame(*size_hw))
        _check_mask(mask, tested.answer, size_hw, grid_region(spec, _box(spec, size_hw)))


def test_a_class_that_wins_at_no_corner_can_win_between_them() -> None:
    with Path_(_classes_spec(3, size_hw=(8, 16))) as tested:
        tested.answer[:, 0] = [(1.0, -1.0), (-1.0, 1.0), (0.5, 0.5)]
        mask, _ = tested.segment(_frame(1, 100))
    assert mask[0, 0] == 0 and mask[0, 50] == 2 and mask[0, 99] == 1


def test_of_two_that_tie_the_first_wins_as_on_the_cpu() -> None:
    with Path_(_classes_spec(2, size_hw=(8, 16))) as tested:
        tested.answer[:, 0] = [(1.0, -1.0), (-1.0, 1.0)]
        mask, _ = tested.segment(_frame(1, 5))
        np.testing.assert_array_equal(mask, upsample_argmax(tested.answer, (1, 5)))
    assert mask.tolist() == [[0, 0, 0, 1, 1]]


def test_all_255_classes_can_win() -> None:
    with Path_(_classes_spec(255, size_hw=(120, 136))) as tested:
        tested.answer[...] = np.eye(255, dtype=np.float32).reshape(255, 15, 17)
        mask, _ = tested.segment(_frame(15, 17))
    np.testing.assert_array_equal(mask.reshape(-1), np.arange(255))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (4, 7, 11), (2, 3, 5)])
def test_a_logit_that_is_no_number_is_an_error_and_the_next_frame_is_not(value: float, place: Any) -> None:
    with Path_(tiny_spec(resize="letterbox")) as tested:
        frame = _frame(90, 30)  # shown by a part of the grid; the CPU looks at all of it too
        tested.answer[place] = value
        with pytest.raises(EngineError, match="NaN or infinite") as caught:
            tested.segment(frame)
        assert "--precision fp32" in caught.value.hint
        tested.answer[place] = 0.0
        assert (tested.segment(frame)[0] == 0).all()


def test_large_and_small_logits_are_numbers() -> None:
    with Path_(tiny_spec()) as tested:
        tested.answer[...] = np.float32(-3e38)
        tested.answer[1] = np.float32(3e38)
        assert (tested.segment(_frame(50, 60))[0] == 1).all()


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("size_hw", [(90, 130), (64, 96), (20, 200), (1, 1)])
def test_a_network_that_gives_masks_has_its_mask_enlarged(resize: str, size_hw: Tuple[int, int]) -> None:
    spec = tiny_spec(output="mask", resize=resize)
    with Path_(spec) as tested:
        tested.answer[...] = np.random.default_rng(1).integers(0, 5, spec.output_hw)
        expected = resize_mask(tested.answer, size_hw, region=grid_region(spec, _box(spec, size_hw)))
        np.testing.assert_array_equal(tested.segment(_frame(*size_hw))[0], expected)


@pytest.mark.parametrize("output", ["logits", "mask"])
def test_classes_are_joined_on_the_way(output: str) -> None:
    table = np.full(256, 255, np.uint8)
    table[:5] = (1, 0, 1, 0, 254)
    answer = np.random.default_rng(2)
    with Path_(tiny_spec(output=output)) as plain, Path_(tiny_spec(output=output), table) as joined:
        plain.answer[...] = answer.integers(0, 5, plain.answer.shape)
        joined.answer[...] = plain.answer
        np.testing.assert_array_equal(joined.segment(_frame(90, 130))[0], table[plain.segment(_frame(90, 130))[0]])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("output", ["logits", "mask"])
def test_the_overlay_is_that_of_the_cpu(alpha: float, output: str) -> None:
    spec = tiny_spec(output=output)
    table = _CLASSES.copy()
    table[3] = 255  # without a colour: the frame stays
    frame = _frame(90, 130)
    with Path_(spec, table) as tested:
        tested.answer[...] = np.random.default_rng(4).integers(0, 5, tested.answer.shape)
        mask, overlay = tested.segment(frame, alpha)
        expected = Overlay(spec, alpha, legend=False, outline=False).draw(frame, mask)
        assert np.abs(overlay.astype(int) - expected).max() <= 1
        assert (overlay != expected).mean() <= 0.01  # which float32 rounds the other way
        np.testing.assert_array_equal(overlay[mask == 255], frame[mask == 255])
        assert (mask == 255).any() and mask.min() == 0
        np.testing.assert_array_equal(tested.segment(frame)[0], mask)  # the one without an overlay
        assert (tested.segment(frame)[1] == 77).all()


# --- compilers -----------------------------------------------------------------------------------------------------


def _compiled_or_skipped(find: Any, capability: Tuple[int, int]) -> bytes:
    try:
        compiler: Compiler = find()
    except NoCompiler as err:
        pytest.skip(str(err))
    return compiler.compile(SOURCE.read_text(encoding="utf-8"), capability)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
@pytest.mark.parametrize("find", [nvcc, nvrtc])
def test_nvidias_own_compilers_take_the_source(find: Any, capability: Tuple[int, int]) -> None:
    image = _compiled_or_skipped(find, capability)
    assert image.startswith(b"\x7fELF")
    for name in (b"prepare_frame", b"mask_from_logits", b"mask_from_mask"):
        assert name in image


def test_nvrtc_compiles_for_a_xavier_as_long_as_it_can() -> None:
    try:
        compiler = nvrtc()
    except NoCompiler as err:
        pytest.skip(str(err))
    if int(compiler.name.split()[1].split(".")[0]) >= 13:
        with pytest.raises(NoCompiler, match=r"no longer compiles for compute capability 7\.2"):
            compiler.compile(SOURCE.read_text(encoding="utf-8"), (7, 2))
    else:
        assert compiler.compile(SOURCE.read_text(encoding="utf-8"), (7, 2)).startswith(b"\x7fELF")


def test_a_mistake_in_the_source_is_said_in_the_compilers_words() -> None:
    for find in (nvcc, nvrtc):
        try:
            compiler = find()
        except NoCompiler:
            continue
        with pytest.raises(NoCompiler, match="error"):
            compiler.compile('extern "C" __global__ void broken() { nonsense; }', (9, 0))


def _script(folder: Path, text: str) -> str:
    path = folder / "nvcc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_nvcc_is_asked_for_the_gpus_own_code(tmp_path: Path) -> None:
    text = (
        'if [ "$1" = --version ]; then echo "Cuda compilation tools, release 11.4, V11.4.315"; exit; fi\n'
        'echo "$1 $2" > "$4"'
    )
    compiler = nvcc(_script(tmp_path, text))
    assert compiler.name == "nvcc 11.4.315"
    assert compiler.compile("", (7, 2)) == b"-cubin -arch=sm_72\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no such thing >&2; exit 1", "no such thing"),
        ("echo hello", "does not say which version"),
        ("exit 3", "3"),
    ],
)
def test_an_nvcc_that_does_not_work_gives_its_reason(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NoCompiler, match=said):
        nvcc(_script(tmp_path, text))


def test_nvcc_is_found_beside_cuda_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    _script(tmp_path / "bin", "echo V12.6.85")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert nvcc().name == "nvcc 12.6.85"


class FakeNvrtc:
    """What is used of ``cuda.bindings.nvrtc``; keeps what it was asked for."""

    class Code(int):
        name = "NVRTC_ERROR_COMPILATION"

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.options: List[bytes] = []
        self.destroyed = 0

    def nvrtcVersion(self) -> Any:
        return 0, 12, 9

    def nvrtcGetSupportedArchs(self) -> Any:
        return 0, [72, 75, 90]

    def nvrtcCreateProgram(self, source: bytes, name: bytes, count: int, headers: Any, names: Any) -> Any:
        return 0, "program"

    def nvrtcCompileProgram(self, program: str, count: int, options: List[bytes]) -> Any:
        assert count == len(options)
        self.options = options
        return (self.Code(6 if self.broken else 0),)

    def nvrtcGetProgramLogSize(self, program: str) -> Any:
        return 0, 8

    def nvrtcGetProgramLog(self, program: str, log: bytes) -> Any:
        return (0,)

    def nvrtcGetCUBINSize(self, program: str) -> Any:
        return 0, 5

    def nvrtcGetCUBIN(self, program: str, image: bytes) -> Any:
        return (0,)

    def nvrtcGetPTXSize(self, program: str) -> Any:
        return 0, 3

    def nvrtcGetPTX(self, program: str, image: bytes) -> Any:
        return (0,)

    def nvrtcDestroyProgram(self, program: str) -> Any:
        self.destroyed += 1
        return (0,)


@pytest.mark.parametrize(
    ("capability", "option", "size"), [((7, 2), b"sm_72", 5), ((9, 0), b"sm_90", 5), ((12, 1), b"compute_90", 3)]
)
def test_nvrtc_gives_machine_code_or_what_the_driver_makes_it_of(
    capability: Tuple[int, int], option: bytes, size: int
) -> None:
    api = FakeNvrtc()
    assert len(nvrtc(api).compile("source", capability)) == size
    assert api.options == [b"--gpu-architecture=" + option, b"--std=c++14"] and api.destroyed == 1


def test_nvrtc_refuses_a_gpu_that_is_too_old_for_it_and_a_source_that_is_wrong() -> None:
    with pytest.raises(NoCompiler, match=r"no longer compiles for compute capability 7\.0"):
        nvrtc(FakeNvrtc()).compile("source", (7, 0))
    api = FakeNvrtc(broken=True)
    with pytest.raises(NoCompiler, match="NVRTC_ERROR_COMPILATION"):
        nvrtc(api).compile("source", (9, 0))
    assert api.destroyed == 1


def test_an_nvrtc_that_cannot_be_loaded_or_is_too_old_is_none() -> None:
    class Old(FakeNvrtc):
        def nvrtcGetSupportedArchs(self) -> Any:
            raise AttributeError("no nvrtcGetSupportedArchs before CUDA 11.2")

    class Absent(FakeNvrtc):
        def nvrtcVersion(self) -> Any:
            raise RuntimeError("Failed to dlopen libnvrtc.so.12\nand more")

    with pytest.raises(NoCompiler, match="before CUDA"):
        nvrtc(Old()).compile("source", (9, 0))
    with pytest.raises(NoCompiler, match=r"^NVRTC: Failed to dlopen libnvrtc\.so\.12$"):
        nvrtc(Absent())


def test_an_nvcc_that_writes_nothing_is_a_compiler_that_is_not_there(tmp_path: Path) -> None:
    compiler = nvcc(_script(tmp_path, "echo V11.4.315"))
    with pytest.raises(NoCompiler, match="No such file or directory"):
        compiler.compile("", (9, 0))


# --- what was compiled is kept -------------------------------------------------------------------------------------


class Counting:
    """A compiler that counts what it compiles."""

    def __init__(self, name: str = "NVRTC 12.9") -> None:
        self.name = name
        self.compiled = 0

    def __call__(self) -> Compiler:
        real = host_compiler()

        def compile_(source: str, capability: Tuple[int, int]) -> bytes:
            self.compiled += 1
            return real.compile(source, capability)

        return Compiler(self.name, compile_)


@pytest.fixture()
def cuda() -> Iterator[Cuda]:
    opened = open_cuda(driver=FakeGpu())
    yield opened
    opened.close()


def test_it_is_compiled_once_for_each_gpu_compiler_and_source(tmp_path: Path, cuda: Cuda) -> None:
    counting = Counting()
    for _ in range(2):
        load_kernels(cuda, compilers=[counting], cache=tmp_path)
    assert counting.compiled == 1
    newer = Counting("NVRTC 13.0")
    load_kernels(cuda, compilers=[newer], cache=tmp_path)
    cuda.compute_capability = (7, 2)
    load_kernels(cuda, compilers=[counting], cache=tmp_path)
    changed = tmp_path / "changed.cu"
    changed.write_text(SOURCE.read_text(encoding="utf-8") + "// more\n")
    load_kernels(cuda, compilers=[counting], cache=tmp_path, source=changed)
    assert (counting.compiled, newer.compiled) == (3, 1)
    names = sorted(path.name[17:] for path in tmp_path.glob("*.bin"))
    assert names == ["sm72-nvrtc-12.9.bin", "sm72-nvrtc-12.9.bin", "sm90-nvrtc-12.9.bin", "sm90-nvrtc-13.0.bin"]


def test_it_lies_in_the_users_cache_folder(tmp_path: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_kernels(cuda, compilers=[Counting()])
    assert len(list((tmp_path / "rtda-deploy" / "kernels").iterdir())) == 1


def test_what_the_driver_does_not_take_is_compiled_again(tmp_path: Path, cuda: Cuda) -> None:
    counting = Counting()
    load_kernels(cuda, compilers=[counting], cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-4])
    load_kernels(cuda, compilers=[counting], cache=tmp_path)
    assert counting.compiled == 2 and kept.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, cuda: Cuda) -> None:
    counting, file = Counting(), tmp_path / "file"
    file.touch()
    for _ in range(2):
        load_kernels(cuda, compilers=[counting], cache=file / "kernels")
    assert counting.compiled == 2


def test_a_user_without_a_home_has_no_cache(cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    counting = Counting()
    for _ in range(2):
        load_kernels(cuda, compilers=[counting])
    assert counting.compiled == 2


def test_an_installation_without_the_source_says_so(cuda: Cuda, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"kernels\.cu is not in this installation"):
        load_kernels(cuda, compilers=[Counting()], cache=tmp_path, source=tmp_path / "kernels.cu")


def test_the_next_compiler_is_tried_and_all_reasons_are_given(tmp_path: Path, cuda: Cuda) -> None:
    def absent() -> Compiler:
        raise NoCompiler("NVRTC: not here")

    def wrong() -> Compiler:
        return Compiler("nvcc 1.0", lambda source, capability: b"what no GPU runs")

    counting = Counting()
    load_kernels(cuda, compilers=[absent, wrong, counting], cache=tmp_path)
    assert counting.compiled == 1
    with pytest.raises(EngineError, match="nothing here compiles kernels for Fake GPU") as caught:
        load_kernels(cuda, compilers=[absent, wrong], cache=tmp_path)
    assert "NVRTC: not here; nvcc 1.0: " in caught.value.why and "CUDA_ERROR_NO_BINARY_FOR_GPU" in caught.value.why
    assert "nvidia-cuda-nvrtc" in caught.value.hint
