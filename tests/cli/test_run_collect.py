"""``rtda-deploy run --collect``: what is typed, what is kept and told, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
from cli.commandline import Outcome, assert_refused, files_below, invoke
from runtime.models import write_model
from runtime.shift.monitored import write_monitored

CAMERA = "test://bars?fps=50&frames=30&size=96x64"
ROOM = ("--collect-limit", "free=0,control=0")


@pytest.fixture(autouse=True)
def standing(here: Path) -> None:
    """In a folder with two small networks."""
    write_model(Path("a.onnx"))
    write_model(Path("b.onnx"), seed=1)


def run(*words: Any, camera: str = CAMERA) -> Outcome:
    """Told of once, at its end, however slow the machine is."""
    return invoke("run", "a.onnx", "--camera", camera, "--report-every", "3600", *words)


def lines_of(folder: str) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "frames.jsonl").read_text(encoding="utf-8").splitlines()]


def test_frames_are_collected_with_a_second_look_and_told_of() -> None:
    limits = ("--collect-limit", "minute=240", "--collect-limit", "gap=0.1s,free=0,control=0")
    outcome = run("--collect", "hard", *limits, "--json")
    assert outcome.code == 0, outcome.err
    told = outcome.json
    sink, lines = told["sinks"]["collect"], lines_of("hard")
    assert told["wrote"] == ["hard"] and sink["kept"] == sink["frames"] == len(lines) > 0
    assert sink["written"] + sink["dropped"] == told["frames"] > 0
    assert sink["bytes"] == sum(path.stat().st_size for path in Path("hard").rglob("*.*g") if path.is_file())
    for line in lines:
        assert line["model"] == "a.onnx" and len(line["sha256"]) == 64 and line["source"].startswith("test://bars")
        assert {"novelty", "disagreement", "unsure", "flip", "score"} == set(line["scores"])
        assert (Path("hard") / "confidence" / f"{line['id']}.png").is_file()


def test_the_summary_and_a_check_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("--collect", "hard", *ROOM)
    assert re.search(r"^collect +\d+ +\d+ +kept 1, replaced 0; 1 frames, [\d.]+ MB in hard", shown.out, re.MULTILINE)
    assert "collect hard   0 frames there" in shown.err
    assert "collect hard   1 frames there" in run("--collect", "hard", *ROOM).err
    checked = invoke("data", "check", "folder:hard", "--json")
    assert checked.code == 0 and checked.json["pictures"] >= 1


def test_two_networks_and_an_expression_that_needs_confidence() -> None:
    when = "disagreement > 1% and confidence < 0.99 and share(road) >= 0"
    outcome = run("--collect", "hard", *ROOM, "--compare", "b.onnx", "--collect-when", when, "--json")
    assert outcome.code == 0, outcome.err
    (line,) = lines_of("hard")
    assert (line["why"], line["when"]) == ("asked", when) and line["scores"]["compare"] > 0.01


def test_a_monitored_network_says_its_confidence_and_the_loop_computes_none_for_each_pixel() -> None:
    write_monitored(Path("a.onnx"), blocks=60)
    told = run("--collect", "hard", *ROOM, "--collect-when", "confidence > 0", "--json").json
    assert told["sinks"]["collect"]["kept"] == 1 and "confidence" not in told
    write_model(Path("a.onnx"))
    told = run("--collect", "plain", *ROOM, "--collect-when", "confidence > 0", "--json").json
    assert told["sinks"]["collect"]["kept"] == 1 and 0 < told["confidence"] < 1


def test_a_network_that_gives_masks_alone_is_collected_without_a_confidence() -> None:
    from runtime.models import tiny_spec

    write_model(Path("a.onnx"), tiny_spec(output="mask"))
    assert run("--collect", "hard", *ROOM).code == 0
    (line,) = lines_of("hard")
    assert "flip" in line["scores"] and "unsure" not in line["scores"]
    assert [name for name in files_below(Path("hard")) if "confidence" in name] == []


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (["--collect", "hard", "--collect-when", "share(rod) > 0"], "no class 'rod'", "did you mean road?"),
        (["--collect", "hard", "--collect-when", ""], "it is empty", "such as"),
        (["--collect", "hard", "--collect-when", "novelty > "], "expected a number", "such as"),
        (["--collect", "hard", "--collect-when", "novelty = 1"], "'=' means nothing", "=="),
        (["--collect", "hard", "--collect-when", "disagreement > 0"], "disagreement of two networks", "--shadow"),
        (["--collect-when", "novelty > 0"], "--collect-when was given without --collect", "--collect DIR"),
        (["--collect-mask", "car"], "--collect-mask was given without --collect", "--collect DIR"),
        (["--collect-limit", "disk=1GB"], "--collect-limit was given without --collect", "--collect DIR"),
        (["--collect", "hard", "--collect-mask", "bus"], "no class 'bus' to blur", "there are road"),
        (["--collect", "hard?minute=3"], "folder with limits behind it", "--collect-limit"),
        (["--collect", "hard", "--collect-limit", "disk"], "'disk' is not KEY=VALUE", "disk=5GB"),
        (["--collect", "hard", "--collect-limit", "disk=1GB,disk=2GB"], "disk is given twice", "once"),
        (["--collect", "hard", "--collect-limit", "hours=2"], "no limit 'hours'", "minute="),
        (["--collect", "."], r"\. holds a\.onnx, and no frames", "new folder"),
    ],
)
def test_what_makes_no_sense_is_refused(words: List[str], message: str, fix: str) -> None:
    assert_refused(run(*words), 2, message, fix)
    assert not Path("hard").exists()


def test_the_place_that_does_not_parse_is_marked_below_it() -> None:
    outcome = run("--collect", "hard", "--collect-when", "novelty > 0 and share(rod) > 0")
    lines = outcome.err.splitlines()
    place = next(number for number, line in enumerate(lines) if "share(rod)" in line)
    below = lines[place + 1]
    assert lines[place][below.index("^") : below.rindex("^") + 1] == "share(rod)"


def test_frames_of_the_collected_frames_are_not_collected() -> None:
    assert run("--collect", "hard", *ROOM).code == 0
    before = files_below(Path("hard"))
    assert_refused(run("--collect", "hard", camera="hard/images"), 2, "--collect hard holds the source", "another")
    assert run("--collect", "harder", *ROOM, camera="hard/images").code == 0
    assert files_below(Path("hard")) == before
