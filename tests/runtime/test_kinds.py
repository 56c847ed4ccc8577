"""The tables of sources and sinks: a further kind is one module and one row, and the command line finds it by itself.

``toy_kinds.py`` has them; what Python programs see of them is in ``sources/test_source_kinds.py``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest
from cli.commandline import Outcome, assert_refused, environment
from runtime.models import write_model

from rtda_runtime.sinks.kinds import SINK_KINDS, SinkKind, sink_kind

_WITH_TOYS = """
import json, sys
from rtda_runtime.sinks.kinds import SINK_KINDS
from rtda_runtime.sources.kinds import SOURCE_KINDS
from runtime.toy_kinds import BEACON, BREAKING, TALLY, THERMAL
SOURCE_KINDS.append(THERMAL)
SINK_KINDS.extend([TALLY, BEACON, BREAKING])
from cli.commandline import invoke
print(json.dumps([invoke(*words.split()) for words in sys.argv[1:]]))
"""
_FAST = "run a.onnx --camera test://bars?fps=0&size=96x64&frames=3"
_RUN = "run a.onnx --camera thermal://0 --no-reconnect --policy every --save frames.tally --publish beacon:garage"
_COMMANDS = (
    "run --help",
    "doctor --json",
    "cameras --json",
    _RUN,
    f"{_FAST} --save it.breaks --json",
    f"{_FAST} --save a.avi",
    f"{_FAST} --publish carrier-pigeon",
    f"{_FAST} --save x.tally --publish mcap:x.tally",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toys")


@pytest.fixture(scope="module")
def said(folder: Path) -> Dict[str, Outcome]:
    """What the commands say in a program that has added the rows, in a folder with a model."""
    write_model(folder / "a.onnx")
    env = environment(PYTHONPATH=os.pathsep.join(sys.path), COLUMNS="200", TERM="dumb")
    program = [sys.executable, "-c", _WITH_TOYS, *_COMMANDS]
    done = subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {words: Outcome(*outcome) for words, outcome in zip(_COMMANDS, json.loads(done.stdout))}


def test_help_names_every_kind(said: Dict[str, Outcome]) -> None:
    shown = re.sub(r"[\s│]+", " ", said["run --help"].out)
    for option, example in (("camera", "thermal://0"), ("save", "frames.tally"), ("publish", "beacon:garage")):
        assert re.search(rf"--{option}\b[^─]*, {re.escape(example)}", shown), option


def test_a_run_opens_them_and_says_what_they_wrote(said: Dict[str, Outcome], folder: Path) -> None:
    outcome = said[_RUN]
    assert outcome.code == 0, outcome.err
    assert re.search(r"^camera  thermal://0 .*^publish light at garage$", outcome.err, re.MULTILINE | re.DOTALL)
    assert "wrote frames.tally" in outcome.out
    assert (folder / "frames.tally").read_text().split() == ["0", "1", "2", "3", "4"]
    assert {"labels", "mask", "overlay", "statistics"} <= set((folder / "garage").read_text().split())


def test_doctor_and_cameras_look_for_them(said: Dict[str, Outcome]) -> None:
    found = {finding["name"]: finding for finding in said["doctor --json"].json["findings"]}
    assert found["thermal cameras"]["detail"] == "one, warm" and found["runtime.toy_kinds"]["state"] == "ok"
    assert {"av", "mcap"} <= set(found)
    assert "Heat" in [camera["name"] for camera in said["cameras --json"].json["cameras"]]


@pytest.mark.parametrize(
    ("command", "error", "fix"),
    [
        (f"{_FAST} --save a.avi", "--save does not know 'a.avi'", "overlay.mp4, .*frames.tally, it.breaks"),
        (f"{_FAST} --publish carrier-pigeon", "does not know 'carrier-pigeon'", "mcap:drive.mcap, .*beacon:garage"),
        (f"{_FAST} --save x.tally --publish mcap:x.tally", "both write to x.tally", "place of its own"),
    ],
)
def test_errors_list_every_kind(said: Dict[str, Outcome], command: str, error: str, fix: str) -> None:
    assert_refused(said[command], 2, error, fix)


def test_a_signal_wins_over_a_failed_sink_whose_error_is_still_told(said: Dict[str, Outcome]) -> None:
    outcome = said[f"{_FAST} --save it.breaks --json"]
    assert outcome.code == 130 and outcome.said["error"] == "it broke" and outcome.json["stopped"] is True


@pytest.mark.parametrize("kind", SINK_KINDS, ids=lambda kind: kind.name)
def test_each_kind_is_told_by_its_examples_and_on_a_page(kind: SinkKind) -> None:
    root = Path(__file__).parents[2]
    pages = "".join(path.read_text(encoding="utf-8") for path in [root / "README.md", *(root / "docs").glob("*.md")])
    for example in filter(None, kind.example.split(", ")):
        assert sink_kind(kind.option, example) is kind
    assert f"--{kind.option}" in pages and (kind.option != "publish" or f"--publish {kind.example}" in pages)
