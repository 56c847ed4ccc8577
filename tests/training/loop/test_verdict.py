"""The sentence that a training ends with."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rtda_training.loop.verdict import ranking_sentence, unfinished


def ranking(*order: str, chosen: str, share: float = 0.97, source_only: bool = True) -> dict[str, Any]:
    beats = {"views": share, "norms": share, "infomax": share, "ensemble-miou": 0.2}
    entries = [{"name": name, "beats_first": beats} for name in order]
    return {"entries": entries, "first": "source-only", "chosen": chosen, "source_only": source_only}


def test_the_sentence_names_source_only_adapted_and_ranked_best() -> None:
    assert ranking_sentence(ranking("teacher", "last", "source-only", chosen="teacher")) == (
        "Teacher ranks first of 3 networks on the target, without labels, and beats source-only in 97 % of the draws on"
        " 3 of 4 measures; the adapted network (last.pth) is 2nd; source-only is 3rd; best.pth is teacher."
    )


def test_what_is_not_sure_is_not_called_better() -> None:
    text = ranking_sentence(ranking("last", "source-only", chosen="source-only", share=0.8))
    assert text.startswith("No better than source-only for sure: of 2 networks the adapted network (last.pth) ranks")
    assert "only beats source-only in 80 %" in text and text.endswith("best.pth is source-only.")
    text = ranking_sentence(ranking("source-only", "last", chosen="source-only"))
    assert text == (
        "Source-only ranks first of 2 networks on the target, without labels: no other ranks before it; the adapted"
        " network (last.pth) is 2nd; best.pth is source-only."
    )


def test_a_run_without_a_source_only_network_says_so() -> None:
    values = {**ranking("last", "teacher", chosen="last", source_only=False), "first": "last"}
    assert "there is no source-only network in this run to compare with" in ranking_sentence(values)


def test_where_labels_decided_it_is_not_called_a_ranking_without_them() -> None:
    verdict = "last is best on 5 labelled frames: +4.0 mIoU (95 % interval +1.0 to +7.0) over source-only"
    values = {**ranking("last", "source-only", chosen="last"), "by_labels": True, "verdict": verdict}
    assert ranking_sentence({**values, "labelled": "folder:five"}) == (
        f"Of 2 networks, by labelled frames of the target (folder:five): {verdict}; source-only is 2nd; best.pth is the"
        " last network."
    )


def falling(steps: int, by: float, noise: float = 0.02) -> list[dict[str, Any]]:
    draw = random.Random(0)
    places = range(20, steps + 1, 20)
    return [{"stage": "a", "step": n, "seg": 1.0 - by * n / steps + draw.gauss(0, noise)} for n in places]


@pytest.mark.parametrize(
    ("steps", "by", "before", "told"),
    [
        (60, 0.5, 0, "Not finished: 60 steps."),
        (60, 0.5, 100, "Not finished: 160 steps."),
        (60, 0.5, None, ""),
        (600, 0.0, 0, ""),
        (600, 0.5, 0, "Not finished: after 600 steps the loss still falls, by 16 % a fifth."),
        (600, 0.05, 0, ""),
    ],
)
def test_few_steps_and_a_loss_that_still_falls_are_told(steps: int, by: float, before: int | None, told: str) -> None:
    assert unfinished(falling(steps, by), steps, before=before) == told


def test_noise_is_no_fall() -> None:
    assert unfinished(falling(600, 0.1, noise=0.3), 600) == ""
    assert unfinished([], 600) == ""
