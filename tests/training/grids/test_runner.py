"""The grid runner: rows are trained once, failures are kept, several processes share a grid."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import json
import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S

from rtda_deploy.errors import ConfigError, DataError, FileAccessError, TrainingError
from rtda_training.grids.grid import Grid, GridRow
from rtda_training.grids.places import Places
from rtda_training.grids.record import GridRecord
from rtda_training.grids.runner import grid_folder, raise_failures, seconds_per_step, train_grid, unfinished
from rtda_training.grids.table import notes
from rtda_training.loop.events import TrainResult


class Scored:
    """What ``score=`` gives."""

    confusion = np.eye(2, dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        return {"model": "here/last.pth", "miou": 50.0, "pixel_accuracy": 60.0, "iou": {"road": 50.0}}


class Trainings:
    """``train=``: writes a checkpoint's name instead of training; ``then`` is done with each run before that."""

    def __init__(self, then=lambda run: None):
        self.made, self._then = [], then

    def __call__(self, run, folder, resume):
        self.made.append((run.folder, resume))
        (folder / "last.pth").touch()
        self._then(run)
        return TrainResult(folder, 0.5, "train @1", 0.5, 1.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("images", "labels"):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "0.png"), np.zeros((8, 8), np.uint8))
    return f"folder:{folder}"


@pytest.fixture()
def grid(data):
    rows = (GridRow("Source only", "source-only"), GridRow("Light&Thin", "rtda-light-thin"))
    return Grid("tiny", data, data, rows, test=data, control=False)


def run(grid, folder, trainings, told=None):
    events = (lambda event: told.append(event.stage)) if told is not None else None
    return train_grid(grid, folder, score=lambda path, test: Scored(), train=trainings, on_event=events)


def statuses(results):
    return [entry["status"] for row in results["rows"] for entry in row["seeds"].values()]


def test_a_finished_row_is_not_trained_again(grid, tmp_path):
    trainings, told = Trainings(), []
    results = run(grid, tmp_path, trainings)
    assert statuses(results) == ["done", "done"] and json.loads((tmp_path / "results.json").read_text()) == results
    assert run(grid, tmp_path, trainings, told)["rows"] == results["rows"]
    assert len(trainings.made) == 2 and sum("done before" in text for text in told) == 2


def test_pictures_that_chose_or_taught_and_are_scored_on_are_told(grid, data, tmp_path):
    told = []
    run(dataclasses.replace(grid, check=data, labelled_target=data), tmp_path, Trainings(), told)
    assert [text.partition(":")[0] for text in told if "scored on are" in text or "scored on choose" in text] == [
        "1 of the 1 pictures that are scored on are learned from (labelled_target)",
        "1 of the 1 pictures that are scored on choose among networks (check)",
    ]


def test_a_stopped_grid_resumes_the_row_it_was_in(grid, tmp_path):
    def stop(run):
        if run.row.label == "Light&Thin":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(grid, tmp_path, Trainings(stop))
    assert statuses(json.loads((tmp_path / "results.json").read_text())) == ["done", "started"]
    assert "started" in (tmp_path / "table.md").read_text()
    trainings = Trainings()
    assert statuses(run(grid, tmp_path, trainings)) == ["done", "done"]
    assert trainings.made == [("light-thin-seed0", True)]


def test_the_newest_folder_of_the_grid_is_resumed(grid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = grid_folder(grid, resume=True)
    assert first.parts[:2] == ("runs", "train") and not first.exists()
    first.mkdir(parents=True)
    (first / "results.json").touch()
    assert grid_folder(grid, resume=True) == first and grid_folder(grid, resume=False) != first


def test_a_row_that_another_process_works_on_is_passed_over(grid, tmp_path):
    busy, told = tmp_path / "source-only-seed0", []
    busy.mkdir()
    with open(busy / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        results = run(grid, tmp_path, Trainings(), told)
    assert statuses(results) == ["running", "done"] and unfinished(results) == ["Source only"]
    assert sum("another process is at it" in text for text in told) == 1
    assert [path.name for path in busy.iterdir()] == [".lock"]


def test_a_row_whose_process_has_ended_is_taken_over(grid, tmp_path):
    (tmp_path / "source-only-seed0").mkdir()
    other = open(tmp_path / "source-only-seed0" / ".lock", "w")  # noqa: SIM115 - closed by what stands for its end
    fcntl.flock(other, fcntl.LOCK_EX)
    trainings = Trainings(lambda run: other.close())
    assert statuses(run(grid, tmp_path, trainings)) == ["done", "done"]
    assert [folder for folder, _ in trainings.made] == ["light-thin-seed0", "source-only-seed0"]


def test_the_row_that_is_trained_is_locked(grid, tmp_path):
    def locked(run):
        with open(tmp_path / run.folder / ".lock") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)

    assert statuses(run(grid, tmp_path, Trainings(locked))) == ["done", "done"]
    assert not list(tmp_path.glob("*/.lock"))


def test_whatever_breaks_a_row_is_recorded_the_others_go_on_and_it_is_tried_again(grid, tmp_path):
    def broken(run):
        if run.row.label == "Source only":
            raise RuntimeError("CUDA out of memory")

    results = run(grid, tmp_path, Trainings(broken))
    assert statuses(results) == ["failed", "done"]
    with pytest.raises(TrainingError, match=r"^1 of 2 runs failed: Source only \(seed 0\): RuntimeError: CUDA out of"):
        raise_failures(results, tmp_path)
    error = json.loads((tmp_path / "source-only-seed0" / "error.json").read_text())
    assert "Traceback" in error["traceback"] and "failed: Source only (seed 0)" in (tmp_path / "table.md").read_text()
    assert statuses(run(grid, tmp_path, Trainings())) == ["done", "done"]
    assert not (tmp_path / "source-only-seed0" / "error.json").exists()


def test_what_another_process_saw_fail_is_not_tried_at_once(grid, tmp_path):
    def another(run):
        if run.row.label == "Source only":
            folder = tmp_path / "light-thin-seed0"
            folder.mkdir()
            (folder / "error.json").write_text('{"error": "it broke"}')
            time.sleep(0.01)

    trainings = Trainings(another)
    assert statuses(run(grid, tmp_path, trainings)) == ["done", "failed"]
    assert [folder for folder, _ in trainings.made] == ["source-only-seed0"]


def test_another_plan_or_test_set_does_not_go_into_the_same_table(grid, data, tmp_path):
    run(grid, tmp_path, Trainings())
    for changed, differs in ({"set": ("batch_size=3",)}, "batch_size"), ({"test": data + "?split=val"}, "test"):
        with pytest.raises(ConfigError, match=f"these differ: {differs}"):
            run(Grid("tiny", data, data, grid.rows, control=False, **{"test": data, **changed}), tmp_path, Trainings())


def test_several_processes_on_one_row_are_refused(grid, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process a row"):
        run(grid, tmp_path, Trainings())


def test_a_steps_time_is_the_median_of_each_stage_without_its_slow_start():
    def rows(index: int, steps: int, rates: list[float]) -> list[dict[str, Any]]:
        width = steps // len(rates)
        return [
            {"stage_index": index, "step": width * (place + 1), "pictures_per_s": rate}
            for place, rate in enumerate(rates)
        ]

    assert seconds_per_step(rows(0, 30, [0.1, 8.0, 8.0]), 4) == 0.5
    assert seconds_per_step([*rows(0, 30, [8.0] * 3), *rows(1, 10, [2.0])], 4) == (30 * 0.5 + 10 * 2.0) / 40
    assert seconds_per_step([], 4) is None


def recorded(grid, path):
    return dataclasses.replace(grid, record=str(path))


def test_a_row_in_the_record_is_not_trained_in_another_folder_and_its_table_is_the_same(grid, tmp_path, monkeypatch):
    data = Path(grid.source.partition(":")[2])
    monkeypatch.setenv("RTDA_DATA", str(data.parent))
    file, told = tmp_path / "kept" / "rows.csv", []
    first = run(recorded(grid, file), tmp_path / "one", Trainings())
    text = file.read_text()
    assert str(data.parent) not in text and "here/last.pth" not in text
    assert "$RTDA_DATA" in text and len(text.splitlines()) == 3
    again = Trainings()
    second = run(recorded(grid, file), tmp_path / "two", again, told)
    assert not again.made and sum(f"found in {file}" in line for line in told) == 2
    assert second["rows"] == first["rows"] and file.read_text() == text
    relabelled = dataclasses.replace(grid, rows=(*grid.rows[:1], dataclasses.replace(grid.rows[1], set=("steps=7",))))
    run(recorded(relabelled, file), tmp_path / "three", again)
    assert [folder for folder, _ in again.made] == ["light-thin-seed0"], "another plan is another row"
    run(recorded(dataclasses.replace(grid, seeds=(1,)), file), tmp_path / "four", again)
    assert len(again.made) == 3 and len(file.read_text().splitlines()) == 6


def test_a_row_whose_process_ended_before_the_record_had_it_is_written_there_later(grid, tmp_path):
    file = tmp_path / "rows.csv"
    file.touch()  # of a process that ended before its first row
    run(recorded(grid, file), tmp_path / "one", Trainings())
    whole = file.read_text()
    assert len(whole.splitlines()) == 3
    file.write_text("".join(whole.splitlines(keepends=True)[:2]))
    again = Trainings()
    run(recorded(grid, file), tmp_path / "one", again)
    assert not again.made and file.read_text() == whole


def test_a_row_that_another_process_is_writing_is_waited_for(grid, tmp_path):
    file = tmp_path / "rows.csv"
    run(recorded(grid, file), tmp_path / "one", Trainings())
    whole = file.read_text()

    def write_rest():
        with file.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            os.truncate(file, len(whole) - 100)
            half.set()
            time.sleep(0.2)
            stream.write(whole[-100:])

    half = threading.Event()
    writer = threading.Thread(target=write_rest)
    writer.start()
    assert half.wait(PATIENCE_S)
    again = Trainings()
    run(recorded(grid, file), tmp_path / "two", again)
    writer.join()
    assert not again.made


def test_a_row_that_a_full_disk_cuts_off_spoils_no_other(grid, tmp_path):
    file, kept = tmp_path / "rows.csv", resource.getrlimit(resource.RLIMIT_FSIZE)
    run(recorded(grid, file), tmp_path / "one", Trainings())
    whole = file.read_text()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, kept[1]))
    try:
        with pytest.raises(FileAccessError, match=r"rows\.csv"):
            GridRecord(file, Places(tmp_path)).add(
                "tiny", grid.runs()[0], json.loads((tmp_path / "one/source-only-seed0/scores.json").read_text())
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_text() == whole


def test_a_record_of_an_earlier_version_goes_on_in_its_own_columns(grid, tmp_path):
    file = tmp_path / "rows.csv"
    run(recorded(grid, file), tmp_path / "one", Trainings())
    rows = list(csv.reader(file.read_text().splitlines()))
    assert rows[0][-1] == "chosen"
    with file.open("w", newline="") as earlier:
        csv.writer(earlier, lineterminator="\n").writerows(row[:-1] for row in rows)
    run(recorded(dataclasses.replace(grid, seeds=(1,)), file), tmp_path / "two", Trainings())
    assert {len(row) for row in csv.reader(file.read_text().splitlines())} == {len(rows[0]) - 1}
    again = Trainings()
    run(recorded(dataclasses.replace(grid, seeds=(0, 1)), file), tmp_path / "three", again)
    assert not again.made


def test_a_record_that_is_none_is_named_with_its_line(grid, tmp_path):
    file = tmp_path / "rows.csv"
    run(recorded(grid, file), tmp_path / "one", Trainings())
    file.write_text(file.read_text().replace('""miou"": 50.0', '""miou"": 50.0,,', 1))
    with pytest.raises(DataError, match=r"rows\.csv, line 2, is no row") as caught:
        run(recorded(grid, file), tmp_path / "two", Trainings())
    assert "record=" in caught.value.hint
    file.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="line 2"):
        run(recorded(grid, file), tmp_path / "two", Trainings())


def test_what_a_run_ranks_first_is_scored_beside_its_last_network(grid, tmp_path):
    class Better(Scored):
        def to_dict(self):
            return {**super().to_dict(), "miou": 54.0}

    def train(run, folder, resume):
        (folder / "last.pth").touch()
        chosen = {"Source only": None, "Light&Thin": "teacher"}[run.row.label]
        return TrainResult(folder, 0.5, "train @1", 0.5, 1.0, {"chosen": chosen} if chosen else None)

    record = tmp_path / "rows.csv"
    results = train_grid(
        recorded(grid, record),
        tmp_path / "grid",
        score=lambda path, test: Better() if path.name == "best.pth" else Scored(),
        train=train,
    )
    source, light = results["rows"]
    assert light["best_miou"]["mean"] == 54.0 and light["miou"]["mean"] == 50.0
    assert source["best_miou"]["mean"] is None and light["seeds"]["0"]["chosen"] == "teacher"
    table = (tmp_path / "grid/table.md").read_text()
    assert "| ranked best |" in table and "| 50.0 | 54.0 |" in table and "without labels" in table
    told = "\n".join(notes({**results, "check": "folder:five"}))
    assert "by the labels of folder:five" in told and "without labels" not in told
    head, *lines = csv.reader((tmp_path / "grid/table.csv").read_text().splitlines())
    assert [line[head.index("best_miou")] for line in lines if line[0] == "measured"] == ["", "54.0"]
    again = train_grid(recorded(grid, record), tmp_path / "other", score=lambda path, test: Scored(), train=None)
    assert again["rows"][1]["best_miou"]["mean"] == 54.0
    assert again["rows"][1]["seeds"]["0"]["chosen"] == "teacher"
