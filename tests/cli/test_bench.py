"""``rtda-deploy bench`` as typed: what it says first, what it prints, what it leaves behind, how it ends."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, Dict

import pytest
from cli.commandline import assert_refused, files_below, invoke, run_command
from runtime.models import tiny_spec, write_model

from rtda_deploy.cli.bench.advice import advice, drift
from rtda_deploy.cli.bench.verb import histogram_line, result_line

SHORT = ("--duration", "0.2", "--warmup", "0", "--frame-size", "96x64", "--threads", "1")
BARS = "test://bars?fps=0&frames=40&size=96x64"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bench") / "tiny.onnx", tiny_spec())


@pytest.fixture(scope="module")
def record(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Any]:
    """A result as saved; a copy is given to be changed."""
    folder = tmp_path_factory.mktemp("record")
    assert invoke("bench", model, *SHORT, "--out", folder).code == 0
    return dict(json.loads((folder / "times.json").read_text()))


def changed(record: Dict[str, Any], **parts: Any) -> Dict[str, Any]:
    """A record that says nothing worth advice, but for ``parts`` (``environment={"governor": ...}``)."""
    copy: Dict[str, Any] = json.loads(json.dumps(record))
    copy["settled"] = True
    copy["variation"]["infer"] = 0.01
    copy["samples"] = {"total": [1.0] * 100}
    assert copy["mask_maker"] in ("numba", "numpy")
    copy["mask_maker"] = "numba"
    copy["model"]["threads"] = None
    copy["environment"].update(governor="performance", cpu_quota=None, cores=4, cores_total=4, cores_usable=4)
    copy["conditions"].update(other_cores=0.1, stolen_cores=0.0, throttled=0)
    for name, values in parts.items():
        if isinstance(values, dict):
            copy[name].update(values)
        else:
            copy[name] = values
    return copy


# what it says and prints


def test_the_first_line_says_what_is_measured(here: Path, model: Path) -> None:
    network = invoke("bench", model, *SHORT)
    assert network.err.splitlines()[0].startswith("bench   the network")
    pipeline = invoke("bench", model, "--source", BARS, "--warmup", "0", "--duration", "9")
    assert pipeline.code == 0, pipeline.err
    assert pipeline.err.splitlines()[0].startswith("bench   the whole pipeline, camera to mask: test://bars")
    assert "capture" in pipeline.out and "capture" not in network.out


def test_the_result_has_the_highest_rate_a_histogram_and_every_percentile(here: Path, model: Path) -> None:
    out = invoke("bench", model, *SHORT).out.splitlines()
    assert out[0].split() == ["ms", "mean", "p50", "p90", "p95", "p99", "max"]
    assert [line.split()[0] for line in out[1:6]] == ["preprocess", "infer", "postprocess", "total", "total"]
    assert re.match(r"total +\d+\.\d [ ▁▂▃▄▅▆▇█]{32} \d+\.\d ms", out[5])
    assert re.match(r"highest rate \d+\.\d frames/s, one frame after the other · total = ", out[6])


def test_a_fixed_rate_tells_what_was_achieved_and_missed(here: Path, model: Path) -> None:
    outcome = invoke("bench", model, *SHORT, "--rate", "50")
    assert "measure frames due at 50 Hz" in outcome.err
    assert re.search(r"at 50 Hz: \d+\.\d frames/s achieved, missed \d+ of \d+ frames", outcome.out)
    assert re.search(r"^wait ", outcome.out, re.MULTILINE)


def test_a_recording_is_offered_at_a_rate_and_a_camera_is_not(here: Path, model: Path) -> None:
    more = ("--warmup", "0", "--duration", "9", "--rate", "200")
    offered = invoke("bench", model, "--source", BARS, *more, "--json")
    assert offered.code == 0 and offered.json["settings"]["rate_hz"] == 200
    camera = invoke("bench", model, "--source", BARS.replace("fps=0", "fps=30"), *more)
    assert camera.code == 2 and "rate of its own" in camera.said["error"] and "fps=30" in camera.said["fix"]
    assert len(list((here / "runs/bench").iterdir())) == 1, "no folder for what was refused"


def test_csv_has_a_row_per_stage(here: Path, model: Path) -> None:
    outcome = invoke("bench", model, *SHORT, "--csv")
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [row["stage_ms"] for row in rows] == ["preprocess", "infer", "postprocess", "total"]
    assert float(rows[3]["p50"]) <= float(rows[3]["p99"]) and int(rows[3]["count"]) > 0


def test_json_and_csv_together_are_refused(model: Path) -> None:
    assert_refused(invoke("bench", model, "--json", "--csv"), 2, "--json and --csv", "take one")


def test_without_a_model_there_is_nothing_to_measure() -> None:
    assert_refused(invoke("bench"), 2, "no model was named", "bench model.onnx")


def test_a_terminal_that_knows_ascii_only_gets_an_ascii_histogram(here: Path, model: Path) -> None:
    outcome = run_command("bench", model, *SHORT, env={"PYTHONIOENCODING": "ascii:replace"}, cwd=here)
    assert outcome.code == 0
    assert re.search(r"^total +\d+\.\d [ .:\-=+*#@]{32} \d+\.\d ms$", outcome.out, re.MULTILINE)


def test_several_frames_in_flight_are_said_with_their_rate(here: Path, model: Path) -> None:
    outcome = invoke("bench", model, *SHORT, "--in-flight", "2", "--provider", "cpu")
    assert outcome.code == 0, outcome.err
    assert re.search(r"^engine  .*, 1 thread, 2 in flight$", outcome.err, re.MULTILINE)
    assert re.search(r"^highest rate \d+\.\d frames/s, 2 frames in flight · total = ", outcome.out, re.MULTILINE)
    recording = invoke(
        "bench", model, "--source", BARS, "--warmup", "0", "--duration", "9", "--in-flight", "2", "--json"
    )
    assert recording.code == 0 and recording.json["settings"]["in_flight"] == 2


def test_several_frames_in_flight_are_refused_where_frames_are_due(here: Path, model: Path) -> None:
    for words, error, fix in (
        (["--rate", "30"], "2 frames in flight would make each mask older, and at 30 Hz", "leave --rate out"),
        (["--source", "test://bars?fps=30"], "2 frames in flight would make each mask of a camera older", "recordings"),
    ):
        outcome = invoke("bench", model, *SHORT, "--in-flight", "2", *words)
        assert_refused(outcome, 2, error, fix)
    assert files_below(here) == []


# what it leaves behind


def test_every_run_gets_a_folder_with_all_times_and_a_page(here: Path, model: Path) -> None:
    outcomes = [invoke("bench", model, *SHORT, "--json") for _ in range(2)]
    folders = [Path(outcome.json["folder"]) for outcome in outcomes]
    assert len(set(folders)) == 2, "a second run never writes over the first"
    for outcome, folder in zip(outcomes, folders):
        assert folder.parent == Path("runs/bench") and files_below(folder) == ["report.html", "times.json"]
        saved = json.loads((folder / "times.json").read_text())
        assert len(saved["samples"]["total"]) == saved["stages"]["total"]["count"]
        assert {key: value for key, value in saved.items() if key != "samples"} == outcome.json
        assert f"saved   {folder}/" in outcome.err


def test_the_page_is_one_file_with_every_part(here: Path, model: Path) -> None:
    assert invoke("bench", model, *SHORT, "--out", "o", "--max-p95-ms", "60000").code == 0
    page = (here / "o/report.html").read_text()
    for heading in ("Latency", "Latency over time", "Where the time goes", "Did it settle?", "Environment"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg role") == 3 and "within the limit of 60000 ms" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "no network"
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert data["model"]["sha256"] in page and len(data["samples"]["total"]) > 0


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(here: Path, model: Path) -> None:
    (here / "o").write_text("a file")
    outcome = invoke("bench", model, "--duration", "3600", "--out", "o")
    assert_refused(outcome, 1, "cannot write to o", "--out")


def test_a_source_that_ends_too_soon_leaves_no_folder(here: Path, model: Path) -> None:
    outcome = invoke("bench", model, "--source", "test://bars?fps=0&frames=2&size=96x64", "--out", "o")
    assert_refused(outcome, 1, "ended before anything was measured", "--warmup")
    assert not (here / "o").exists()


def test_the_page_of_a_missed_limit_says_so(here: Path, model: Path) -> None:
    outcome = invoke("bench", model, *SHORT, "--max-p95-ms", "0.0001", "--out", "o", "--json")
    assert outcome.code == 4 and outcome.json["limit"] == {"max_p95_ms": 0.0001, "met": False}
    assert "above the limit of 0.0001 ms" in (here / "o/report.html").read_text()


# parts


def test_a_histogram_line_shows_where_values_are() -> None:
    line = histogram_line([10.0] * 90 + [20.0] * 10)
    assert (line.startswith("10.0 █") and line.endswith("▁ 20.0 ms")) or line.endswith("▂ 20.0 ms")
    assert histogram_line([5.0, 5.0, 5.0]).startswith("5.0 █")
    assert set(histogram_line([1.0, 2.0, 3.0], plain=True)) <= set("0123456789. ms:-=+*#@")


def test_a_histogram_lines_tail_is_in_its_last_bin() -> None:
    line = histogram_line([float(value) for value in range(1000)] + [10_000.0])
    assert line.endswith(" ms") and float(line.split()[-2]) < 1100


def test_a_rate_that_was_kept_is_said_in_numbers(record: Dict[str, Any]) -> None:
    told = changed(record, settings={"rate_hz": 30.0}, throughput=29.9, offered=300, missed=3, late=5)
    assert result_line(told) == "at 30 Hz: 29.9 frames/s achieved, missed 3 of 300 frames (1 %), 5 late"


# advice


def test_nothing_to_say_about_a_quiet_machine(record: Dict[str, Any]) -> None:
    assert advice(changed(record)) == []


def test_engines_that_share_the_cores_leave_none_idle(record: Dict[str, Any]) -> None:
    assert advice(changed(record, model={"threads": 2}, settings={"in_flight": 2})) == []
    assert advice(changed(record, model={"threads": 1}, settings={"in_flight": 2})) != []


JETSON = {"gpu_clock": {"least_mhz": 114, "now_mhz": 905, "most_mhz": 905}}
HOT = {"name": "T4", "throttled": "heat"}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"settled": False, "settings": {"duration_s": None}}, "p95 did not settle in"),
        ({"environment": {"jetson": JETSON}}, "clocks not locked: run `sudo jetson_clocks`"),
        ({"variation": {"infer": 0.3}}, "coefficient of variation of infer is 30.0 %, more than 10 %"),
        ({"variation": {"infer": 0.03}, "model": {"provider": "tensorrt"}}, "more than 2.5 %: lock the clocks"),
        ({"conditions": {"other_cores": 1.5}}, "other processes kept 1.5 of 4 cores busy"),
        ({"conditions": {"stolen_cores": 0.5}}, "hypervisor took 0.50 cores"),
        ({"conditions": {"throttled": 3, "temperature_start_c": 60.0, "temperature_end_c": 97.0}}, "heat.*60 to 97 °C"),
        ({"conditions": {"gpus": [HOT]}}, "lowered for heat"),
        ({"conditions": {"gpus": [{"name": "T4", "throttled": "power"}]}}, "power limit"),
        ({"samples": {"total": [1.0] * 60 + [1.2] * 40}}, "20 % slower while it ran"),
        ({"model": {"threads": 2}}, "2 of 4 cores work on the network"),
        ({"model": {"threads": 6}}, "6 threads share 4 cores: leave --threads out"),
        (
            {"environment": {"cpu_quota": 1.5, "cores_usable": 2}, "model": {"threads": 4}},
            "4 threads share 2 cores, all that the quota pays for: leave --threads out",
        ),
        ({"environment": {"cores_usable": 2}, "model": {"threads": 1}}, "1 of 2 cores work on the network"),
        ({"environment": {"governor": "powersave"}}, "governor is powersave"),
        (
            {
                "mask_maker": "numpy",
                "stages": {"preprocess": {"p50": 7.0}, "infer": {"p50": 7.0}, "postprocess": {"p50": 64.0}},
            },
            "postprocess takes 64.0 of 78.0 ms: without numba .*: pip install numba",
        ),
        (
            {"settings": {"rate_hz": 30.0}, "throughput": 20.0, "missed": 10, "offered": 30, "late": 10},
            "30 Hz cannot be kept here: 20.0 Hz were",
        ),
    ],
)
def test_each_cause_has_its_sentence(record: Dict[str, Any], parts: Dict[str, Any], said: str) -> None:
    (sentence,) = advice(changed(record, **parts))
    assert re.search(said, sentence), sentence


def test_frames_that_wait_longer_than_they_are_worked_on_are_told(record: Dict[str, Any]) -> None:
    waiting = changed(record, settings={"measures": "pipeline"})
    waiting["stages"]["wait"] = {"p50": 15.0}
    waiting["stages"]["total"]["p50"] = 24.0
    (sentence,) = advice(waiting)
    assert "the work is 9.0 ms but a frame is 24.0 ms old" in sentence


def test_a_latency_that_goes_up_and_down_is_no_drift(record: Dict[str, Any]) -> None:
    assert drift(changed(record, samples={"total": [1.0, 3.0, 1.0, 1.0, 1.3] * 20})) is None
    assert drift(changed(record, samples={"total": [1.0] * 20 + [3.0] * 20 + [1.0] * 40 + [1.3] * 20})) is None
    assert drift(changed(record, samples={"total": [1.0] * 49})) is None, "too few"
