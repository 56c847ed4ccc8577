"""What is read is never written over, however it is spelled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtda_deploy.errors import ConfigError
from rtda_deploy.overwriting import entries, refuse_overwriting, same_place


@pytest.fixture()
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``data/images/a.png``, standing beside ``data``."""
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes(b"a")
    return images


@pytest.mark.parametrize("read", ["data/images/a.png", "data/images", "data"])
def test_an_input_is_found_under_any_name(data: Path, read: str) -> None:
    os.symlink(data / "a.png", "soft.png")
    os.link(data / "a.png", "hard.png")
    os.symlink(data, "linked")
    for output in ("data/images/a.png", "data/../data/images/a.png", data / "a.png", "soft.png", "hard.png"):
        with pytest.raises(ConfigError, match=r"--save would write over .*, which is --source") as caught:
            refuse_overwriting([("--save", output)], {read: "--source"})
        assert str(output) in caught.value.message and "another name" in caught.value.hint
    with pytest.raises(ConfigError, match=r"linked/a\.png"):
        refuse_overwriting([("--save", "linked/a.png")], {read: "--source"})


def test_a_linked_folder_is_looked_into_and_a_loop_of_links_ends(data: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "b.png").write_bytes(b"b")
    os.symlink(tmp_path / "store", data / "more")
    os.symlink(tmp_path / "data", data / "loop")
    with pytest.raises(ConfigError, match=r"b\.png"):
        refuse_overwriting([("--save", "store/b.png")], {"data": "--source"})


def test_what_is_not_there_or_not_read_may_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    refuse_overwriting([("--save", "old.mp4"), ("--masks", "data/images/new.png")], {"data": "--source"})
    refuse_overwriting([("--save", "old.mp4")], {"no such file": "--source", "rtsp://host/a": "--camera"})


def test_places_and_entries(data: Path) -> None:
    assert same_place("data", data.parent) and same_place("not/there", "not/../not/there")
    assert not same_place("data", data)
    assert list(entries("data/images", ".PNG".lower())) == [Path("data/images/a.png")] and not list(entries("no", ""))
