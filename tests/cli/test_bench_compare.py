"""``rtda-deploy bench --compare``: what it prints, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Dict

from cli.commandline import Outcome, assert_refused, invoke
from runtime.bench.records import timed_values


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
