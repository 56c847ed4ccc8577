"""``make gpu-check``: each phase on the GPU of this machine; and without one, all of them on a GPU made of NumPy."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from gpu.phases import Backend, compared, prepared, tensorrt_backend
from gpu.run import Run, line_of, main, phase_names, read_manifest
from runtime.fake_gpu import FakeGpu, FakeTensorrt, plan, write_engine
from runtime.kernels_on_host import host_compiler
from runtime.models import tiny_logits, tiny_spec

from rtda_deploy.errors import ConfigError, DeviceError, EngineError, FileAccessError, RtdaError
from rtda_runtime.engines.cuda.context import open_cuda
from rtda_runtime.engines.tensorrt import open_tensorrt

ROOT = Path(__file__).parents[2]
FILES = Path(os.environ.get("RTDA_GPU_FILES", ROOT / "runs/gpu-files"))
OUT = Path(os.environ.get("RTDA_GPU_OUT", ROOT / "runs/gpu-check"))


def names_here() -> List[str]:
    """The phases, where the files are there."""
    try:
        return phase_names(FILES)
    except RtdaError:
        return ["the files"]


@pytest.fixture(scope="module")
def here() -> Run:
    """The GPU of this machine; skips where something is not there, and says what."""
    try:
        return Run(FILES, OUT, tensorrt_backend())
    except ConfigError:
        raise
    except RtdaError as err:
        pytest.skip(f"{err.message}; {err.hint}")


@pytest.mark.gpu
@pytest.mark.trt
@pytest.mark.parametrize("name", names_here())
def test_on_the_gpu_of_this_machine(here: Run, name: str) -> None:
    if here.done(name):
        pytest.skip(f"passed before: {here.folder / 'gpu.json'}")
    facts = here.phase(name)
    print(line_of(facts))
    assert facts["passed"], facts["says"]


# without a GPU


class Machine:
    """A backend that builds the tiny network's engine, or refuses, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.facts = {"gpu": "Fake GPU (9.0, 1 GiB)", "tensorrt": "TensorRT 8.5.2.2"}
        self.built: List[str] = []
        self.refuse: Dict[str, BaseException] = {}
        self.seed = 0
        self.leak = 0
        self.compilers: Any = [host_compiler]
        self.backend = Backend(self.machine, self.build, self.open, lambda: open_cuda(driver=FakeGpu()), lambda: None)

    def machine(self) -> Dict[str, str]:
        return dict(self.facts)

    def build(self, onnx: Dict[str, Path], engine: Path, precision: str) -> Dict[str, Any]:
        if precision in self.refuse:
            raise self.refuse[precision]
        self.built.append(engine.name)
        write_engine(engine, plan(self.seed), precision=precision)
        return {"build_s": 1.5, "engine_mib": 2.5, "onnx": onnx[precision].name}

    def open(self, path: Path) -> Any:
        gpu = FakeGpu()
        engine = open_tensorrt(path, trt=FakeTensorrt(gpu), cuda=open_cuda(driver=gpu), compilers=self.compilers)
        used, asked = engine.device_memory_used, []
        engine.device_memory_used = lambda: asked.append(1) or used() + self.leak * len(asked)  # type: ignore[func-returns-value, method-assign]
        return engine


@pytest.fixture()
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Machine()


@pytest.fixture()
def files(tmp_path: Path) -> Path:
    """What ``prepare`` would have written for the tiny network, twice: as if at two sizes."""
    folder = tmp_path / "files"
    folder.mkdir()
    frames = np.random.default_rng(3).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    logits = np.stack([tiny_logits(prepared(frame, tiny_spec())) for frame in frames]).astype(np.float32)
    sizes = []
    for name in ("small", "large"):
        np.savez_compressed(folder / f"{name}.npz", frames=frames, logits=logits)
        onnx = {precision: f"{name}.{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
        sizes.append({"name": name, "onnx": onnx, "frames": f"{name}.npz"})
    manifest = {"format": 1, "checkpoint": "best.pth", "trained": True, "sizes": sizes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def run(machine: Machine, files: Path, out: Path) -> int:
    words = ["--in", str(files), "--out", str(out), "--frames", "20", "--repeats", "5"]
    return main(words, machine.backend)


def phases(out: Path) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads((out / "gpu.json").read_text())["phases"]
    return found


def test_the_first_sizes_fp16_comes_first_and_whole_and_every_figure_is_kept(
    machine: Machine, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(machine, files, tmp_path) == 0
    found = phases(tmp_path)
    first = ("build", "parity", "latency", "frames", "threads", "soak", "torch")
    rest = ("small.int8", "large.fp16", "large.int8")
    assert list(found) == [f"{step} small.fp16" for step in first] + [
        f"{step} {about}" for about in rest for step in first[:4]
    ]
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "Fake GPU (9.0, 1 GiB) · TensorRT 8.5.2.2"
    assert all(f"\n{name} " in printed for name in found)
    latency, frames = found["latency small.fp16"], found["frames small.fp16"]
    assert set(latency["ms"]) == {"h2d", "compute", "d2h", "end_to_end"} and latency["cuda_graph"] is True
    assert latency["ms"]["compute"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0} and latency["gpu_mib"] is not None
    assert found["parity small.fp16"]["agreement"] == 1.0 and found["soak small.fp16"]["gpu_growth_mib"] == 0.0
    assert frames["mask_agreement"] >= 0.999 and frames["cuda_graph"] is True
    assert frames["frame_ms"]["bare"]["p50"] == 3.0, "two copies and the network, a tick of the fake's clock each"
    assert frames["steps_ms"] == dict.fromkeys(("h2d", "preprocess", "compute", "postprocess", "d2h"), 1.0)
    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith("Measured on: Fake GPU (9.0, 1 GiB), TensorRT 8.5.2.2.")
    assert "| small.fp16 | 1.5 | 2.5 | 100.000 % | 1.000 / 1.000 / 1.000 |" in page
    assert "- frames small.fp16: frame to mask" in page and "- threads small.fp16: 4 threads, 0 other answers" in page


@pytest.mark.parametrize(
    ("ours", "bare", "peers", "met"),
    [(1.1, 1.0, 4.0, True), (1.3, 1.0, 4.0, False), (0.59, 0.4, 4.0, True), (1.1, 1.0, 3.0, False)],
)
def test_the_goal_is_a_share_or_a_fifth_of_a_millisecond_and_three_times_the_peers(
    ours: float, bare: float, peers: float, met: bool
) -> None:
    facts = compared([(ours, bare, peers)] * 3)
    assert facts["goal_met"] is met and f"goal {'met' if met else 'missed'}" in facts["says"]


def test_frames_without_a_compiler_are_a_failed_phase_that_says_so(
    machine: Machine, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.compilers = []
    assert run(machine, files, tmp_path) == 1
    assert "FAILED  the kernels cannot be compiled here" in capsys.readouterr().out


def test_what_is_done_is_not_done_again_and_what_failed_or_was_cut_off_is(
    machine: Machine, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.refuse["int8"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(machine, files, tmp_path)
    assert machine.built == ["small.fp16.engine"] and (tmp_path / "gpu.md").exists()
    machine.refuse["int8"] = EngineError("no engine today", why="the test says so")
    assert run(machine, files, tmp_path) == 1
    assert "FAILED  no engine today · the test says so" in capsys.readouterr().out
    assert machine.built[1:] == ["large.fp16.engine"], "what does not need the failed one is done"
    machine.refuse, machine.built = {}, []
    assert run(machine, files, tmp_path) == 0
    assert machine.built == ["small.int8.engine", "large.int8.engine"]
    assert "done before" in capsys.readouterr().out


def test_results_of_another_machine_are_not_mixed_in(machine: Machine, files: Path, tmp_path: Path) -> None:
    Run(files, tmp_path, machine.backend).phase("build small.fp16")
    machine.facts["gpu"] = "Another GPU"
    with pytest.raises(ConfigError, match="another machine") as caught:
        Run(files, tmp_path, machine.backend)
    assert "another folder" in caught.value.hint and run(machine, files, tmp_path) == 2


def test_a_trained_network_is_held_to_the_limit_and_a_random_one_is_not(
    machine: Machine, files: Path, tmp_path: Path
) -> None:
    machine.seed = 1  # another network than the one the logits are of
    assert run(machine, files, tmp_path / "trained") == 1
    parity = phases(tmp_path / "trained")["parity small.fp16"]
    assert not parity["passed"] and parity["agreement"] < 0.9 and parity["limit"] == 0.995
    manifest = json.loads((files / "manifest.json").read_text())
    (files / "manifest.json").write_text(json.dumps({**manifest, "trained": False}))
    assert run(machine, files, tmp_path / "random") == 0
    assert "random weights: no limit" in phases(tmp_path / "random")["parity small.fp16"]["says"]


def test_memory_that_grows_fails_the_soak(machine: Machine, files: Path, tmp_path: Path) -> None:
    machine.leak = 1 << 24
    assert run(machine, files, tmp_path) == 1
    soak = phases(tmp_path)["soak small.fp16"]
    assert not soak["passed"] and soak["gpu_growth_mib"] == 16.0


def test_without_a_gpu_or_files_nothing_is_written_but_the_reason(
    machine: Machine, files: Path, tmp_path: Path
) -> None:
    def none() -> Dict[str, str]:
        raise DeviceError("no NVIDIA driver was found on this machine")

    with pytest.raises(DeviceError):
        Run(files, tmp_path / "out", machine.backend._replace(machine=none))
    with pytest.raises(FileAccessError) as caught:
        Run(tmp_path, tmp_path / "out", machine.backend)
    assert "gpu.prepare --out" in caught.value.hint and not (tmp_path / "out").exists()


def test_it_starts_from_a_bare_copy_with_numpy_alone(files: Path, tmp_path: Path) -> None:
    """As on a GPU host: nothing of ours is installed, and neither are pytest, typer, onnx, OpenCV and torch."""
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    bare = tmp_path / "site"
    bare.mkdir()
    site = Path(np.__file__).parent.parent
    for entry in [*site.glob("numpy"), *site.glob("numpy.libs")]:
        (bare / entry.name).symlink_to(entry)
    folders = [ROOT, *(ROOT / name for name in ("training", "export", "runtime", "tests")), bare]
    command = [sys.executable, "-S", "-m", "gpu.run", "--in", str(files), "--out", str(tmp_path / "out")]
    environment = {"PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error  package tensorrt is not installed") and "fix    pip install" in done.stderr


@pytest.mark.slow
def test_prepare_writes_what_run_reads(tmp_path: Path) -> None:
    for package in ("torch", "onnx", "onnxruntime", "cv2"):
        pytest.importorskip(package)
    from gpu import prepare

    prepare.main(["--out", str(tmp_path), "--sizes", "64x64", "--precisions", "fp16,int8", "--pictures", "2"])
    (size,) = read_manifest(tmp_path)["sizes"]
    assert set(size["onnx"]) == {"fp32", "fp16", "int8"} and len(phase_names(tmp_path)) == 11
    assert all((tmp_path / name).stat().st_size > 0 for name in size["onnx"].values())
    with np.load(tmp_path / size["frames"]) as stored:
        assert stored["frames"].shape == (2, 64, 64, 3) and stored["frames"].dtype == np.uint8
        assert stored["logits"].shape == (2, 19, 8, 8) and np.isfinite(stored["logits"]).all()
