"""benchmarks/jetson on a Jetson made of recorded lines, with a tiny network on the CPU in the GPU's place."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Sequence

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.boards import FakeJetson
from runtime.models import tiny_spec, write_model
from system.conftest import python38

from rtda_deploy.errors import ConfigError, FileAccessError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
cases = importlib.import_module("jetson.cases")
command = importlib.import_module("jetson.command")
measure = importlib.import_module("jetson.measure")

QUICK = ["--provider", "cpu", "--networks", "r18", "--precisions", "fp32", "--frame-size", "96x64"]
QUICK += ["--threads", "1", "--idle", "0.2", "--warmup", "0"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="power modes are set by root only")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny networks under the names that ``prepare`` gives."""
    pytest.importorskip("onnx", reason="the tiny networks are written with onnx")
    folder = tmp_path_factory.mktemp("models")
    for width, height in ((64, 32), (96, 64)):
        write_model(folder / f"bisenet-r18-{width}x{height}.onnx", tiny_spec(size_hw=(height, width)))
    return folder


@pytest.fixture()
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    made = FakeJetson(tmp_path / "jetson")
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    return made


def words(models: Path, out: Path, *more: str, sizes: str = "64x32,96x64", seconds: str = "0.2") -> List[str]:
    return [*QUICK, "--onnx-dir", str(models), "--out", str(out), "--sizes", sizes, "--seconds", seconds, *more]


def report(out: Path) -> Any:
    return json.loads((out / "jetson.json").read_text())


def test_the_whole_grid_is_eighteen_rows_with_fp16_first() -> None:
    grid = cases.cases("r18,r101", "512x256,1024x512,2048x1024", "fp32,fp16,int8")
    assert len(grid) == 18
    assert [case.name for case in grid[:3]] == ["r18 512x256 fp16", "r18 512x256 int8", "r18 512x256 fp32"]
    assert grid[-1].name == "r101 2048x1024 fp32"


@pytest.mark.parametrize("choice", ["r50 64x32 fp16", "r18 64 fp16", "r18 64x32 bf16,", ", 64x32 fp16", "r18 , fp16"])
def test_unknown_cases_are_refused(choice: str) -> None:
    with pytest.raises(ConfigError):
        cases.cases(*choice.split())


def test_each_precision_is_made_from_its_own_file(tmp_path: Path) -> None:
    for name in ("bisenet-r18-64x32.onnx", "bisenet-r18-64x32.int8.onnx"):
        (tmp_path / name).touch()
    fp16, int8, fp32 = cases.cases("r18", "64x32", "fp16,int8,fp32")
    assert fp32.source(tmp_path, "tensorrt").name == fp16.source(tmp_path, "tensorrt").name == "bisenet-r18-64x32.onnx"
    assert int8.source(tmp_path, "tensorrt").name == "bisenet-r18-64x32.int8.onnx"
    with pytest.raises(FileAccessError, match=r"fp16\.onnx is not there") as caught:
        fp16.source(tmp_path, "cpu")
    assert "prepare" in caught.value.hint


def test_a_xavier_gets_latency_power_energy_and_heat(jetson: FakeJetson, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command.main(words(models, out, seconds="1"), root=jetson.root) == 0
    found = report(out)
    assert found["format"] == "rtda.jetson/1"
    assert found["board"]["power_mode"] == {"name": "MODE_30W_ALL", "number": 3}
    assert [row["size_wh"] for row in found["rows"]] == [[64, 32], [96, 64]]
    for row in found["rows"]:
        seen = row["telemetry"]
        assert row["mode"] == "MODE_30W_ALL" and row["precision"] == "fp32"
        assert 0 < row["engine_ms"]["p50"] <= row["engine_ms"]["p95"] <= row["engine_ms"]["p99"]
        assert row["end_to_end_ms"]["p50"] > row["engine_ms"]["p50"]
        assert seen["readings"] > 2 and 5.258 < seen["power_w"] < 19.157, "between the recorded lines"
        assert seen["power_rails"] == ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]
        assert seen["temperature_max_c"] == 41.5
        assert row["energy_j"] == pytest.approx(seen["power_w"] / row["fps"])
        assert row["energy_above_idle_j"] == pytest.approx((seen["power_w"] - row["idle_w"]) / row["fps"])
        assert row["device_ms"] is None, "ONNX Runtime has no times of the GPU"
    (idle,) = found["idle"]
    assert idle["gpu_clock"] == {"least_mhz": 115, "now_mhz": 905, "most_mhz": 905} and idle["cpus"] == "0-7"
    page = (out / "jetson.md").read_text()
    assert page.startswith("# Jetson-AGX, Jetson Linux 35.4.1\n")
    assert "| MODE_30W_ALL | r18 | 96x64 | fp32 |" in page and "idle in MODE_30W_ALL" in page
    assert jetson.log[-1] == "stopped" and "started --interval 200" in jetson.log
    assert not [line for line in jetson.log if line.startswith(("-m", "jetson_clocks"))], "nothing was set"


def test_a_finished_row_is_not_measured_again(
    jetson: FakeJetson, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command.main(words(models, out, sizes="64x32"), root=jetson.root) == 0
    first = report(out)["rows"]
    capfd.readouterr()
    assert command.main(words(models, out), root=jetson.root) == 0
    said = capfd.readouterr()
    assert "r18 64x32 fp32  measured before" in said.err and "[2/2] MODE_30W_ALL r18 96x64 fp32" in said.err
    assert report(out)["rows"][0] == first[0] and len(report(out)["rows"]) == 2
    asked = len(jetson.log)
    assert command.main(words(models, out), root=jetson.root) == 0
    assert report(out)["idle"][0]["telemetry"]["readings"] > 0, "the idle board is remembered too"
    assert not [line for line in jetson.log[asked:] if line.startswith("-m")]
    assert command.main(words(models, out, seconds="0.3"), root=jetson.root) == 0
    assert report(out)["rows"][0]["measured_s"] > first[0]["measured_s"], "other settings: another row"


@as_root
def test_power_modes_are_set_in_turn_and_the_one_found_is_restored(
    jetson: FakeJetson, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command.main(words(models, out, "--power-modes", "0,2", sizes="64x32"), root=jetson.root) == 0
    assert [row["mode"] for row in report(out)["rows"]] == ["MAXN", "MODE_15W"]
    assert [line for line in jetson.log if line.startswith("-m")] == ["-m 0", "-m 2", "-m 3"]
    assert jetson.mode == "NV Power Mode: MODE_30W_ALL\n3\n"
    assert "MODE_30W_ALL (3) restored" in capfd.readouterr().err


@as_root
def test_a_mode_that_wants_a_restart_is_left_out_and_said(jetson: FakeJetson, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command.main(words(models, out, "--power-modes", "all", sizes="64x32"), root=jetson.root) == 0
    modes = [row["mode"] for row in report(out)["rows"]]
    assert "MAXN" in modes and "MODE_10W" not in modes
    assert any("power mode 1 needs a restart" in note for note in report(out)["notes"])
    assert command.main(words(models, out, "--power-modes", "1", sizes="64x32"), root=jetson.root) == 1, "asked for it"
    assert jetson.mode == "NV Power Mode: MODE_30W_ALL\n3\n"


@as_root
def test_clocks_are_locked_and_put_back_as_they_were(jetson: FakeJetson, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command.main(words(models, out, "--lock-clocks", sizes="64x32"), root=jetson.root) == 0
    store = out / "clocks-found.conf"
    clocks = [line for line in jetson.log if line.startswith("jetson_clocks")]
    assert clocks == [f"jetson_clocks --store {store}", "jetson_clocks ", f"jetson_clocks --restore {store}"]


def test_power_modes_need_root_and_a_jetson(
    jetson: FakeJetson, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for option in (["--power-modes", "all"], ["--lock-clocks"]):
        assert command.main(words(models, tmp_path / "out", *option), root=jetson.root) == 2
        assert "sudo" in capfd.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert command.main(words(models, tmp_path / "out", "--power-modes", "9"), root=jetson.root) == 2
    assert "3 MODE_30W_ALL" in capfd.readouterr().err, "the known ones are listed"
    assert command.main(words(models, tmp_path / "out", "--power-modes", "all"), root=tmp_path) == 2


def test_a_long_run_shows_how_speed_and_heat_went(jetson: FakeJetson, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = words(models, out, "--sustained", "0.02", sizes="64x32")
    assert command.main(arguments, root=jetson.root) == 0
    (run,) = report(out)["sustained"]
    assert run["key"] == "sustained MODE_30W_ALL r18 64x32 fp32"
    assert len(run["buckets"]) >= 5
    assert all(bucket["fps"] > 0 for bucket in run["buckets"])
    powers = [bucket["power_w"] for bucket in run["buckets"] if bucket["power_w"] is not None]  # others: none fell in
    assert powers and min(powers) > 5
    assert run["change"] == pytest.approx(run["fps_last"] / run["fps_first"] - 1)
    assert "0.02 minutes" in (out / "jetson.md").read_text()
    assert command.main(arguments, root=jetson.root) == 0
    assert report(out)["sustained"] == [run], "not run again"


def test_elsewhere_there_are_no_power_figures(models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command.main(words(models, out, sizes="64x32"), root=tmp_path / "nothing") == 0
    (row,) = report(out)["rows"]
    assert row["telemetry"] is None and row["energy_j"] is None and row["fps"] > 0
    assert "Not a Jetson: no power figures" in capfd.readouterr().err
    assert (out / "jetson.md").read_text().startswith("# Not a Jetson: no power figures\n")


def test_rails_hidden_from_a_plain_user_are_said(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jetson = FakeJetson(tmp_path / "jetson", lines="tegrastats-without-root.txt")
    monkeypatch.setenv("PATH", f"{jetson.bin}{os.pathsep}{os.environ['PATH']}")
    out = tmp_path / "out"
    assert command.main(words(models, out, sizes="64x32"), root=jetson.root) == 0
    assert any("no power rails" in note and "sudo" in note for note in report(out)["notes"])
    assert report(out)["rows"][0]["telemetry"]["power_w"] is None
    assert report(out)["rows"][0]["telemetry"]["temperature_max_c"] == 37.5


def test_a_row_that_fails_does_not_stop_the_others(jetson: FakeJetson, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "bisenet-r18-64x32.onnx").write_bytes(b"no model")
    (folder / "bisenet-r18-96x64.onnx").write_bytes((models / "bisenet-r18-96x64.onnx").read_bytes())
    out = tmp_path / "out"
    assert command.main(words(folder, out), root=jetson.root) == 1
    assert [row["size_wh"] for row in report(out)["rows"]] == [[96, 64]]
    assert any("r18 64x32 fp32 failed" in note for note in report(out)["notes"])


def test_wrong_usage_and_missing_things_have_their_codes(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words(models, tmp_path / "out", "--networks", "r19")) == 2
    assert "known: r18, r101" in capfd.readouterr().err
    assert command.main(words(models, tmp_path / "out", sizes="128x64")) == 1
    assert "prepare" in capfd.readouterr().err
    with pytest.raises(SystemExit) as caught:
        command.main(["--onnx-dir", str(models), "--seconds", "0"])
    assert caught.value.code == 2


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_the_other_way_is_named(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--onnx-dir", str(models), "--out", str(tmp_path)]) == 3
    assert "--provider cpu" in capfd.readouterr().err


def test_engines_are_built_by_the_projects_own_builder() -> None:
    tensorrt = pytest.importorskip("rtda_export.tensorrt", reason="the builder is not there yet")
    inspect.signature(tensorrt.engine_from_onnx).bind(Path("a.onnx"), Path("a.engine"), precision="fp16")


def test_borders_are_counted() -> None:
    mask = np.zeros((4, 5), np.uint8)
    assert measure.border_share(mask) == 0.0
    mask[:, 2:] = 1
    assert measure.border_share(mask) == pytest.approx(3 / 12), "one column of the 3x4 pixels with two neighbours"


def test_the_pictures_are_smooth_and_differ() -> None:
    first, second = measure.frames((96, 64), 2)
    assert first.shape == (64, 96, 3) and first.dtype == np.uint8
    assert not np.array_equal(first, second)
    assert np.abs(np.diff(first.astype(int), axis=1)).mean() < 20


def test_prepare_writes_the_files_that_a_board_needs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for package in ("torch", "onnx"):
        pytest.importorskip(package, reason="prepare needs torch and onnx")
    choice = ["--networks", "r18", "--sizes", "64x32", "--precisions", "fp32,int8"]
    assert command.main(["prepare", "--out", str(tmp_path / "models"), *choice]) == 0
    int8, path = sorted((tmp_path / "models").iterdir())
    assert (int8.name, path.name) == ("bisenet-r18-64x32.int8.onnx", "bisenet-r18-64x32.onnx")
    assert int8.read_bytes().count(b"QuantizeLinear") > 50
    before = path.read_bytes()
    assert command.main(["prepare", "--out", str(tmp_path / "models"), *choice]) == 0
    assert path.read_bytes() == before and "0 files written" in capfd.readouterr().err
    out = tmp_path / "out"
    again = words(tmp_path / "models", out, "--precisions", "fp32,int8", sizes="64x32")
    assert command.main(again, root=tmp_path / "nothing") == 0
    assert [row["precision"] for row in report(out)["rows"]] == ["int8", "fp32"]


class Benchmark:
    """The command in a process of its own, on a fake Jetson."""

    def __init__(self, python: Path, jetson: FakeJetson, arguments: Sequence[str], environment: Any, out: Path) -> None:
        program = "import sys; from pathlib import Path; from jetson.command import main;"
        program += "sys.exit(main(sys.argv[2:], root=Path(sys.argv[1])))"
        self._err = out.parent / "stderr.txt"
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [str(python), "-W", "error", "-c", program, str(jetson.root), *arguments],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=err,
                start_new_session=True,
            )

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert self.process.poll() is None, f"ended before {what}: {self.err}"
            assert time.monotonic() < deadline, f"no {what}: {self.err}"
            time.sleep(0.01)


def own_environment(jetson: FakeJetson, **more: str) -> Any:
    sources = [ROOT, ROOT / "benchmarks", *(ROOT / name for name in ("training", "export", "runtime"))]
    return {
        "PATH": f"{jetson.bin}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, sources)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


@pytest.fixture()
def start(jetson: FakeJetson, tmp_path: Path) -> Iterator[Callable[..., Benchmark]]:
    started: List[Benchmark] = []

    def start_one(arguments: Sequence[str], python: Path = Path(sys.executable)) -> Benchmark:
        started.append(Benchmark(python, jetson, arguments, own_environment(jetson), tmp_path / "out"))
        return started[-1]

    yield start_one
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


@as_root
@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_restores_the_mode_keeps_its_rows_and_goes_on(
    number: int, start: Callable[..., Benchmark], jetson: FakeJetson, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    more = ("--power-modes", "0", "--sustained", "5")
    run = start(words(models, out, *more, seconds="0.5"))
    run.wait_until(lambda: "/300 s" in run.err, "the long run")
    assert jetson.mode == "NV Power Mode: MAXN\n0\n"
    run.process.send_signal(number)
    assert run.process.wait() == 130, run.err
    assert "2 of 2 rows are kept" in run.err and "Traceback" not in run.err
    assert jetson.mode == "NV Power Mode: MODE_30W_ALL\n3\n"
    assert jetson.log[-1] == "-q" and "stopped" in jetson.log, "tegrastats was ended, the mode restored and checked"
    found = report(out)
    assert len(found["rows"]) == 2 and found["sustained"] == []
    again = start(words(models, out, "--power-modes", "0", seconds="0.5"))
    assert again.process.wait() == 0
    assert again.err.count("measured before") == 2


@pytest.mark.system
def test_everything_runs_under_a_real_python_3_8(jetson: FakeJetson, models: Path, tmp_path: Path) -> None:
    python = python38()
    if python is None:
        pytest.skip("no Python 3.8 that runs: ~/.pyenv/versions/3.8*/bin/python or python3.8")
    folder = tmp_path / "venv"
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True, capture_output=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    packages = ["numpy==1.24.4", "onnxruntime", "opencv-python-headless"]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the packages for Python 3.8 are not to be had here: {done.stderr.strip().splitlines()[-1]}")
    out = tmp_path / "out"
    run = Benchmark(folder / "bin/python", jetson, words(models, out), own_environment(jetson), out)
    assert run.process.wait() == 0, run.err
    found = report(out)
    assert [row["environment"]["python"].startswith("3.8.") for row in found["rows"]] == [True, True]
    assert all(row["telemetry"]["power_w"] > 5 for row in found["rows"])
    folder_run = [str(folder / "bin/python"), str(ROOT / "benchmarks/jetson"), *words(models, tmp_path / "elsewhere")]
    environment = {**own_environment(jetson), "PYTHONPATH": own_environment(jetson)["PYTHONPATH"]}
    done = subprocess.run(folder_run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "| r18 | 64x32 | fp32 |" in done.stdout, done.stderr
