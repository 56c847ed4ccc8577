"""``rtda-deploy bench`` as typed: what it says first, what it prints, what it leaves behind, how it ends;
and what ``--compare`` prints and refuses.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, Dict

import pytest
from cli.commandline import Outcome, assert_refused, files_below, invoke, run_command
from runtime.bench.records import timed_values
from runtime.models import tiny_spec, write_model

from rtda_deploy.cli.bench.show import histogram_line

SHORT = ("--duration", "0.2", "--warmup", "0", "--frame-size", "96x64", "--threads", "1")
BARS = "test://bars?fps=0&frames=40&size=96x64"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bench") / "tiny.onnx", tiny_spec())


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


def test_a_camera_is_given_no_rate(here: Path, model: Path) -> None:
    camera = invoke("bench", model, "--source", "test://bars?fps=30&size=96x64", "--warmup", "0", "--rate", "200")
    assert camera.code == 2 and "rate of its own" in camera.said["error"] and "fps=30" in camera.said["fix"]
    assert not list(here.glob("runs/*/*")), "no folder for what was refused"


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


def compared(tmp_path: Path, a: Dict[str, Any], b: Dict[str, Any], *words: str) -> Outcome:
    for name, record in (("a.json", a), ("b.json", b)):
        (tmp_path / name).write_text(json.dumps(record))
    return invoke("bench", "--compare", tmp_path / "a.json", tmp_path / "b.json", *words)


def test_a_result_without_its_samples_is_compared_without_intervals(tmp_path: Path) -> None:
    """What ``--json`` and ``--save`` give has none."""
    bare = {key: value for key, value in timed_values().items() if key != "samples"}
    outcome = compared(tmp_path, bare, bare)
    assert outcome.code == 0 and "too few frames" in outcome.out


def test_two_results_are_printed_as_a_table_with_what_else_changed(tmp_path: Path) -> None:
    newer = timed_values(12.0, seed=1, environment={"onnxruntime": "9.9.9"}, model={"sha256": "f" * 64})
    outcome = compared(tmp_path, timed_values(), newer)
    assert outcome.code == 0, outcome.err
    head, first = outcome.out.splitlines()[:2]
    assert head.split()[:3] == ["ms", "A", "B"] and "95 % interval" in head
    assert first.split()[:2] == ["total", "p50"] and first.split()[-1] == "slower"
    assert "onnxruntime: " in outcome.out and "-> 9.9.9" in outcome.out
    assert f"-> {'f' * 12}\n" in outcome.out
    assert "a.json" in outcome.err and "b.json" in outcome.err


def test_the_same_as_json_and_csv(tmp_path: Path) -> None:
    a, b = timed_values(), timed_values(12.0, seed=1)
    found = compared(tmp_path, a, b, "--json").json
    assert found["rows"][0]["verdict"] == "slower" and found["different_setup"] == []
    rows = list(csv.DictReader(io.StringIO(compared(tmp_path, a, b, "--csv").out)))
    assert rows[0]["stage"] == "total" and rows[0]["verdict"] == "slower" and float(rows[0]["low"]) > 0


def test_results_of_two_settings_are_refused_unless_told(tmp_path: Path) -> None:
    a, b = timed_values(), timed_values(12.0, settings={"rate_hz": 30.0})
    assert_refused(compared(tmp_path, a, b), 2, "cannot be compared.*rate: the highest and 30 Hz", "--force")
    forced = compared(tmp_path, a, b, "--force")
    assert forced.code == 0 and "different: rate" in forced.err and "slower" in forced.out


def test_a_result_that_did_not_settle_is_pointed_out(tmp_path: Path) -> None:
    outcome = compared(tmp_path, timed_values(), timed_values(settled=False))
    assert "b.json: p95 did not settle" in outcome.err and "a.json: p95" not in outcome.err
