"""Twenty times kill -9, at any moment: the run that goes on ends bit by bit where an undisturbed one does."""

from __future__ import annotations

import csv
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from cli.commandline import files_below
from system.conftest import Process, tiny_training

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]  # 2 minutes where nothing else runs

# Stages and steps of each: an adversary; two stages; a teacher (EMA) with mixing; labels written between stages.
RUNS: Dict[str, Tuple[int, int]] = {
    "rtda-light-thin": (1, 8),
    "rtda-after-source": (2, 4),
    "classmix": (1, 8),
    "ssl-1": (2, 4),
}
KILLS = 5  # of each
_MOST_RUNS = 4  # one that ended before its last kill is done again, from the start, and killed sooner
_CHANGES = ("pictures_per_s",)  # the only column that may differ


class Kill(NamedTuple):
    """What a killed process left.

    Attributes:
        in_save: A checkpoint was being written.
        finished: Content and time of each ``stage-*.pth`` that ``last.pth`` is past.
    """

    in_save: bool
    finished: Dict[str, Tuple[bytes, int]]


class Killed(NamedTuple):
    """A run in pieces: its folder, and the kills that it went through."""

    folder: Path
    kills: List[Kill]


class Story(NamedTuple):
    """An undisturbed run and the killed ones of the same recipe."""

    whole: Path
    killed: List[Killed]

    @property
    def kills(self) -> List[Kill]:
        """Of all runs."""
        return [kill for run in self.killed for kill in run.kills]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Dict[str, Story]:
    """Every recipe, two at a time: a process waits for its disk most of the time."""
    base = tmp_path_factory.mktemp("kills")
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda recipe: _story(recipe, base / recipe, tiny_data), RUNS)
        return dict(zip(RUNS, found))


def _story(recipe: str, folder: Path, data: Path) -> Story:
    folder.mkdir()
    random_numbers = random.Random(recipe)
    whole = _Training(recipe, data, folder / "whole")
    took_s = whole.to_its_end()
    runs: List[Killed] = []
    while sum(len(run.kills) for run in runs) < KILLS:
        assert len(runs) < _MOST_RUNS, f"{recipe} ends before it is killed"
        training = _Training(recipe, data, folder / f"parts-{len(runs)}")
        kills: List[Kill] = []
        missing = KILLS - sum(len(run.kills) for run in runs)
        for how in ["save", "stage", *["timer"] * KILLS][:missing]:
            # Seven pieces of a run, on average, for six processes: the last one has some work left.
            longest_s = 2.0 * took_s / (KILLS + 2) / (1 + len(runs))
            if not training.killed(how, random_numbers.uniform(0.0, longest_s)):
                break
            kills.append(training.what_is_left())
        training.to_its_end()
        runs.append(Killed(training.out, kills))
    return Story(whole.out, runs)


class _Training:
    """One run folder, and the processes that work on it, one after the other."""

    def __init__(self, recipe: str, data: Path, out: Path) -> None:
        self._stages, steps = RUNS[recipe]
        settings = (f"steps={steps}", "precision=fp32", "val_every=1", "val_pictures=1", "optimizer.warmup_steps=0")
        self._words = [*tiny_training(data, out, *settings, recipe=recipe), "--resume", "auto"]
        self.out = out

    def to_its_end(self) -> float:
        """Run it; gives the seconds between its first word and its end."""
        process = self._started()
        begun = time.monotonic()
        ended = process.end()
        assert ended.code == 0, ended.err
        return time.monotonic() - begun

    def killed(self, how: str, after_s: float) -> bool:
        """Kill a process by timer, while it saves, or after it left a stage; False where it ended before.

        Args:
            how: ``timer``, ``save`` or ``stage``.
            after_s: Seconds from its first word, or from the moment that a stage was left.
        """
        process = self._started()
        try:
            if how == "save":
                process.wait_until(lambda: bool(_being_written(self.out)), "save")
            if how == "stage" and self._stages > 1:
                process.wait_until(lambda: bool(list(self.out.glob("stage-*.pth"))), "stage")
                after_s /= 2.0
            if how != "save":
                time.sleep(after_s)
            process.send(signal.SIGKILL)
            return process.end().code == -signal.SIGKILL
        finally:
            process.stop()

    def what_is_left(self) -> Kill:
        """Look at the folder before the next process does."""
        from rtda_training.checkpoint import read_checkpoint

        last = self.out / "last.pth"
        finished: Dict[str, Tuple[bytes, int]] = {}
        if last.is_file():
            state = read_checkpoint(last).training
            stages = [stage["name"] for stage in state["plan"]["stages"]]
            past = stages[: state["stage_index"] + bool(state["done"])] if self._stages > 1 else []
            for name in past:
                path = self.out / f"stage-{name}.pth"
                finished[path.name] = (path.read_bytes(), path.stat().st_mtime_ns)
        return Kill(bool(_being_written(self.out)), finished)

    def _started(self) -> Process:
        self.out.parent.mkdir(exist_ok=True)
        process = Process(list(self._words), self.out.parent)
        process.wait_until(lambda: re.search(r"^run     ", process.err, re.MULTILINE) is not None, "first word")
        return process


def _being_written(out: Path) -> List[Path]:
    """Checkpoints under their temporary names, which hold something already."""
    return [path for path in out.glob(".*.part.pth") if path.stat().st_size > 0]


def _leaves(value: Any, path: str = "") -> Iterator[Tuple[str, Any]]:
    """Every tensor and plain value below nested containers, by its path."""
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}/{place}")
    else:
        yield path, value


def _rows(folder: Path) -> List[Dict[str, str]]:
    with (folder / "results.csv").open(newline="") as stream:
        return [{key: value for key, value in row.items() if key not in _CHANGES} for row in csv.DictReader(stream)]


def test_twenty_kills_of_which_some_fell_into_a_save_and_some_between_stages(stories: Dict[str, Story]) -> None:
    kills = [kill for story in stories.values() for kill in story.kills]
    assert len(kills) == KILLS * len(RUNS) == 20
    assert sum(kill.in_save for kill in kills) >= len(RUNS)
    assert any(kill.finished for kill in kills)


@pytest.mark.parametrize("recipe", RUNS)
def test_the_last_checkpoint_is_bit_by_bit_that_of_an_undisturbed_run(stories: Dict[str, Story], recipe: str) -> None:
    import torch

    from rtda_training.checkpoint import read_checkpoint

    story = stories[recipe]
    whole = read_checkpoint(story.whole / "last.pth")
    expected = dict(_leaves({"weights": whole.weights, "training": whole.training, "spec": whole.spec.to_json()}))
    assert any(isinstance(value, torch.Tensor) for key, value in expected.items() if key.startswith("/training/run/"))
    for run in story.killed:
        last = read_checkpoint(run.folder / "last.pth")
        found = dict(_leaves({"weights": last.weights, "training": last.training, "spec": last.spec.to_json()}))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            same = torch.equal(value, found[key]) if isinstance(value, torch.Tensor) else value == found[key]
            assert same, f"{key} differs after {len(run.kills)} kills"


@pytest.mark.parametrize("recipe", RUNS)
def test_every_other_file_is_that_of_an_undisturbed_run_too(stories: Dict[str, Story], recipe: str) -> None:
    story = stories[recipe]
    kept = [name for name in files_below(story.whole) if not name.startswith("tensorboard")]
    same = [name for name in kept if name.endswith((".pth", ".png", ".json")) and name != "last.pth"]
    assert "best.pth" in same and "config.toml" in kept
    for run in story.killed:
        assert [name for name in files_below(run.folder) if not name.startswith("tensorboard")] == kept, "no leftovers"
        for name in same:
            assert (run.folder / name).read_bytes() == (story.whole / name).read_bytes(), name


@pytest.mark.parametrize("recipe", RUNS)
def test_no_step_stands_twice_in_the_log(stories: Dict[str, Story], recipe: str) -> None:
    story = stories[recipe]
    expected = _rows(story.whole)
    steps = [(row["stage"], row["step"]) for row in expected]
    assert len(set(steps)) == len(steps) and len(steps) >= 8
    for run in story.killed:
        assert _rows(run.folder) == expected


@pytest.mark.parametrize("recipe", [recipe for recipe, (stages, _) in RUNS.items() if stages > 1])
def test_a_finished_stage_is_never_done_again(stories: Dict[str, Story], recipe: str) -> None:
    for run in stories[recipe].killed:
        for kill in run.kills:
            for name, (content, written_ns) in kill.finished.items():
                path = run.folder / name
                assert path.stat().st_mtime_ns == written_ns, f"{name} was written again"
                assert path.read_bytes() == content
