"""A grid of trainings as a user meets it, and the pages that trainings leave."""

from __future__ import annotations

import csv
import fcntl
import json
import re
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from cli.commandline import Outcome, invoke

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
            assert {"last.pth", "best.pth", "config.toml", "results.csv", "report.html", "scores.json"} <= {
                path.name for path in run.iterdir()
            }
            scores = json.loads((run / "scores.json").read_text())
            assert (scores["seed"], scores["plan"]["seed"], scores["steps"]) == (seed, seed, [2])
            assert scores["seconds_per_step"] > 0
    assert "row     4/4  Light&Thin, seed 1: mIoU" in outcome.err
    assert "Light&Thin" in outcome.out and "mIoU19" in outcome.out


def test_the_table_is_the_mean_of_the_runs_scores(trained):
    folder, _ = trained
    found = results(folder)
    source, light = found["rows"]
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
    assert [line["row"] for line in lines] == ["Source only", "Light&Thin", "rtda/table-1/light-thin"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Light&amp;Thin" in page and page_data(folder / "report.html") == results(folder)


def test_a_finished_grid_is_not_trained_again(trained):
    folder, _ = trained
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/last.pth")}
    again = invoke("train", folder.parent / "tiny.toml", "--out", folder, "--json")
    assert again.code == 0 and again.err.count("done before") == 4
    assert again.json["folder"] == str(folder) and again.json["rows"] == results(folder)["rows"]
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/last.pth")} == before


def test_other_settings_do_not_go_into_the_same_table(trained):
    folder, _ = trained
    outcome = invoke("train", folder.parent / "tiny.toml", "--out", folder, "--set", "batch_size=3")
    assert outcome.code == 2 and "these differ: batch_size" in outcome.said["error"]
    assert "another --out" in outcome.said["fix"]
    outcome = invoke("train", folder.parent / "tiny.toml", "--out", folder, "--set", "test=toytown:target")
    assert outcome.code == 2 and "these differ: test" in outcome.said["error"]


def test_a_stopped_grid_goes_on_where_it_was(here, tiny_data, monkeypatch):
    from rtda_training.stages.segmentation import SegmentationStage

    grid, out = write_grid(here, tiny_data), here / "out"
    words = ("train", grid, "--out", out, "--set", "seeds=[0]", "--set", "save_every=1")
    original, steps = SegmentationStage.step, []

    def step(self: Any, number: int) -> Any:
        if len(steps) == 3:  # the second row's second step
            raise KeyboardInterrupt
        steps.append(number)
        return original(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(SegmentationStage, "step", step)
        outcome = invoke(*words)
    assert outcome.code == 130
    assert [row["seeds"]["0"]["status"] for row in results(out)["rows"]] == ["done", "started"]
    assert "started" in (out / "table.md").read_text()
    written = (out / "source-only-seed0" / "last.pth").stat().st_mtime_ns
    steps.clear()
    monkeypatch.setattr(SegmentationStage, "step", lambda self, n: steps.append(n) or original(self, n))
    outcome = invoke(*words)
    assert outcome.code == 0, outcome.err
    assert steps == [1], "one step was left, of one row"
    assert "resumed at step 1" in outcome.err
    assert (out / "source-only-seed0" / "last.pth").stat().st_mtime_ns == written
    assert [row["seeds"]["0"]["status"] for row in results(out)["rows"]] == ["done", "done"]


def test_resume_auto_finds_the_newest_run_of_the_grid(here, tiny_data, monkeypatch):
    monkeypatch.setattr("rtda_deploy.cli.train.grid._one", lambda *_: None)
    grid = write_grid(here, tiny_data)
    for _ in range(2):
        assert invoke("train", grid, "--resume", "auto").code == 0
    assert len(list((here / "runs/train").iterdir())) == 1
    assert invoke("train", grid).code == 0
    assert len(list((here / "runs/train").iterdir())) == 2


def test_a_row_that_another_process_works_on_is_passed_over(here, tiny_data):
    grid, out = write_grid(here, tiny_data), here / "out"
    busy = out / "source-only-seed0"
    busy.mkdir(parents=True)
    with open(busy / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        outcome = invoke("train", grid, "--out", out, "--set", "seeds=[0]")
        assert outcome.code == 0, outcome.err
        assert "another process is at it" in outcome.err and "not finished by another process" in outcome.err
        assert [row["seeds"]["0"]["status"] for row in results(out)["rows"]] == ["running", "done"]
        assert [path.name for path in busy.iterdir()] == [".lock"]


def test_the_lock_keeps_everybody_else_out(here):
    from rtda_deploy.cli.train.grid import _locked

    with _locked(here / "row") as mine, open(here / "row/.lock") as other:
        assert mine
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with _locked(here / "row") as mine:
        assert mine, "given back"


def test_a_row_that_works_in_the_end_leaves_no_error_behind(here, monkeypatch):
    from rtda_deploy.cli.train import grid as ablation

    scores: Any = type("Scores", (), {"miou": lambda self: 0.5})()
    found: Any = type("Evaluation", (), {"scores": scores})()
    monkeypatch.setattr(ablation, "_train_and_score", lambda *_: found)
    (here / "row").mkdir()
    (here / "row/error.json").write_text("{}")
    ablation._one(None, here / "row", "", None, "1/1", started=time.time() + 60)  # type: ignore[arg-type]
    assert not (here / "row/error.json").exists()


def test_a_row_whose_process_has_ended_is_taken_over(here, tiny_data, monkeypatch):
    from rtda_deploy.cli.train import grid as ablation

    grid, out = write_grid(here, tiny_data), here / "out"
    (out / "source-only-seed0").mkdir(parents=True)
    other = open(out / "source-only-seed0" / ".lock", "w")  # noqa: SIM115 - closed by what stands for the other's end
    fcntl.flock(other, fcntl.LOCK_EX)
    trained = []

    def one(run: Any, *_: Any) -> None:
        trained.append(run.folder)
        other.close()

    monkeypatch.setattr(ablation, "_one", one)
    outcome = invoke("train", grid, "--out", out, "--set", "seeds=[0]")
    assert outcome.code == 0 and trained == ["light-thin-seed0", "source-only-seed0"]
    assert outcome.err.count("another process is at it") == 1


FAILING = """
[[rows]]
label = "Too fast"
recipe = "source-only"
set = ["optimizer.kind=sgd", "optimizer.learning_rate=1e30", "optimizer.warmup_steps=0", "steps=5"]

[[rows]]
label = "After it"
recipe = "source-only"
"""


def test_a_row_that_fails_is_recorded_and_the_others_go_on(here, tiny_data):
    grid, out = write_grid(here, tiny_data, FAILING), here / "out"
    words = ("train", grid, "--out", out, "--set", "seeds=[0]", "--json")
    outcome = invoke(*words)
    assert outcome.code == 1
    assert re.search(r"1 of 4 runs failed: Too fast \(seed 0\): .*not a finite number", outcome.said["error"])
    error = json.loads((out / "too-fast-seed0" / "error.json").read_text())
    assert "not a finite number" in error["error"] and "Traceback" in error["traceback"] and error["hint"]
    statuses = {row["label"]: row["seeds"]["0"]["status"] for row in outcome.json["rows"]}
    assert statuses == {"Source only": "done", "Light&Thin": "done", "Too fast": "failed", "After it": "done"}
    assert "failed: Too fast (seed 0)" in (out / "table.md").read_text()
    again = invoke(*words)  # tried again, not hidden
    assert again.code == 1 and again.err.count("done before") == 3


def test_what_another_process_saw_fail_is_not_tried_at_once(here, tiny_data, monkeypatch):
    from rtda_deploy.cli.train import grid as ablation

    monkeypatch.setattr(ablation, "_train_and_score", lambda *_: pytest.fail("tried"))
    folder = here / "row"
    folder.mkdir()
    (folder / "error.json").write_text('{"error": "it broke"}')
    run: Any = type("Run", (), {"row": None})()
    ablation._one(run, folder, "", None, "1/1", started=0.0)


def test_whatever_breaks_a_row_the_others_go_on(here, tiny_data, monkeypatch):
    from rtda_deploy.cli.train import grid as ablation

    tried = []

    def broken(run: Any, *_: Any) -> Any:
        tried.append(run.folder)
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(ablation, "_train_and_score", broken)
    outcome = invoke("train", write_grid(here, tiny_data), "--out", "out")
    assert outcome.code == 1 and len(tried) == 4
    assert outcome.said["error"].startswith("4 of 4 runs failed: Source only (seed 0), Source only (seed 1), ")
    assert outcome.said["error"].endswith(": RuntimeError: CUDA out of memory")


def test_a_steps_time_is_the_median_of_each_stage_without_its_slow_start():
    from rtda_deploy.cli.train.grid import _seconds_per_step

    def rows(index: int, steps: int, rates: list[float]) -> list[dict[str, Any]]:
        width = steps // len(rates)
        return [
            {"stage_index": index, "step": width * (place + 1), "pictures_per_s": rate}
            for place, rate in enumerate(rates)
        ]

    assert _seconds_per_step(rows(0, 30, [0.1, 8.0, 8.0]), 4) == 0.5
    assert _seconds_per_step([*rows(0, 30, [8.0] * 3), *rows(1, 10, [2.0])], 4) == (30 * 0.5 + 10 * 2.0) / 40
    assert _seconds_per_step([], 4) is None


def test_a_wrong_address_is_told_before_any_row(here, tiny_data):
    outcome = invoke("train", write_grid(here, tiny_data), "--out", "out", "--set", "test=folder:missing")
    assert outcome.code == 1 and "missing" in outcome.said["error"]
    assert not (here / "out").exists(), "a wrong address leaves nothing"


def test_a_grid_under_torchrun_is_refused(here, tiny_data, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = invoke("train", write_grid(here, tiny_data), "--out", "out")
    assert outcome.code == 2 and "one process a row" in outcome.said["error"]


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
    assert headings(Path("run/report.html"))[0] == "Warnings"
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


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (41, "0:41"), (725, "12:05"), (3723, "1:02:03")])
def test_time_left_reads_as_a_clock(seconds, text):
    from rtda_deploy.cli.terminal.console import clock_text

    assert clock_text(seconds) == text
