"""``rtda-deploy rank``: which of several files is best on footage, without labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cli.commandline import assert_refused, invoke
from conftest import write_data_set, write_pictures

from rtda_deploy.own_masks import marked

pytest.importorskip("torch")
pytest.importorskip("onnx")


def test_files_of_all_kinds_are_ranked_together(here: Path, tiny_checkpoint: Path, tiny_onnx: Path) -> None:
    """The same network twice: they agree with each other, and neither is better."""
    write_pictures(here / "frames", 10)
    outcome = invoke("rank", tiny_checkpoint, tiny_onnx, "--footage", "folder:frames", "--max-frames", "8", "--json")
    assert outcome.code == 0, outcome.err
    entries = {entry["name"].rpartition(".")[2]: entry for entry in outcome.json["entries"]}
    assert set(entries) == {"pth", "onnx"} and outcome.json["frames"] == 8
    assert entries["pth"]["scores"]["norms"] is not None and entries["onnx"]["scores"]["norms"] is None
    for key in ("ensemble-pixels", "views", "confidence"):
        assert entries["pth"]["scores"][key] == pytest.approx(entries["onnx"]["scores"][key], abs=0.02)
    assert not outcome.json["better"] and outcome.json["chosen"].endswith(".pth")
    assert "agreement among 2 models" in outcome.err and "next" in outcome.err
    assert outcome.json["left_out"]["norms"].endswith(entries["onnx"]["name"])
    assert "norms not counted: no batch norms can be looked at in" in " ".join(outcome.err.split())


def test_a_checkpoint_says_whether_its_batch_norms_stood_still(here: Path, tiny_checkpoint: Path) -> None:
    from rtda_deploy.cli.candidates import candidates
    from rtda_training.checkpoint import read_checkpoint, write_checkpoint

    found = read_checkpoint(tiny_checkpoint)
    spec = found.spec.replace(provenance={**found.spec.provenance, "batch_norm": "fixed"})
    fixed = write_checkpoint(here / "fixed.pth", dataclasses.replace(found, spec=spec))
    assert [one.norms_kept for one in candidates([tiny_checkpoint, fixed])] == [False, True]


def test_labelled_frames_are_scored_as_eval_does(
    here: Path, tiny_checkpoint: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_data_set(here / "labelled", 9)
    words = ["rank", tiny_onnx, tiny_checkpoint, "--footage", "folder:labelled", "--check", "folder:labelled"]
    outcome = invoke(*words, "--json")
    assert outcome.code == 0, outcome.err
    scored = invoke("eval", tiny_onnx, "--data", "folder:labelled", "--json")
    mious = {entry["name"].rpartition(".")[2]: entry["check_miou"] for entry in outcome.json["entries"]}
    assert mious["onnx"] == pytest.approx(scored.json["miou"], abs=0.01)
    shown = invoke(*words)
    assert "check mIoU" in shown.out and "the first" in shown.out


def test_labels_that_are_a_networks_own_masks_are_told(
    here: Path, tiny_checkpoint: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder of ``run --collect``; once all are corrected nothing is said."""
    monkeypatch.setenv("COLUMNS", "400")
    labels = write_data_set(here / "hard", 9) / "labels"
    originals = {path: path.read_bytes() for path in labels.glob("*.png")}
    lines = [
        {"id": path.stem, "model": "last.onnx" if place else "old.onnx", "sha256": 64 * "a"}
        for place, path in enumerate(sorted(originals))
    ]
    (here / "hard" / "frames.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "half a li")
    words = ["rank", tiny_onnx, tiny_checkpoint, "--footage", "folder:hard", "--check", "folder:hard"]
    for path, content in originals.items():
        path.write_bytes(marked(content))
    said = "all 9 labels of folder:hard are as a network wrote them (last.onnx aaaaaaaaaaaa, old.onnx aaaaaaaaaaaa)"
    outcome = invoke(*words, "--json")
    assert outcome.code == 0 and any(note.startswith(said) for note in outcome.json["notes"]), outcome.err
    assert said in outcome.err and "rtda-deploy data cvat" in outcome.err
    assert said in invoke("eval", tiny_onnx, "--data", "folder:hard").err
    tried = invoke("models", "promote", tiny_onnx, "--frames", "folder:hard", "--provider", "cpu", "--max-frames", "3")
    assert "labels  all 3 labels of folder:hard are as a network" in tried.err
    adapt = ["adapt", tiny_checkpoint, *words[3:], "--norms-only", "--out", "run"]
    adapted = invoke(*adapt, "--set", "batch_size=2", "--set", "device=cpu", "--set", "precision=fp32")
    assert adapted.err.count(said) == 2, adapted.err  # at once, and with the ranking
    assert said in Path("run/report.html").read_text(encoding="utf-8").replace("All 9", "all 9")
    for path in sorted(originals)[1:]:
        path.write_bytes(originals[path])
    (note,) = [note for note in invoke(*words, "--json").json["notes"] if "as a network wrote" in note]
    assert note.startswith(
        "1 of 9 labels of folder:hard are as a network wrote them (old.onnx aaaaaaaaaaaa) and nobody"
    )
    sorted(originals)[0].write_bytes(originals[sorted(originals)[0]])
    assert not [note for note in invoke(*words, "--json").json["notes"] if "as a network wrote" in note]


def test_one_model_alone_and_short_footage_are_refused(here: Path, tiny_checkpoint: Path, tiny_onnx: Path) -> None:
    footage = ["--footage", "folder:frames"]
    write_pictures(here / "frames", 3)
    assert_refused(invoke("rank", tiny_onnx, *footage), 2, "one model cannot be ranked", "two or more")
    outcome = invoke("rank", tiny_onnx, tiny_checkpoint, *footage)
    assert_refused(outcome, 1, "has 3 frames", "at least 8")
