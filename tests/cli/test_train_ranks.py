"""What ``train`` says at its end of the networks that it ranked."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
from cli.commandline import invoke

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")


def test_train_ends_with_the_verdict_and_proposes_what_ranks_first(here: Path) -> None:
    from training.settings import write_domains

    write_domains(here / "data", 4, 9, 32)
    words = [
        *("train", "target-bn", "--source", "folder:data/source", "--target", "folder:data/target", "--out", "run"),
        *(
            word
            for text in ("steps=2", "size=64x64", "batch_size=2", "device=cpu", "batch_norm=fixed")
            for word in ("--set", text)
        ),
    ]
    outcome = invoke(*words, "--json")
    assert outcome.code == 0, outcome.err
    ranking = outcome.json["ranking"]
    saved = json.loads(Path("run/ranking.json").read_text())
    assert ranking["order"] == [entry["name"] for entry in saved["entries"]]
    assert ranking["chosen"] == saved["chosen"] and ranking["first"] == "source-only" and ranking["dropped"] == []
    assert ranking["by_labels"] is False
    verdict = outcome.json["verdict"]
    assert "source-only" in verdict and "(last.pth)" in verdict and verdict.endswith("Not finished: 2 steps.")
    page = Path("run/report.html").read_text()
    order = [page.index(text) for text in ('<p class="lead">', "What it sees on the target", "The ranking", "Curves")]
    assert order == sorted(order)
    again = invoke("train", "--resume", "auto", "--out", "run")  # nothing is left to do, and nothing is ranked twice
    assert again.code == 0, again.err
    assert again.out == "run/best.pth\n"
    assert f"verdict {verdict}" in " ".join(again.err.split())
    why = saved["left_out"]["norms"]
    assert why.startswith('batch norms stood still in training (batch_norm = "fixed"): source-only and ')
    assert f"norms not counted in the ranking: {why}" in " ".join(again.err.split())
    assert f"Not counted: norms, because {html.escape(why)}." in page
    assert "next    rtda-deploy export run/best.pth" in again.err and "ranking.json" in again.err


def test_what_was_dropped_and_what_makes_a_choice_by_labels_doubtful_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rtda_deploy.cli.train.verb import _tell
    from rtda_training.loop.events import TrainResult

    ranking = {
        "entries": [],
        "dropped": [{"name": "teacher of x", "why": "it gives NaN"}],
        "notes": ["a single frame decided, label more"],
    }
    for by_labels in (True, False):
        _tell(TrainResult(tmp_path, 0.5, "x @1", 0.5, 1.0, {**ranking, "by_labels": by_labels}), False)
        shown = capsys.readouterr()
        told = " ".join(shown.err.split())
        assert "dropped teacher of x: it gives NaN" in told and shown.out == f"{tmp_path / 'best.pth'}\n"
        assert ("a single frame decided" in told) is by_labels
