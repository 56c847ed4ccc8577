"""``make gpu-check``: its phases, its resuming and its words, on a GPU made of NumPy."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from runtime.fake_gpu import FakeGpu, FakeTensorrt, plan, write_engine
from runtime.kernels_on_host import host_compiler
from runtime.models import tiny_logits, tiny_spec

from rtda_deploy.errors import ConfigError, DeviceError, EngineError, FileAccessError
from rtda_runtime.engines.cuda.context import open_cuda
from rtda_runtime.engines.tensorrt import open_tensorrt

_SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_check", _SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Machine:
    """A backend that builds the tiny network's engine, or refuses, and keeps what it was asked for."""

    def __init__(self, gpu_check: Any) -> None:
        self.facts = {"gpu": "Fake GPU (9.0, 1 GiB)", "tensorrt": "TensorRT 8.5.2.2"}
        self.built: List[str] = []
        self.refuse: List[str] = []
        self.seed = 0
        self.compilers: Any = [host_compiler]
        self.backend = gpu_check.Backend(
            lambda: dict(self.facts), self.build, self.open, lambda: None, lambda: open_cuda(driver=FakeGpu())
        )

    def build(self, onnx: Dict[str, Path], engine: Path, precision: str) -> Dict[str, Any]:
        if precision in self.refuse:
            raise EngineError("no engine today", why="the test says so")
        self.built.append(engine.name)
        write_engine(engine, plan(self.seed), precision=precision)
        return {"build_s": 1.5, "engine_mib": 2.5, "onnx": onnx[precision].name}

    def open(self, path: Path) -> Any:
        gpu = FakeGpu()
        cuda = open_cuda(driver=gpu)
        return open_tensorrt(path, trt=FakeTensorrt(gpu), cuda=cuda, compilers=self.compilers)


@pytest.fixture()
def machine(gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Machine(gpu_check)


@pytest.fixture()
def files(tmp_path: Path, gpu_check: Any) -> Path:
    """What ``prepare`` would have written for the tiny network, twice: as if at two sizes."""
    folder = tmp_path / "files"
    folder.mkdir()
    frames = np.random.default_rng(3).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    logits = np.stack([tiny_logits(gpu_check._prepared(frame, tiny_spec())) for frame in frames]).astype(np.float32)
    sizes = []
    for name in ("small", "large"):
        np.savez_compressed(folder / f"{name}.npz", frames=frames, logits=logits)
        onnx = {precision: f"{name}.{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
        sizes.append({"name": name, "onnx": onnx, "frames": f"{name}.npz"})
    manifest = {"format": 1, "checkpoint": "best.pth", "trained": True, "sizes": sizes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _run(gpu_check: Any, machine: Machine, files: Path, out: Path) -> int:
    return int(gpu_check.run(files, out, machine.backend, frames=20, repeats=5))


def test_the_first_sizes_fp16_comes_first_and_whole(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(gpu_check, machine, files, tmp_path / "out") == 0
    names = list(json.loads((tmp_path / "out" / "gpu.json").read_text())["phases"])
    first = ("build", "parity", "latency", "frames", "threads", "soak-20", "torch")
    assert names[:7] == [f"{step} small.fp16" for step in first]
    assert names[7:] == [
        f"{step} {about}"
        for about in ("small.int8", "large.fp16", "large.int8")
        for step in ("build", "parity", "latency", "frames")
    ]
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "Fake GPU (9.0, 1 GiB) · TensorRT 8.5.2.2"
    assert all(name in printed for name in names)


def test_results_name_the_device_and_hold_every_figure(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path
) -> None:
    _run(gpu_check, machine, files, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert results["machine"] == machine.facts
    latency = results["phases"]["latency small.fp16"]
    assert set(latency["ms"]) == {"h2d", "compute", "d2h", "end_to_end"}
    assert all(set(figures) == {"p50", "p95", "p99"} for figures in latency["ms"].values())
    assert latency["ms"]["compute"]["p50"] == 1.0 and latency["cuda_graph"] is True
    assert results["phases"]["parity small.fp16"]["agreement"] == 1.0
    soak = results["phases"]["soak-20 small.fp16"]
    assert soak["passed"] and soak["gpu_growth_mib"] == 0.0
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert "Fake GPU (9.0, 1 GiB)" in page and "| small.fp16 | 1.5 | 2.5 | 100.000 % | 1.000 / 1.000 / 1.000 |" in page


def test_frame_to_mask_is_held_against_the_bare_network_and_against_the_peers_way(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path
) -> None:
    assert _run(gpu_check, machine, files, tmp_path / "out") == 0
    frames = json.loads((tmp_path / "out" / "gpu.json").read_text())["phases"]["frames small.fp16"]
    assert frames["passed"] and frames["mask_agreement"] >= 0.999 and frames["cuda_graph"] is True
    assert set(frames["frame_ms"]) == {"frame", "bare", "peers"}
    assert frames["frame_ms"]["bare"]["p50"] == 3.0  # two copies and the network, a tick of the fake's clock each
    assert frames["steps_ms"] == dict.fromkeys(("h2d", "preprocess", "compute", "postprocess", "d2h"), 1.0)
    for ratio in ("over_bare", "over_peers"):
        assert frames[ratio]["low"] <= frames[ratio]["median"] <= frames[ratio]["high"]
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert "frames small.fp16: frame to mask" in page and "of the network and two copies" in page


@pytest.mark.parametrize(
    ("ours", "bare", "peers", "met"),
    [(1.1, 1.0, 4.0, True), (1.3, 1.0, 4.0, False), (0.59, 0.4, 4.0, True), (1.1, 1.0, 3.0, False)],
)
def test_the_goal_is_a_share_or_a_fifth_of_a_millisecond_and_three_times_the_peers(
    gpu_check: Any,
    machine: Machine,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ours: float,
    bare: float,
    peers: float,
    met: bool,
) -> None:
    monkeypatch.setattr(gpu_check, "_round", lambda *_: (ours, bare, peers))
    assert _run(gpu_check, machine, files, tmp_path / "out") == 0
    frames = json.loads((tmp_path / "out" / "gpu.json").read_text())["phases"]["frames small.fp16"]
    assert frames["goal_met"] is met
    assert f"goal {'met' if met else 'missed'}" in gpu_check.line_of(frames)


def test_a_mask_that_is_not_the_cpus_fails(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "_to_mask", lambda path, frame, mask: (path.put(frame), path.run(), mask.fill(9)))
    assert _run(gpu_check, machine, files, tmp_path / "out") == 1
    frames = json.loads((tmp_path / "out" / "gpu.json").read_text())["phases"]["frames small.fp16"]
    assert frames["mask_agreement"] == 0.0 and not frames["passed"]


def test_frames_without_a_compiler_are_a_failed_phase_that_says_so(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.compilers = []
    assert _run(gpu_check, machine, files, tmp_path / "out") == 1
    assert "FAILED  the kernels cannot be compiled here" in capsys.readouterr().out


def test_what_is_done_is_not_done_again_and_what_failed_is_tried_again(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.refuse = ["int8"]
    assert _run(gpu_check, machine, files, tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "build small.int8" in captured.err and "FAILED  no engine today · the test says so" in captured.out
    assert "latency large.fp16" not in captured.err  # what does not need the failed one was done
    machine.refuse, machine.built = [], []
    assert _run(gpu_check, machine, files, tmp_path / "out") == 0
    assert machine.built == ["small.int8.engine", "large.int8.engine"]
    assert "done before" in capsys.readouterr().out


def test_a_run_that_was_killed_goes_on_where_it_was(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path
) -> None:
    def killed(onnx: Any, engine: Path, precision: str) -> Dict[str, Any]:
        raise KeyboardInterrupt

    whole = machine.backend
    machine.backend = whole._replace(
        build=lambda onnx, engine, precision: (machine.build if precision == "fp16" else killed)(
            onnx, engine, precision
        )
    )
    with pytest.raises(KeyboardInterrupt):
        _run(gpu_check, machine, files, tmp_path / "out")
    assert (tmp_path / "out" / "gpu.md").exists()
    machine.backend, machine.built = whole, []
    assert _run(gpu_check, machine, files, tmp_path / "out") == 0
    assert machine.built[0] == "small.int8.engine"


def test_results_of_another_machine_are_not_mixed_in(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path
) -> None:
    _run(gpu_check, machine, files, tmp_path / "out")
    machine.facts["gpu"] = "Another GPU"
    with pytest.raises(ConfigError, match="another machine") as caught:
        _run(gpu_check, machine, files, tmp_path / "out")
    assert "--out" in caught.value.hint


def test_a_trained_network_is_held_to_the_limit_and_a_random_one_is_not(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path
) -> None:
    machine.seed = 1  # another network than the one the logits are of
    assert _run(gpu_check, machine, files, tmp_path / "out") == 1
    parity = json.loads((tmp_path / "out" / "gpu.json").read_text())["phases"]["parity small.fp16"]
    assert not parity["passed"] and parity["agreement"] < 0.9 and parity["limit"] == 0.995
    manifest = json.loads((files / "manifest.json").read_text())
    (files / "manifest.json").write_text(json.dumps({**manifest, "trained": False}))
    assert _run(gpu_check, machine, files, tmp_path / "random") == 0
    parity = json.loads((tmp_path / "random" / "gpu.json").read_text())["phases"]["parity small.fp16"]
    assert parity["passed"] and parity["note"] == "random weights: no limit"


def test_the_limits_are_those_of_the_export(gpu_check: Any) -> None:
    from rtda_export.parity import LIMITS

    assert {name: LIMITS[name].agreement for name in gpu_check.LIMITS} == gpu_check.LIMITS


def test_memory_that_grows_fails_the_soak(gpu_check: Any, machine: Machine, files: Path, tmp_path: Path) -> None:
    def leaking(path: Path) -> Any:
        engine = machine.open(path)
        used = engine.device_memory_used
        engine.calls = 0

        def device_memory_used() -> int:
            engine.calls += 1
            return int(used() + (engine.calls << 24))

        engine.device_memory_used = device_memory_used
        return engine

    machine.backend = machine.backend._replace(open=leaking)
    assert _run(gpu_check, machine, files, tmp_path / "out") == 1
    soak = json.loads((tmp_path / "out" / "gpu.json").read_text())["phases"]["soak-20 small.fp16"]
    assert not soak["passed"] and soak["gpu_growth_mib"] == 16.0


def test_without_a_gpu_nothing_is_written_but_the_reason(
    gpu_check: Any, machine: Machine, files: Path, tmp_path: Path
) -> None:
    def none() -> Dict[str, str]:
        raise DeviceError("no NVIDIA driver was found on this machine")

    machine.backend = machine.backend._replace(machine=none)
    with pytest.raises(DeviceError):
        _run(gpu_check, machine, files, tmp_path / "out")
    assert not (tmp_path / "out" / "state.json").exists()


def test_files_that_were_not_prepared_are_told_how(gpu_check: Any, machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(FileAccessError) as caught:
        _run(gpu_check, machine, tmp_path, tmp_path / "out")
    assert "prepare --out" in caught.value.hint


def test_the_command_here_ends_with_3_and_the_reason(files: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    command = [sys.executable, str(_SCRIPT), "run", "--in", str(files), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error  package tensorrt is not installed")
    assert "fix    pip install" in done.stderr


def test_it_starts_from_a_bare_copy_with_numpy_alone(files: Path, tmp_path: Path) -> None:
    """As on a GPU host: nothing of ours is installed, and neither are typer, onnx, OpenCV and torch."""
    site = Path(np.__file__).parent.parent
    bare = tmp_path / "site"
    bare.mkdir()
    for entry in [*site.glob("numpy"), *site.glob("numpy.libs")]:
        (bare / entry.name).symlink_to(entry)
    program = f"""
import runpy, sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [{str(bare)!r}]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.argv = ["gpu_check.py", "run", "--in", {str(files)!r}, "--out", {str(tmp_path / "out")!r}]
runpy.run_path({str(_SCRIPT)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "package tensorrt is not installed" in done.stderr


@pytest.mark.slow
def test_prepare_writes_what_run_reads(gpu_check: Any, tmp_path: Path) -> None:
    for package in ("torch", "onnx", "onnxruntime", "cv2"):
        pytest.importorskip(package)
    command = ["prepare", "--out", str(tmp_path), "--sizes", "64x64", "--precisions", "fp16,int8", "--pictures", "2"]
    assert gpu_check.main(command) == 0
    manifest = gpu_check.read_manifest(tmp_path)
    (size,) = manifest["sizes"]
    assert not manifest["trained"] and set(size["onnx"]) == {"fp32", "fp16", "int8"}
    assert all((tmp_path / name).stat().st_size > 0 for name in size["onnx"].values())
    with np.load(tmp_path / size["frames"]) as stored:
        assert stored["frames"].shape == (2, 64, 64, 3) and stored["frames"].dtype == np.uint8
        assert stored["logits"].shape == (2, 19, 8, 8) and np.isfinite(stored["logits"]).all()


def test_what_is_no_size_is_said(gpu_check: Any) -> None:
    with pytest.raises(ConfigError, match="is none"):
        gpu_check._size("1024")
