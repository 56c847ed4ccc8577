"""The benchmark of bulk labels: its plain loop makes the same masks as label, and its rate is that of the shards."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from runtime.models import write_model

pytest.importorskip("av")
pytest.importorskip("onnx")


def pictures(shard: Path) -> Dict[str, bytes]:
    """PNGs of a shard by kind and number of the frame; 25 frames a second."""
    found = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            kind, _, name = member.name.rpartition("/")
            if member.name.endswith(".png"):
                stem = name[: -len(".png")]
                number = round(float(stem[:-1]) * 25) if stem.endswith("s") else int(stem)
                found[f"{kind.partition('/')[0]}/{number}"] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return found


def test_the_plain_loop_does_what_label_does(benchmark_module: Callable[[str], Any], tmp_path: Path) -> None:
    from rtda_runtime.fleet.labelling import label_footage
    from rtda_runtime.fleet.request import LabelRequest

    fleet = benchmark_module("fleet")
    model = write_model(tmp_path / "model.onnx")
    drives = fleet.make_videos(tmp_path / "drives", 1, 5, (64, 40))
    fleet.plain_loop(model, drives, tmp_path / "plain" / "shards")
    label_footage(LabelRequest(model, (str(drives),), tmp_path / "out", layout="tar", threads=1))
    (ours,), (plain,) = (list((tmp_path / name / "shards").iterdir()) for name in ("out", "plain"))
    assert pictures(ours) == pictures(plain) and len(pictures(plain)) == 10


def test_the_rate_is_from_the_first_shard_to_the_last(benchmark_module: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for place, seconds in enumerate((100, 102, 104)):
        path = tmp_path / "shards" / f"{place}.tar"
        path.touch()
        os.utime(path, (seconds, seconds))
    assert benchmark_module("fleet").frames_a_second(tmp_path, 10) == pytest.approx(20 / 4)
