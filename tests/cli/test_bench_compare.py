"""``rtda-deploy bench --compare``: what differs, whether that is more than noise, and what cannot be compared."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import pytest
from cli.commandline import Outcome, assert_refused, invoke
from runtime.models import tiny_spec, write_model

from rtda_deploy.cli.bench.compare import compare_records, differences_of_setup
from rtda_runtime.timing import summarize_ms

FRAMES = 400


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    model = write_model(folder / "tiny.onnx", tiny_spec())
    words = ["--duration", "0.3", "--warmup", "0", "--frame-size", "96x64", "--out", folder / "a"]
    assert invoke("bench", model, *words).code == 0
    return folder / "a/times.json"


def result(saved: Path, total_ms: float = 10.0, *, seed: int = 0, noise: float = 0.05, **parts: Any) -> Dict[str, Any]:
    """A whole record whose frames took about ``total_ms``; slow waves in it, as neighbouring frames have them."""
    record: Dict[str, Any] = json.loads(saved.read_text())
    rng = np.random.default_rng(seed)
    waves = np.repeat(rng.normal(0.0, noise, FRAMES // 10), 10)
    total = total_ms * (1.0 + waves + rng.normal(0.0, noise, FRAMES))
    record["samples"] = {"at_s": list(np.cumsum(total) / 1e3), "total": list(total)}
    record["stages"] = {"total": summarize_ms(total)}
    record["throughput"] = FRAMES / (float(np.sum(total)) / 1e3)
    record["settled"] = True
    for name, values in parts.items():
        record[name].update(values) if isinstance(values, dict) else record.__setitem__(name, values)
    return record


def compared(tmp_path: Path, a: Dict[str, Any], b: Dict[str, Any], *words: str) -> Outcome:
    for name, record in (("a.json", a), ("b.json", b)):
        (tmp_path / name).write_text(json.dumps(record))
    return invoke("bench", "--compare", tmp_path / "a.json", tmp_path / "b.json", *words)


def row(found: Dict[str, Any], stage: str, figure: str) -> Dict[str, Any]:
    return next(dict(r) for r in found["rows"] if (r["stage"], r["figure"]) == (stage, figure))


def test_a_slower_result_is_called_slower_with_its_interval(saved: Path) -> None:
    found = compare_records(result(saved, 10.0), result(saved, 12.0, seed=1))
    slower = row(found, "total", "p50")
    assert slower["verdict"] == "slower"
    assert slower["change"] == pytest.approx(0.2, abs=0.05)
    assert slower["low"] < slower["change"] < slower["high"] and slower["low"] > 0.1
    rate = row(found, "frames/s", "mean")
    assert rate["verdict"] == "slower" and rate["change"] == pytest.approx(-1 / 6, abs=0.05)


def test_a_faster_result_is_called_faster(saved: Path) -> None:
    found = compare_records(result(saved, 10.0), result(saved, 8.0, seed=1))
    assert row(found, "total", "p95")["verdict"] == "faster"
    assert row(found, "frames/s", "mean")["verdict"] == "faster"


def test_noise_is_no_difference(saved: Path) -> None:
    """Slow waves make medians of single draws differ by a percent or two; blocks know that."""
    verdicts = [
        row(compare_records(result(saved, seed=2 * n), result(saved, seed=2 * n + 1)), "total", "p50")["verdict"]
        for n in range(20)
    ]
    assert verdicts.count("same") >= 17, verdicts


def test_too_few_frames_give_no_verdict(saved: Path) -> None:
    few = result(saved, 12.0)
    few["samples"] = {name: values[:79] for name, values in few["samples"].items()}
    found = row(compare_records(result(saved), few), "total", "p50")
    assert (found["verdict"], found["low"]) == ("unknown", None)


def test_a_result_without_its_samples_is_compared_without_intervals(saved: Path, tmp_path: Path) -> None:
    """What ``--json`` and ``--save`` give has none."""
    bare = {key: value for key, value in result(saved).items() if key != "samples"}
    outcome = compared(tmp_path, bare, bare)
    assert outcome.code == 0 and "too few frames" in outcome.out


def test_two_results_are_printed_as_a_table_with_what_else_changed(saved: Path, tmp_path: Path) -> None:
    newer = result(saved, 12.0, seed=1, environment={"onnxruntime": "9.9.9"}, model={"sha256": "f" * 64})
    outcome = compared(tmp_path, result(saved), newer)
    assert outcome.code == 0, outcome.err
    head, first = outcome.out.splitlines()[:2]
    assert head.split()[:3] == ["ms", "A", "B"] and "95 % interval" in head
    assert first.split()[:2] == ["total", "p50"] and first.split()[-1] == "slower"
    assert "onnxruntime: " in outcome.out and "-> 9.9.9" in outcome.out
    assert f"-> {'f' * 12}\n" in outcome.out
    assert "a.json" in outcome.err and "b.json" in outcome.err


def test_the_same_as_json_and_csv(saved: Path, tmp_path: Path) -> None:
    a, b = result(saved), result(saved, 12.0, seed=1)
    found = compared(tmp_path, a, b, "--json").json
    assert row(found, "total", "p50")["verdict"] == "slower" and found["different_setup"] == []
    rows = list(csv.DictReader(io.StringIO(compared(tmp_path, a, b, "--csv").out)))
    assert rows[0]["stage"] == "total" and rows[0]["verdict"] == "slower" and float(rows[0]["low"]) > 0


def test_a_folder_stands_for_its_times_json(saved: Path) -> None:
    outcome = invoke("bench", "--compare", saved.parent, saved, "--json")
    assert outcome.code == 0 and {r["change"] for r in outcome.json["rows"]} == {0.0}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"environment": {"cpu": "Another CPU"}}, "device: .* and Another CPU"),
        ({"environment": {"gpus": [{"name": "T4"}]}}, "GPU: none and T4"),
        (
            {"environment": {"jetson": {"model": "Xavier", "power_mode": {"name": "MODE_10W", "number": 1}}}},
            "power mode: none and MODE_10W",
        ),
        ({"model": {"size_hw": [512, 1024]}}, "network size: 96x64 and 1024x512"),
        ({"frame_hw": [720, 1280]}, "frame size: 96x64 and 1280x720"),
        ({"settings": {"rate_hz": 30.0}}, "rate: the highest and 30 Hz"),
        ({"settings": {"measures": "pipeline"}}, "measured: network and pipeline"),
        ({"settings": {"in_flight": 2}}, "frames in flight: 1 and 2"),
    ],
)
def test_results_that_cannot_be_compared_are_refused_unless_told(
    saved: Path, tmp_path: Path, parts: Dict[str, Any], said: str
) -> None:
    a, b = result(saved), result(saved, 12.0, **parts)
    assert_refused(compared(tmp_path, a, b), 2, f"cannot be compared.*{said}", "--force")
    forced = compared(tmp_path, a, b, "--force")
    assert forced.code == 0 and "different: " in forced.err and "slower" in forced.out


def test_another_model_or_provider_is_what_comparing_is_for(saved: Path) -> None:
    other = result(saved, model={"sha256": "0" * 64, "file": "b.onnx", "provider": "openvino"})
    assert differences_of_setup(result(saved), other) == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "No such file"),
        ("", "is empty"),
        ("{", "is no JSON"),
        ("[]", "is no result of bench"),
        ('{"format": "rtda.demo/1"}', "is no result of bench: format 'rtda.demo/1'"),
        ('{"format": "rtda.bench/1"}', "is not whole: no environment, frame_hw"),
    ],
)
def test_what_is_no_result_is_refused(saved: Path, tmp_path: Path, content: Optional[str], error: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    assert_refused(invoke("bench", "--compare", saved, tmp_path / "x.json"), 1, error, ".")


@pytest.mark.parametrize(
    "part",
    [
        {"stages": {}},
        {"stages": {"total": {"p50": "fast", "p95": 1.0}}},
        {"stages": {"total": {"p50": -1.0, "p95": 1.0}}},
        {"stages": 3},
        {"samples": {"total": ["x"], "at_s": [0.1]}},
        {"samples": {"total": [1.0], "at_s": [[0.1]]}},
        {"environment": None},
        {"settings": {}},
        {"frame_hw": [64]},
        {"model": {"size_hw": [1, 2]}},
        {"throughput": float("nan")},
        {"throughput": None},
        {"throughput": 10**400},
    ],
    ids=repr,
)
def test_a_result_with_a_value_that_is_none_is_one_error_naming_its_file(
    saved: Path, tmp_path: Path, part: Dict[str, Any]
) -> None:
    broken = json.dumps({**result(saved), **part})
    (tmp_path / "x.json").write_text(broken)
    for pair in ((saved, tmp_path / "x.json"), (tmp_path / "x.json", saved)):
        assert_refused(invoke("bench", "--compare", *pair, "--force"), 1, r"x\.json", "rtda-deploy bench")


def test_a_result_that_did_not_settle_is_pointed_out(saved: Path, tmp_path: Path) -> None:
    outcome = compared(tmp_path, result(saved), result(saved, settled=False))
    assert "b.json: p95 did not settle" in outcome.err and "a.json: p95" not in outcome.err
