"""Addresses of data sets whose kind was left away, and what they read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest

from rtda_deploy.errors import ConfigError
from rtda_training.data.address import DataAddress, with_kind
from rtda_training.plan import load_plan
from rtda_training.readers import files_read, open_unlabelled


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with footage and pictures by name alone."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "drive.mp4",
        "run.mcap",
        "odd:name.mkv",
        "what?.mp4",
        "notes.txt",
        "drives/2.mkv",
        "drives/10.mp4",
        "pictures/a/1.png",
        "ros/metadata.yaml",
        "ros/ros_0.db3",
        "mixed/1.mp4",
        "mixed/2.mp4",
        "mixed/still.jpg",
        "empty/readme.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("drive.mp4", "video:drive.mp4"),
        ("./drive.mp4?every=2s&split=val", "video:./drive.mp4?every=2s&split=val"),
        ("gone.mp4", "video:gone.mp4"),
        ("odd:name.mkv", "video:odd:name.mkv"),
        ("what?.mp4", "video:what?.mp4"),
        ("video:what?.mp4", "video:what?.mp4"),
        ("video:drive.mp4,drives/2.mkv", "video:drive.mp4,drives/2.mkv"),
        ("drive.mp4,drives/2.mkv", "video:drive.mp4,drives/2.mkv"),
        ("drives/*.mp4", "video:drives/*.mp4"),
        ("drives", "video:drives"),
        ("drives/?count=9", "video:drives/?count=9"),
        ("drive.mp4?hold_back=20%&list=a%2526b", "video:drive.mp4?hold_back=20%&list=a%2526b"),
        ("run.mcap?topic=/front", "bag:run.mcap?topic=/front"),
        ("ros", "bag:ros"),
        ("pictures", "folder:pictures"),
        ("pictures?list=a.txt", "folder:pictures?list=a.txt"),
        ("folder:mixed", "folder:mixed"),
        ("toytown:source?count=4", "toytown:source?count=4"),
    ],
)
def test_the_kind_is_told_by_suffix_or_folder(typed: str, meant: str) -> None:
    address = DataAddress.parse(typed)
    assert str(address) == meant == with_kind(typed)
    assert DataAddress.parse(meant) == address


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("mixed", "mixed holds 2 videos and 1 picture: which are meant?|type video:mixed or folder:mixed"),
        ("empty", "empty holds no pictures, videos or bags|type kind:PATH"),
        ("notes.txt", "'notes.txt' names no data set: a file of this kind is no footage|.mp4"),
        ("nothing", "'nothing' names no data set|kind:path"),
        ("", "'' names no data set|kind:path"),
        ("toytown:", "'toytown:' names no data set|kind:path"),
        ("drive.mp4?every", "cannot read 'every'|key=value"),
        ("drive.mp4?every=1s&every=2s", "given twice|once"),
        ("drive.mp4?split=dev", "split 'dev' is unknown|train, val"),
    ],
)
def test_what_tells_no_kind_is_refused_with_what_to_type(typed: str, said: str) -> None:
    message, hint = said.split("|")
    with pytest.raises(ConfigError) as caught:
        DataAddress.parse(typed)
    assert message in caught.value.message and hint in caught.value.hint
    assert with_kind(typed) == typed and files_read(typed) == []


def test_a_mistyped_kind_is_still_a_kind() -> None:
    with pytest.raises(ConfigError, match="'toytwn' is unknown") as caught:
        open_unlabelled("toytwn:target")
    assert "toytown" in caught.value.hint and "video" in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("drive.mp4?every=2s", ["drive.mp4"]),
        ("video:drive.mp4,drives", ["drive.mp4", "drives"]),
        ("video:drives/*?list=names.txt", ["drives/10.mp4", "drives/2.mkv", "names.txt"]),
        ("gone.mp4", ["gone.mp4"]),
        ("ros", ["ros"]),
        ("pictures", ["pictures"]),
        ("toytown:source", []),
    ],
)
def test_what_is_read_is_known_before_it_is_opened(typed: str, read: List[str]) -> None:
    assert [os.path.relpath(path) for path in files_read(typed)] == read


def test_a_plan_has_the_full_kind() -> None:
    plan = load_plan("fda-light", ["val=pictures"], source="toytown:source", target="drive.mp4?every=2s")
    assert (plan.source, plan.target, plan.val) == ("toytown:source", "video:drive.mp4?every=2s", "folder:pictures")
