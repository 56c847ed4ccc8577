"""What the ranking benchmark makes of networks whose true scores are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

pytest.importorskip("torch")

from training.judge.networks import NAMES, constant, footage, network


def test_the_summary_tells_a_selector_that_works_from_one_that_prefers_collapse(
    tmp_path: Path, benchmark_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = benchmark_module("ranking")
    monkeypatch.setattr(ranking, "_POOLS", 60)
    wrong = {"first": 0.5, "a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.6, "f": 0.7, "g": 0.8}
    given = [network(name, share) for name, share in wrong.items()]
    frames = ranking.Frames(footage(16), 0)
    answers = [ranking.answers_of(one, frames, tmp_path / one.name) for one in [*given, constant()]]
    true = [100 * (1 - share) for share in wrong.values()] + [2.0]
    rows = {(row["selector"], row["guards"]): row for row in ranking.summary(answers, true, NAMES)}
    agreed = rows["ensemble-miou", True]
    assert agreed["spearman"] == pytest.approx(1.0) and agreed["regret"] == 0.0 == agreed["worse_than_first"]
    sure = rows["certainty", False]
    assert sure["regret"] == pytest.approx(88.0) and sure["worse_than_first"] == pytest.approx(7 / 8, abs=0.1)
    assert sure["worst_loss"] == pytest.approx(48.0)
    assert rows["certainty", True]["worst_loss"] < 48.0  # the guards put the constant mask behind
    steady = np.asarray([*(-share for share in wrong.values()), 0.0])  # a constant mask never flickers
    more = dict.fromkeys(ranking.FLICKER, steady)
    rows = {(row["selector"], row["guards"]): row for row in ranking.summary(answers, true, NAMES, more)}
    assert rows["flicker", False]["regret"] == pytest.approx(88.0), "alone it takes the constant one"
    assert rows["the rule and flicker", True]["regret"] == 0.0


def test_checkpoints_of_stages_stand_for_their_run(tmp_path: Path, benchmark_module: Callable[[str], Any]) -> None:
    for name in ("a/stage-x.pth", "a/stage-y.pth", "a/last.pth", "b/last.pth", "b/best.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = benchmark_module("ranking").checkpoints([tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/stage-x.pth", "a/stage-y.pth", "b/last.pth"]
    assert benchmark_module("ranking").spearman(np.arange(5), np.arange(5)[::-1]) == pytest.approx(-1.0)


def test_a_run_is_judged_by_what_it_started_from_what_it_left_and_the_mixes(
    tmp_path: Path, benchmark_module: Callable[[str], Any]
) -> None:
    ranking = benchmark_module("ranking")
    wrong = {"start/last": 0.6, "other/last": 0.0, "run/last": 0.3, "run/mix-0.25": 0.5, "run/mix-1": 0.9}
    frames = ranking.Frames(footage(16), 0)
    answers = [
        ranking.answers_of(network(name, share), frames, tmp_path / f"{place}")
        for place, (name, share) in enumerate(wrong.items())
    ]
    true = [100 * (1 - share) for share in wrong.values()]
    rows = {row["selector"]: row for row in ranking.by_run(answers, true, NAMES, {"run": "start/last"})}
    assert rows["ensemble-miou"] == {
        "selector": "ensemble-miou",
        "runs": 1,
        "regret": 0.0,
        "largest": 0.0,
        "worst_loss": 0.0,
    }
    true[2], true[3] = 10.0, 70.0  # what it takes is now 60 below the best and 30 below the start
    row = {row["selector"]: row for row in ranking.by_run(answers, true, NAMES, {"run": "start/last"})}["ensemble-miou"]
    assert (row["regret"], row["worst_loss"]) == (60.0, 30.0)


def test_what_a_run_started_from_is_read_in_its_settings(
    tmp_path: Path, benchmark_module: Callable[[str], Any]
) -> None:
    for name in ("a/last.pth", "b/stage-source.pth", "b/last.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/config.toml").write_text('recipe = "x"\ninit = "runs/start/best.pth"\n')
    (tmp_path / "b/config.toml").write_text('init = ""\n')
    ranking = benchmark_module("ranking")
    paths = ranking.checkpoints([tmp_path], last=True)
    assert [path.stem for path in paths] == ["last", "stage-source", "last"]
    assert ranking.starts_of(paths) == {"a": "start/best", "b": "b/stage-source"}


def test_what_few_labels_choose_is_scored_on_the_other_frames(benchmark_module: Callable[[str], Any]) -> None:
    random = np.random.default_rng(0)

    def frames(right: float) -> Any:
        """Confusion matrices (30, 2, 2) of a network that is right in about so many of 1,000 pixels."""
        hits = (1000 * np.clip(right + random.normal(0, 0.01, 30), 0, 1)).astype(int)
        return np.stack([[[hit, 1000 - hit], [1000 - hit, hit]] for hit in hits])

    told = benchmark_module("chosen_by_labels").told
    found = told({"given": frames(0.6), "worse": frames(0.5), "better": frames(0.8)}, [3, 10], 20)
    rows = {(row["frames"], row["way"]): row for row in found["rows"]}
    true = found["miou"]["better"] - found["miou"]["given"]
    assert all(row["gain"] == pytest.approx(true, abs=1.0) and row["changed"] == 1 for row in rows.values())
    same = told({"given": frames(0.6), "equal": frames(0.6)}, [3], 40)["rows"]
    assert same[0]["changed"] < same[1]["changed"] < 1, "a lead within chance keeps the given"
