"""The programs of docs/embedding.md, as they stand there."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any, List

import cv2
import numpy as np
import pytest
from runtime.models import write_model

from rtda_runtime.sources.synthetic import bars

PAGE = Path(__file__).resolve().parents[3] / "docs/embedding.md"
BLOCKS: List[Any] = [
    pytest.param(block, id=title)
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    for block in re.findall(r"```python\n(.*?)```", text, re.S)
]


@pytest.fixture()
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("model.onnx"))
    write_model(Path("adapted.onnx"), seed=1)
    clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 25.0, (96, 64))
    for number in range(12):
        clip.write(bars(number, (96, 64)))
    clip.release()


@pytest.mark.parametrize("program", BLOCKS)
def test_the_program_runs_as_it_stands(program: str, standing: None, capsys: Any, caplog: Any) -> None:
    before = set(threading.enumerate())
    with caplog.at_level(logging.WARNING):
        found: Any = {}
        exec(compile(program, str(PAGE), "exec"), found)
    assert set(threading.enumerate()) <= before, "it leaves no thread behind"
    assert not caplog.records
    said = capsys.readouterr().out
    expected = {
        "drive(result)": "obstacles ahead",
        "latest(": "steer by frame",
        "aiter()": "12\n",
        "compare=": "they differ on 0.",
        "shadow=": "alike 0.",
        '"front"': "right ",
        "in_flight=2": "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\nframe 0 road 0.",
        "segment_all": "frame 11 road 0.",
        "class Shares": "done",
        "class_shares": "['drivable', 'obstacle', 'other']",
        'stats["fps"]': "(480, 640)",
    }
    for part, word in expected.items():
        assert part not in program or word in said, said
    if "out=mask" in program:
        assert isinstance(found["mask"], np.ndarray) and 0.0 <= found["road"] <= 1.0
    if "result.plot(" in program:
        assert cv2.imread("seen.jpg").shape == found["result"].frame.shape
    if "drive.mp4" in program:
        assert cv2.VideoCapture("drive.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 12


def test_every_way_of_embedding_has_its_program() -> None:
    assert len(BLOCKS) == 12
    assert max(len(param.values[0].splitlines()) for param in BLOCKS) <= 18
