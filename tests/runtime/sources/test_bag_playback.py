"""Bags where a camera is asked for: played at their own times, or as fast as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import List

import numpy as np
import pytest
from runtime.sources.bags import PERIOD_NS, drive, picture, write_mcap, write_ros1, write_ros2

from rtda_deploy.errors import SourceError
from rtda_runtime import Pipeline
from rtda_runtime.sources.base import Frame
from rtda_runtime.sources.footage.playback import Playback, parse_playback
from rtda_runtime.sources.kinds import open_source, source_files, source_kind

TOPICS = {"/front": drive(4), "/rear": drive(6, "jpeg")}


@pytest.fixture(params=["ros1", "sqlite3", "mcap folder", "mcap"])
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "ros1":
        return write_ros1(tmp_path / "run.bag", TOPICS)
    if request.param == "mcap":
        return write_mcap(tmp_path / "run.mcap", TOPICS)
    return write_ros2(tmp_path / "run", TOPICS, request.param.split()[0])


def played(address: str) -> List[Frame]:
    with open_source(address) as source:
        frames = []
        while (frame := source.read()) is not None:
            frames.append(frame)
        assert source.read() is None
        return frames


def test_a_topic_is_played_with_its_times(bag: Path) -> None:
    frames = played(f"bag:{bag}?topic=/front&speed=0")
    assert [frame.recorded_ns for frame in frames] == [number * PERIOD_NS for number in range(4)]
    assert [frame.sequence for frame in frames] == list(range(4))
    assert all(np.array_equal(frame.image, picture(frame.sequence)) for frame in frames)


def test_a_bag_is_known_by_its_name_and_plays_at_its_own_times(bag: Path) -> None:
    assert source_kind(str(bag)).name == "recording"
    address, speed = parse_playback(str(bag))
    assert (address.kind, speed) == ("bag", 1.0)
    with pytest.raises(SourceError, match="has 2 topics of pictures"):
        open_source(str(bag))
    with open_source(f"{bag}?topic=rear") as source:
        assert isinstance(source, Playback) and source.paced and source.num_frames == 6 and source.fps == 10


def test_the_files_of_a_bag_are_known(bag: Path) -> None:
    """So that no output is written over them."""
    expected = sorted(bag.iterdir()) if bag.is_dir() else [bag]
    for address in (str(bag), f"bag:{bag}?topic=/front"):
        assert sorted(source_files(address)) == expected


def test_a_part_of_a_bag_is_segmented(tmp_path: Path, model_path: Path) -> None:
    path = write_mcap(tmp_path / "run.mcap", {"/front": drive(6, "h264")})
    address = f"{path}?from=0.2s&to=0.5s&speed=0"
    with Pipeline.open(str(model_path), source=address, policy="every") as pipeline:
        results = list(pipeline)
    assert [result.recorded_ns for result in results] == [200_000_000, 300_000_000, 400_000_000]


def test_a_bag_is_opened_in_one_thread_and_read_in_another(bag: Path, model_path: Path) -> None:
    address = f"bag:{bag}?topic=/front&speed=0"
    with Pipeline.open(str(model_path), source=address, policy="every") as pipeline:
        results = list(pipeline)
    assert [result.recorded_ns for result in results] == [number * PERIOD_NS for number in range(4)]
