"""benchmarks/jetson on a Jetson made of recorded lines, with a tiny network on the CPU in the GPU's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from patience import PATIENCE_S
from runtime.boards import FakeJetson
from runtime.models import tiny_spec, write_model
from system.conftest import python38

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="power modes are set by root only")


@pytest.fixture(scope="module")
def script(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("jetson")


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


def words(models: Path, out: Path, *more: str, sizes: str = "64x32") -> List[str]:
    quick = ["--provider", "cpu", "--networks", "r18", "--precisions", "fp32", "--frame-size", "96x64"]
    return [
        *quick,
        "--seconds",
        "0.5",
        "--warmup",
        "0",
        "--onnx-dir",
        str(models),
        "--out",
        str(out),
        "--sizes",
        sizes,
        *more,
    ]


def report(out: Path) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads((out / "jetson.json").read_text())
    return found


def test_a_xavier_gets_speed_power_and_heat_and_no_row_twice(
    script: Any, jetson: FakeJetson, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert script.main(words(models, tmp_path), root=jetson.root) == 0
    first = report(tmp_path)["rows"]
    capfd.readouterr()
    assert script.main(words(models, tmp_path, "--sustained", "0.01", sizes="64x32,96x64"), root=jetson.root) == 0
    assert capfd.readouterr().err.count("measured before") == 1
    found = report(tmp_path)
    small, large, long_row = found["rows"]
    assert found["rows"][small] == first[small] and "96x64" in large and long_row.endswith("fp32-0.6s")
    for bench in found["rows"].values():
        assert 5.258 < bench["conditions"]["jetson"]["power_w"] < 19.157, "between the recorded lines"
    page = (tmp_path / "jetson.md").read_text()
    assert page.startswith("# Jetson-AGX, Jetson Linux 35.4.1\n")
    assert f"{long_row}: 0.01 minutes: " in page and "| MODE_30W_ALL | bisenet-r18-96x64 | fp32 |" in page
    assert (tmp_path / "bench" / large / "report.html").exists()
    assert not [line for line in jetson.log if line.startswith(("-m", "jetson_clocks"))], "nothing was set"


def test_the_page_has_energy_and_the_loss_of_a_long_run(script: Any, tmp_path: Path) -> None:
    figures = {"p50": 10.0, "p95": 12.0, "p99": 13.0}
    windows = [{"frames": frames, "seconds": 5.0} for frames in (500, 450, 400, 350, 300)]
    seen = {"gpu_mhz": 905, "temperature_max_c": 41.5, "power_w": 15.0}
    bench = {"stages": {"infer": figures, "total": figures}, "throughput": 50.0, "windows": windows}
    rows = [script.Row(None, Path("bisenet-r18-64x32.onnx"), "fp16", seconds) for seconds in (10.0, 1200.0)]
    found = {"board": {"is_jetson": False}, "notes": ["a note"], "rows": {}}
    found["rows"] = {row.key: {**bench, "conditions": {"jetson": seen}} for row in rows}
    page = script.page(found, rows)
    shares = "10.0 / 12.0 / 13.0"
    line = f"| as found | bisenet-r18-64x32 | fp16 | {shares} | {shares} | 50.0 | 905 | 42 | 15.0 | 300 |"
    assert page.count(line) == 2 and page.endswith("- a note\n")
    assert "20 minutes: 100.0 frames/s at first, 60.0 at last (-40.0 %)" in page


def test_elsewhere_there_are_no_power_figures_and_a_failed_row_does_not_stop_the_others(
    script: Any, models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "bisenet-r18-64x32.onnx").write_bytes(b"no model")
    (folder / "bisenet-r18-96x64.onnx").write_bytes((models / "bisenet-r18-96x64.onnx").read_bytes())
    assert script.main(words(folder, tmp_path, sizes="64x32,96x64"), root=tmp_path / "nothing") == 1
    found = report(tmp_path)
    assert ["96x64" in key for key in found["rows"]] == [True]
    assert any("64x32-fp32-0.5s failed: bench failed" in note for note in found["notes"])
    page = (tmp_path / "jetson.md").read_text()
    assert page.startswith("# Not a Jetson: no power figures\n") and "| – | – | – | – |" in page


@as_root
def test_power_modes_are_set_in_turn_but_those_that_want_a_restart_and_the_one_found_is_put_back(
    script: Any, jetson: FakeJetson, models: Path, tmp_path: Path
) -> None:
    assert script.main(words(models, tmp_path, "--power-modes", "0,2"), root=jetson.root) == 0
    assert [key.split("-")[0] for key in report(tmp_path)["rows"]] == ["MAXN", "MODE_15W"]
    assert [line for line in jetson.log if line.startswith("-m")] == ["-m 0", "-m 2", "-m 3"]
    assert script.main(words(models, tmp_path, "--power-modes", "all"), root=jetson.root) == 0
    assert any("power mode 1 needs a restart" in note for note in report(tmp_path)["notes"])
    assert not any("MODE_10W" in key for key in report(tmp_path)["rows"])
    assert script.main(words(models, tmp_path, "--power-modes", "1"), root=jetson.root) == 1, "it was asked for"
    assert jetson.mode == "NV Power Mode: MODE_30W_ALL\n3\n"


@as_root
def test_clocks_are_locked_and_put_back_as_they_were_after_a_failure_too(
    script: Any, jetson: FakeJetson, tmp_path: Path
) -> None:
    (tmp_path / "bisenet-r18-64x32.onnx").write_bytes(b"no model")
    assert script.main(words(tmp_path, tmp_path / "out", "--lock-clocks"), root=jetson.root) == 1
    store = tmp_path / "out" / "clocks-found.conf"
    clocks = [line for line in jetson.log if line.startswith("jetson_clocks")]
    assert clocks == [f"jetson_clocks --store {store}", "jetson_clocks ", f"jetson_clocks --restore {store}"]


def test_wrong_usage_and_missing_things_have_their_codes(
    script: Any, jetson: FakeJetson, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def said(*more: str, root: Path = jetson.root, sizes: str = "64x32") -> str:
        code = script.main(words(models, tmp_path / "out", *more, sizes=sizes), root=root)
        return f"{code} {capfd.readouterr().err}"

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for option in (["--power-modes", "all"], ["--lock-clocks"]):
        assert said(*option).startswith("2 ") and "sudo" in said(*option)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "3 MODE_30W_ALL" in said("--power-modes", "9"), "the known ones are listed"
    assert said("--power-modes", "all", root=tmp_path).startswith("2 ")
    assert said(sizes="128x64").startswith("1 ") and "prepare" in said(sizes="128x64")
    with pytest.raises(SystemExit) as caught:
        said("--networks", "r19")
    assert caught.value.code == 2 and "known: r18, r101" in capfd.readouterr().err


@pytest.mark.slow
def test_prepare_writes_the_files_that_a_board_needs(script: Any, tmp_path: Path) -> None:
    for package in ("torch", "onnx"):
        pytest.importorskip(package, reason="prepare needs torch and onnx")
    choice = ["--networks", "r18", "--sizes", "64x32", "--precisions", "fp32,int8"]
    for _ in range(2):  # what is there is left as it is
        assert script.main(["prepare", "--out", str(tmp_path / "models"), *choice]) == 0
    int8, path = sorted((tmp_path / "models").iterdir())
    assert (int8.name, path.name) == ("bisenet-r18-64x32.int8.onnx", "bisenet-r18-64x32.onnx")
    assert int8.read_bytes().count(b"QuantizeLinear") > 50
    again = words(tmp_path / "models", tmp_path / "out", "--precisions", "fp32,int8")
    assert script.main(again, root=tmp_path / "nothing") == 0
    assert ["int8" in key for key in report(tmp_path / "out")["rows"]] == [True, False]


def started(python: Path, jetson: FakeJetson, arguments: List[str], err: Path) -> subprocess.Popen[bytes]:
    """The command in a process of its own, on a fake Jetson."""
    program = "import sys; from pathlib import Path; from jetson import main;"
    program += "sys.exit(main(sys.argv[2:], root=Path(sys.argv[1])))"
    sources = [ROOT, ROOT / "benchmarks", *(ROOT / name for name in ("training", "export", "runtime"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), "-W", "error", "-c", program, str(jetson.root), *arguments]
    with err.open("wb") as stream:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stream)


@as_root
@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_puts_mode_and_clocks_back_keeps_its_rows_and_goes_on(
    number: int, jetson: FakeJetson, models: Path, tmp_path: Path
) -> None:
    arguments = words(models, tmp_path / "out", "--power-modes", "0", "--lock-clocks", "--sustained", "60")
    process = started(Path(sys.executable), jetson, arguments, tmp_path / "err")
    deadline = time.monotonic() + PATIENCE_S
    while sum(line.startswith("started") for line in jetson.log) < 2:  # tegrastats of the second row, the long one
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "err").read_text()
        time.sleep(0.02)
    assert jetson.mode == "NV Power Mode: MAXN\n0\n"
    process.send_signal(number)
    assert process.wait() == 130
    assert "stopped" in (tmp_path / "err").read_text() and "Traceback" not in (tmp_path / "err").read_text()
    assert jetson.mode == "NV Power Mode: MODE_30W_ALL\n3\n"
    assert jetson.log[-1].startswith("jetson_clocks --restore") and jetson.log.count("stopped") == 2, "tegrastats too"
    assert len(report(tmp_path / "out")["rows"]) == 1
    again = started(Path(sys.executable), jetson, arguments[:-2], tmp_path / "err")
    assert again.wait() == 0 and "measured before" in (tmp_path / "err").read_text()


@pytest.mark.system
def test_it_runs_under_a_real_python_3_8(jetson: FakeJetson, models: Path, tmp_path: Path) -> None:
    python = python38()
    if python is None:
        pytest.skip("no Python 3.8 that runs: ~/.pyenv/versions/3.8*/bin/python or python3.8")
    folder = tmp_path / "venv"
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True, capture_output=True)
    packages = ["numpy==1.24.4", "onnxruntime", "opencv-python-headless", "typer", "rich", "tomli"]
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the packages for Python 3.8 are not to be had here: {done.stderr.strip().splitlines()[-1]}")
    process = started(folder / "bin/python", jetson, words(models, tmp_path / "out"), tmp_path / "err")
    assert process.wait() == 0, (tmp_path / "err").read_text()
    (bench,) = report(tmp_path / "out")["rows"].values()
    assert bench["environment"]["python"].startswith("3.8.") and bench["conditions"]["jetson"]["power_w"] > 5
