from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest
from runtime.models import write_model

from rtda_runtime import newest_model


def _touch(path: Path, age_s: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (1_700_000_000 - age_s, 1_700_000_000 - age_s))
    return path


def test_the_newest_model_below_runs_or_here_is_taken(tmp_path: Path) -> None:
    _touch(tmp_path / "runs" / "demo" / "a" / "model.onnx", age_s=20)
    newest = _touch(tmp_path / "other.onnx", age_s=10)
    _touch(tmp_path / "runs" / "demo" / "b" / "model.onnx", age_s=30)
    roots = (tmp_path / "runs", tmp_path)
    assert newest_model(roots, loads=lambda path: True) == newest


def test_an_engine_comes_before_a_newer_onnx(tmp_path: Path) -> None:
    engine = _touch(tmp_path / "model.fp16.engine", age_s=99)
    _touch(tmp_path / "model.onnx", age_s=1)
    assert newest_model([tmp_path], loads=lambda path: True) == engine


def test_what_does_not_load_here_is_passed_over(tmp_path: Path) -> None:
    good = write_model(tmp_path / "good.onnx")
    os.utime(good, (1_600_000_000, 1_600_000_000))
    _touch(tmp_path / "empty.onnx", age_s=0)
    (tmp_path / "torn.onnx").write_bytes(good.read_bytes()[:100])
    write_model(tmp_path / "foreign.onnx", with_spec=False)
    (tmp_path / "net.engine").write_bytes(b"ftrt")
    assert newest_model([tmp_path]) == good


def test_hidden_folders_and_environments_are_not_searched(tmp_path: Path) -> None:
    for folder in (".venv/lib", ".git", "venv", "lib/site-packages/onnx", "node_modules"):
        _touch(tmp_path / folder / "model.onnx", age_s=1)
    _touch(tmp_path / ".model.1234.part.onnx", age_s=1)
    assert newest_model([tmp_path], loads=lambda path: True) is None


def test_nothing_to_find_is_none(tmp_path: Path) -> None:
    assert newest_model([tmp_path, tmp_path / "runs"]) is None


def test_the_usual_roots_are_runs_and_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "runs" / "demo" / "1" / "model.onnx", age_s=1)
    monkeypatch.chdir(tmp_path)
    assert newest_model(loads=lambda path: True) == Path("runs/demo/1/model.onnx")


def test_the_search_is_bounded(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"abcdefgh")
    _touch(deep / "model.onnx", age_s=1)
    assert newest_model([tmp_path], loads=lambda path: True) is None

    tried: List[Path] = []
    for number in range(30):
        _touch(tmp_path / f"{number}.onnx", age_s=number)
    assert newest_model([tmp_path], loads=lambda path: bool(tried.append(path))) is None
    assert len(tried) == 8

    for number in range(5):
        _touch(tmp_path / "far" / f"{number}" / "model.engine", age_s=number)
    assert newest_model([tmp_path], loads=lambda path: path.suffix == ".engine", most_entries=10) is None


def test_links_that_lead_nowhere_or_in_circles_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "gone.onnx").symlink_to(tmp_path / "nowhere.onnx")
    (tmp_path / "circle").symlink_to(tmp_path)
    good = _touch(tmp_path / "model.onnx", age_s=1)
    assert newest_model([tmp_path], loads=lambda path: True) == good
