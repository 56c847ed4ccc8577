"""``rtda-deploy run --shadow``: what it prints and reports, what it gives to ``--collect``, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli.commandline import Outcome, assert_refused, files_below, invoke
from conftest import write_pictures
from runtime.models import tiny_spec, write_model

CAMERA = "test://bars?fps=0&frames=20&size=96x64"


@pytest.fixture(autouse=True)
def standing(here: Path) -> None:
    """In a folder with two small networks."""
    write_model(Path("a.onnx"))
    write_model(Path("b.onnx"), seed=1)


def run(*words: Any, model: str = "a.onnx") -> Outcome:
    seldom = () if "--report-every" in words else ("--report-every", "3600")  # a slow machine reports meanwhile
    return invoke("run", model, "--camera", CAMERA, "--provider", "cpu", *seldom, *words)


def test_agreement_stands_in_the_summary_and_by_class_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("--shadow", "b.onnx", "--report-every", "0.001")
    assert shown.code == 0, shown.err
    said = re.search(r"shadow: ([\d.]+) % of the pixels alike in (\d+) frames, (\d+) left out", shown.out)
    assert said and float(said[1]) < 100 and int(said[2]) + int(said[3]) == 20
    assert re.search(r"^class +both, of either %", shown.out, re.MULTILINE)
    assert re.search(r"^shadow +.*b\.onnx", shown.err, re.MULTILINE), "the line before the first frame"
    assert re.search(r"│ shadow ([\d.]+ % of \d+|…) │", shown.err), "the live line"
    same = run("--shadow", "a.onnx")
    assert re.search(r"shadow: 100\.0 % of the pixels alike", same.out)


def test_progress_and_summary_tell_of_it_in_json() -> None:
    words = ("--report-every", "0.01", "--camera", "test://bars?fps=50&frames=20&size=96x64")
    told = [json.loads(line) for line in run("--shadow", "b.onnx", "--json", *words).out.splitlines()]
    assert {entry["event"] for entry in told} == {"progress", "summary"}
    for entry in told:
        shadow = entry["shadow"]
        assert set(shadow) == {
            *("model", "provider", "compared", "dropped", "behind", "agreement", "newest", "by_class", "error")
        }
    assert shadow["model"] == "b.onnx" and shadow["compared"] + shadow["dropped"] == told[-1]["frames"] > 0
    assert "shadow" not in run("--json").json


def test_its_disagreement_is_a_trigger_for_collecting() -> None:
    words = ("--collect-limit", "free=0,control=0", "--shadow")
    when = ("--collect-when", "disagreement > 1%")
    assert run("--collect", "hard", *words, "b.onnx", *when).code == 0
    lines = [json.loads(line) for line in Path("hard/frames.jsonl").read_text().splitlines()]
    assert lines[0]["why"] == "asked" and lines[0]["scores"]["compare"] > 0.01
    told = run("--collect", "none", *words, "a.onnx", *when, "--json").json
    assert told["shadow"]["compared"] > 0 and '"asked"' not in Path("none/frames.jsonl").read_text()
    assert told["sinks"]["collect"]["written"] + told["sinks"]["collect"]["dropped"] == told["shadow"]["compared"]


def test_a_model_of_the_store_is_named_by_its_digest() -> None:
    write_pictures(Path("frames"), 2)
    words = ("--frames", "folder:frames", "--provider", "cpu", "--max-slower", "1000", "--min-agreement", "0")
    for model in ("a.onnx", "b.onnx"):
        assert invoke("models", "promote", model, *words).code == 0
    rows = {row["role"]: row for row in invoke("models", "list", "--json").json["models"]}
    digest = rows["previous"]["digest"]
    for name in (digest, digest[:6], "previous"):
        told = run("--shadow", f"models/robot@{name}", "--json", model="models/robot").json
        assert (told["model"], told["shadow"]["model"]) == (rows["current"]["file"], rows["previous"]["file"])
    assert run("--json", model=f"models/robot@{digest}").json["model"] == rows["previous"]["file"]
    refused = run("--shadow", "models/robot@fedcba", model="models/robot")
    assert_refused(refused, 2, "models/robot has no model 'fedcba'", rf"{digest} \(previous\)")
    assert_refused(run("--shadow", "models/robot@", model="models/robot"), 2, "no model ''", "known:")
    assert_refused(
        run("--shadow", "models/other@12"), 2, "models/other has no model yet", "known: models/robot; or put"
    )


def test_groups_region_and_spec_are_those_of_both() -> None:
    """Of a candidate that carries no spec, and that gives finished masks without saying how sure it is."""
    spec = tiny_spec(output="mask")
    write_model(Path("finished.onnx"), spec)
    write_model(Path("bare.onnx"), with_spec=False)
    Path("spec.json").write_text(tiny_spec().to_json())
    words = ("--group", "drivable=road,sky", "--region", "0,0.5,1,1", "--json")
    told = run("--shadow", "finished.onnx", "--confidence", *words).json
    assert told["shadow"]["compared"] > 0 and set(told["shadow"]["by_class"]) <= {"drivable", "other"}
    assert told["confidence"] is not None
    told = run("--shadow", "bare.onnx", "--spec", "spec.json", *words).json
    assert told["shadow"]["agreement"] == 1.0, "the same network, and the same part of the picture"


def test_what_makes_no_sense_is_refused() -> None:
    write_model(Path("other.onnx"), tiny_spec(class_names=("a", "b", "c", "d", "e")))
    Path("broken.onnx").write_bytes(Path("a.onnx").read_bytes()[:100])
    files = files_below(Path())
    assert_refused(run("--shadow", "other.onnx"), 2, "other classes than the deployed network", "inspect")
    assert_refused(run("--shadow", "broken.onnx"), 1, "broken.onnx", None)
    assert_refused(run("--shadow", "nowhere.onnx"), 1, "nowhere.onnx", None)
    assert_refused(run("--shadow", "a.onnx", "--compare", "b.onnx"), 2, "both to compare with and as a shadow", None)
    assert files_below(Path()) == files


def test_a_candidate_that_gives_nan_ends_alone_and_the_run_says_so(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load("b.onnx")
    (weights,) = [value for value in model.graph.initializer if value.name == "weights"]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * float("nan"), "weights"))
    onnx.save(model, "nan.onnx")
    outcome = run("--shadow", "nan.onnx", "--json")
    assert outcome.code == 1 and outcome.json["frames"] == 20 and outcome.json["shadow"]["error"]
    assert "NaN" in outcome.said["error"]
