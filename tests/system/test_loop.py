"""``make loop`` in a tiny form: the commands of docs/loop.md, one after the other, each on what the one before made.

Those that need torch run in this process, where it is loaded once and networks are narrow; the others, which get ONNX
files, in processes of their own, as all do when a user types ``make loop``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Set, Tuple
from unittest import mock

import pytest
from cli.commandline import invoke
from narrow import narrow_networks

from rtda_deploy.familiar import familiar_from_json
from rtda_deploy.files import sha256_file
from rtda_deploy.onnx_file import read_onnx_facts

pytest.importorskip("torch")
pytest.importorskip("onnx")

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
# ToyTown in few small pictures: rendering a thousand of 512x256 would take longer than all that is looked at here.
SETS = [f"{key}=toytown:{key}?count=16&size=96x64" for key in ("source", "target")]
SMALL = (*SETS, "steps=2", "size=64x64", "batch_size=2", "backbone_weights=", "device=cpu")
TINY = [word for setting in SMALL for word in ("--set", setting)]
TINY += ["--seconds", "90", "--pictures", "2", "--size", "96x64", "--speed", "30", "--shift", "1m"]
TINY += ["--when", "novelty > 0", "--limits", "minute=10,gap=0.5s,free=0,flip=off"]
TORCH = ("train", "export", "adapt", "rank")


with mock.patch.object(sys, "path", [str(ROOT / "tools"), *sys.path]):
    program: Any = importlib.import_module("loop")


def start(words: Sequence[str], folder: Path) -> Tuple[int, str]:
    """Here what needs torch, in a process of its own what does not."""
    if words[0] not in TORCH:
        done: Tuple[int, str] = program.in_a_process(words, folder)
        return done
    before = Path.cwd()
    os.chdir(folder)
    try:
        outcome = invoke(*words)
    finally:
        os.chdir(before)
    assert outcome.code == 0, outcome.err
    return outcome.code, outcome.out


class Typed(NamedTuple):
    """A command: its verb, and the options that it has."""

    verb: str
    options: Set[str]


def read(typed: str) -> Typed:
    """Of a line; a camera is a source."""
    words = shlex.split(typed)
    verb = " ".join(words[1:3]) if words[1] == "models" else words[1]
    return Typed(verb, {"--source" if word == "--camera" else word for word in words if word.startswith("--")})


def described() -> List[Typed]:
    """The commands of the page's table."""
    page = (ROOT / "docs" / "loop.md").read_text(encoding="utf-8")
    return [read(typed) for typed in re.findall(r"^\|[^|]*\| `(rtda-deploy [^`]+)` \|", page, re.MULTILINE)]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a loop that has gone around."""
    narrow_networks()
    folder, said = tmp_path_factory.mktemp("loop") / "loop", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("RTDA_CACHE", str(folder.parent / "cache"))
        patch.syspath_prepend(str(ROOT / "tools"))  # for the processes that draw
        patch.setattr(sys, "argv", ["loop.py", "--out", str(folder), *TINY])
        assert program.main(start) == 0
    assert f"wrote  {folder}/report.html" in said.getvalue()
    return folder


@pytest.fixture(scope="module")
def found(loop: Path) -> Dict[str, Any]:
    """Its ``summary.json``."""
    values: Dict[str, Any] = json.loads((loop / "summary.json").read_text(encoding="utf-8"))
    return values


def test_the_commands_of_the_page_are_run_in_their_order(found: Dict[str, Any]) -> None:
    ran = iter([read(row["typed"]) for row in found["commands"]])
    wanted = described()
    assert len(wanted) == 10
    if found["promote"] is None:  # nothing ranked before the network that was given
        wanted = [one for one in wanted if one != Typed("models promote", {"--frames"}) or one is wanted[1]]
    for one in wanted:
        assert any(each.verb == one.verb and one.options <= each.options for each in ran), f"{one} was not run in turn"


def test_each_step_uses_what_the_one_before_made(loop: Path, found: Dict[str, Any]) -> None:
    given, deployed, adapted, candidate = (
        sha256_file(loop / name)
        for name in ("noon/last.pth", "robot-1/last.onnx", "adapted/best.pth", "robot-2/best.onnx")
    )
    first = read_onnx_facts(loop / "robot-1" / "last.onnx")
    assert first.spec is not None and first.spec.provenance["ancestry"][-1]["parent_sha256"] == given
    collected = [json.loads(line) for line in (loop / "hard" / "frames.jsonl").read_text().splitlines()]
    assert {line["sha256"] for line in collected} == {deployed}, "the robot drove with what was promoted"
    assert found["drive"]["collected"]["frames"] == len(list((loop / "hard" / "images").iterdir())) >= 8
    assert found["adapt"]["footage"] == "folder:hard" and found["rank"]["frames"] == len(collected)
    ancestry = found["inspect"]["spec"]["provenance"]["ancestry"]
    assert found["inspect"]["sha256"] == candidate and ancestry[-1]["parent_sha256"] == adapted
    if found["adapt"]["better"]:
        assert (ancestry[-2]["parent_sha256"], ancestry[-2]["footage"]) == (given, "folder:hard")
    shadow, tried = found["shadow"], found["promote"]
    assert shadow["model"] == "robot-2/best.onnx" and shadow["compared"] + shadow["dropped"] == 180
    assert (tried is None) is not found["adapt"]["better"]
    assert tried is None or (tried["labelled"] == 2 and tried["promoted"] is not bool(tried["missed"]))
    now = candidate if tried is not None and tried["promoted"] else deployed
    assert {row["role"]: row["digest"] for row in found["models"]}["current"] == now[:12]
    for model, footage in (("robot-1/last.onnx", "noon"), ("robot-2/best.onnx", "drive")):
        known = familiar_from_json(read_onnx_facts(loop / model).card)
        assert known is not None and known.data == f"video:{footage}.mp4"


def test_the_page_tells_what_happened(loop: Path, found: Dict[str, Any]) -> None:
    drive = found["drive"]
    assert drive["shift"]["blocks"] > 5 and drive["evidence"] and found["rain_s"] == 45.0
    assert set(found["miou"]) == {"noon", "rain"} and all(0 <= row["after"] <= 100 for row in found["miou"].values())
    page = (loop / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 2 and "From noon into rain" in page
    assert found["inspect"]["sha256"][:12] in page and "given" in page and "promote" in page


def test_a_command_that_fails_ends_the_loop_and_says_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = program.Commands(tmp_path)
    assert run("nothing there", "models list")[-1]["models"] == []
    with pytest.raises(SystemExit, match=f"exit code 1 of: rtda-deploy inspect none.onnx\nfix    cd {tmp_path}"):
        run("none", "inspect none.onnx")
    assert "none.onnx" in capfd.readouterr().err and [typed for _, typed, _ in run.typed] == ["rtda-deploy models list"]
