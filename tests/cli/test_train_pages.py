"""A grid of trainings as a user meets it, and the pages that trainings leave."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, Iterator

import pytest
from cli.commandline import Outcome, invoke
from interrupting import at_step, interrupt

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")

TINY = '["steps=2", "size=64x64", "batch_size=2", "device=cpu", "save_every=0", "val_every=0"]'
GRID = """
description = "Two rows, two seeds."
source = "folder:{data}"
target = "folder:{data}"
val = "folder:{data}"
test = "folder:{data}"
seeds = [0, 1]
set = {tiny}

[[rows]]
label = "Source only"
recipe = "source-only"

[[rows]]
label = "Light&Thin"
recipe = "rtda-light-thin"
published = "rtda/table-1/light-thin"
"""


def write_grid(folder: Path, data: Path, more: str = "") -> Path:
    path = folder / "tiny.toml"
    path.write_text(GRID.format(data=data, tiny=TINY) + more, encoding="utf-8")
    return path


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def page_data(path: Path) -> Any:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Iterator[tuple[Path, Outcome]]:
    """The grid, trained; not to be written to."""
    base = tmp_path_factory.mktemp("grid")
    outcome = invoke("train", write_grid(base, tiny_data), "--out", base / "out")
    assert outcome.code == 0, outcome.err
    yield base / "out", outcome


def test_every_row_and_seed_is_trained_and_scored_in_a_folder_of_its_own(trained):
    folder, outcome = trained
    for row in ("source-only", "light-thin"):
        for seed in (0, 1):
            run = folder / f"{row}-seed{seed}"
            assert {
                "last.pth",
                "best.pth",
                "config.toml",
                "results.csv",
                "report.html",
                "MODEL_CARD.md",
                "scores.json",
            } <= {path.name for path in run.iterdir()}
            scores = json.loads((run / "scores.json").read_text())
            assert (scores["seed"], scores["plan"]["seed"], scores["steps"]) == (seed, seed, [2])
            assert scores["seconds_per_step"] > 0
    assert "row     5/6  Light&Thin, seed 1: mIoU" in outcome.err, "after the control of seed 0"
    assert "Light&Thin" in outcome.out and "mIoU19" in outcome.out


def test_the_table_is_the_mean_of_the_runs_scores(trained):
    folder, _ = trained
    found = results(folder)
    source, light, _ = found["rows"]
    values = [json.loads((folder / f"light-thin-seed{s}" / "scores.json").read_text())["scores"] for s in (0, 1)]
    assert light["miou"]["values"] == [entry["miou"] for entry in values]
    assert light["miou"]["mean"] == pytest.approx(sum(entry["miou"] for entry in values) / 2, abs=0.006)
    differences = [ours - theirs for ours, theirs in zip(light["miou"]["values"], source["miou"]["values"])]
    assert light["gain"] == pytest.approx(sum(differences) / 2, abs=0.006)
    assert light["of_oracle"] is None, "there is none"
    assert all(entry["status"] == "done" for row in found["rows"] for entry in row["seeds"].values())


def test_the_table_is_there_for_people_and_for_programs(trained):
    folder, _ = trained
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert "| printed: FCD-LightThin | 83.9 | 37.2 |" in text
    assert "| 33.2 | gta5 -> cityscapes, 1024x512, resnet101, pretrained weights |" in text
    lines = list(csv.DictReader((folder / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["row"] for line in lines] == [
        "Source only",
        "Light&Thin",
        "rtda/table-1/light-thin",
        "Control of Light&Thin",
    ]
    assert lines[1]["over_control"] and "over control" in text, "trained by the command as typed"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Light&amp;Thin" in page and page_data(folder / "report.html") == results(folder)


def test_a_row_that_fails_is_an_error_after_all_others(here, tiny_data):
    grid = write_grid(here, tiny_data)
    grid.write_text(
        grid.read_text().replace('recipe = "source-only"', 'recipe = "source-only"\nset = ["init=no.pth"]', 1)
    )
    outcome = invoke("train", grid, "--out", "out", "--set", "seeds=[0]", "--json")
    assert outcome.code == 1
    assert outcome.said["error"].startswith("1 of 3 runs failed: Source only (seed 0): cannot read no.pth")
    statuses = {row["label"]: row["seeds"]["0"]["status"] for row in outcome.json["rows"]}
    assert statuses == {"Source only": "failed", "Light&Thin": "done", "Control of Light&Thin": "done"}


def test_a_stopped_grid_says_how_to_go_on(here, tiny_data):
    words = ("train", write_grid(here, tiny_data), "--out", "out", "--set", "seeds=[0]")
    with at_step(1, interrupt):
        outcome = invoke(*words)
    assert outcome.code == 130
    assert re.search(r"next    rtda-deploy train \S+tiny\.toml --set 'seeds=\[0\]' --out out\n", outcome.err)


def test_a_wrong_address_is_told_before_any_row(here, tiny_data):
    outcome = invoke("train", write_grid(here, tiny_data), "--out", "out", "--set", "test=folder:missing")
    assert outcome.code == 1 and "missing" in outcome.said["error"]
    assert not (here / "out").exists(), "a wrong address leaves nothing"


# the page of one training


def train(tiny_data: Path, recipe: str, *more: str) -> Path:
    data = f"folder:{tiny_data}"
    words = ["train", recipe, "--source", data, "--target", data, "--val", data, "--out", "run"]
    small = ["size=64x64", "batch_size=2", "device=cpu", "save_every=0", *more]
    outcome = invoke(*words, *(word for text in small for word in ("--set", text)))
    assert outcome.code == 0, outcome.err
    return Path("run")


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))


def captions(page: Path) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page.read_text(encoding="utf-8"))


def test_the_page_shows_curves_scores_pictures_and_fda(here, tiny_data):
    page = train(tiny_data, "fda-light", "steps=4", "val_every=2") / "report.html"
    assert headings(page) == [
        "What it sees on the target",
        "The training",
        "What it sees on the validation set",
        "IoU per class, last validation (train @4)",
        "Confusion, last validation",
        "Curves",
        "FDA: the target&#x27;s low frequencies on the source",
    ]
    shown = captions(page)
    assert any(text.endswith("picture, adapted, truth, wrong") for text in shown)
    assert "Validation mIoU" in shown and "Segmentation loss, source" in shown
    assert "stage train has beta 0.01" in shown
    assert "training pictures; no label of them was read" in shown
    assert [row["step"] for row in page_data(page)["rows"]] == [2, 4]
    assert page_data(page)["warnings"] == []


def test_the_page_of_stages_shows_both_networks_and_the_labels(here, tiny_data):
    page = train(tiny_data, "ssl-1", "steps=2", "offline.threshold=0.0") / "report.html"
    assert any(text.endswith("picture, first, again, truth") for text in captions(page))
    assert "Pseudo labels of stage again" in headings(page)
    text = page.read_text(encoding="utf-8")
    assert "100.0 % of the target&#x27;s pixels got a label" in text and "<th>class</th>" in text


def test_the_page_and_the_screen_warn_of_labels_that_cover_little(here, tiny_data):
    data = f"folder:{tiny_data}"
    words = ["train", "ssl-1", "--source", data, "--target", data, "--val", data, "--out", "run"]
    small = ["steps=2", "size=64x64", "batch_size=2", "device=cpu", "save_every=0", "offline.threshold=0.99"]
    outcome = invoke(*words, *(word for text in small for word in ("--set", text)))
    assert outcome.code == 0
    assert "! again: only 0.0 % of the target's pixels have a label: lower offline.threshold (now 0.99)" in outcome.err
    assert headings(Path("run/report.html"))[:3] == ["What it sees on the target", "The training", "Warnings"]
    assert [entry["kind"] for entry in page_data(Path("run/report.html"))["warnings"]] == ["coverage"]


def test_the_page_shows_the_network_that_a_checkpoint_gave(here, tiny_data):
    first = train(tiny_data, "source-only", "steps=1").rename("first")
    page = train(tiny_data, "rtda-light-thin", "steps=1", f"init={first / 'last.pth'}") / "report.html"
    assert any(text.endswith("picture, start, train, truth") for text in captions(page))


def test_the_line_names_the_losses_that_the_method_has(here, tiny_data):
    outcome = invoke(
        *("train", "minent", "--source", f"folder:{tiny_data}", "--target", f"folder:{tiny_data}", "--out", "run"),
        *("--set", "steps=2", "--set", "size=64x64", "--set", "batch_size=2", "--set", "device=cpu"),
    )
    assert outcome.code == 0, outcome.err
    line = next(line for line in outcome.err.splitlines() if line.startswith("train   train"))
    assert re.fullmatch(r"train   train  \d/2  seg \d+\.\d{3} entropy \S+  \d+\.\d img/s(  \d+:\d\d left)?", line), line
    assert "model   BiSeNet-resnet18 rtda · " in outcome.err
    assert "val     pictures  6/6" in outcome.err
    scored = next(line for line in outcome.err.splitlines() if line.startswith("  val @2  mIoU "))
    assert scored.endswith(f"on folder:{tiny_data} (val)"), "which set it is of"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (41, "0:41"), (725, "12:05"), (3723, "1:02:03")])
def test_time_left_reads_as_a_clock(seconds, text):
    from rtda_deploy.cli.terminal.console import clock_text

    assert clock_text(seconds) == text
