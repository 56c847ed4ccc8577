"""What files say reaches no terminal as a command, and no terminal's encoding ends a run."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Dict

import pytest
from cli.commandline import invoke, run_command
from runtime.models import tiny_spec, write_model

from rtda_deploy.cli.terminal.visible import raw, visible, visible_output
from rtda_deploy.errors import SpecError

_EVIL = ("ro\x1b]0;title\x07ad", "sk\x9b31my", "é → x", "tr\u202eee", "car\nfix    rm -rf")
_ENCODINGS: Dict[str, Dict[str, str]] = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture()
def evil(here: Path) -> Path:
    return write_model(here / "evil.onnx", tiny_spec().replace(class_names=_EVIL))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é → ✓\n\tand more", "plain é → ✓\n\tand more"),
        ("\x1b[2J\x07\r\x00", "\\x1b[2J\\x07\\r\\x00"),
        ("\x7f\x9b\u202e\u2066\u2028", "\\x7f\\x9b\\u202e\\u2066\\u2028"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible("a\nb\tc", line=True) == "a\\nb\\tc"


def test_what_is_printed_by_whomever_is_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    with visible_output():
        sys.stdout.write("a\x1bb\n")
        sys.stderr.writelines(["c\x1bd"])
        raw(sys.stderr).write("\x1b")
    sys.stdout.write("e\x1bf\n")
    assert tuple(capsys.readouterr()) == ("a\\x1bb\ne\x1bf\n", "c\\x1bd\x1b")


@pytest.mark.parametrize(
    "words",
    [
        "inspect evil.onnx",
        "inspect evil.onnx --json",
        "run evil.onnx --camera test://bars?frames=2 --group a=nope",
        "run evil.onnx --camera test://bars?frames=2 --masks m\x1b[2Jm",
        "run evil.onnx --camera no\x1b[2Jfile.mp4",
    ],
)
def test_no_escape_sequence_of_a_file_reaches_the_terminal(evil: Path, words: str) -> None:
    outcome = invoke(*words.split())
    said = outcome.out + outcome.err
    assert not set(said) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "\\x1b" in said or "\\u001b" in said
    assert not any(line.startswith("fix    rm") for line in said.splitlines())


def test_json_gives_the_names_as_they_are(evil: Path) -> None:
    assert invoke("inspect", "evil.onnx", "--json").json["spec"]["class_names"] == list(_EVIL)


def test_the_log_is_made_visible_too(evil: Path) -> None:
    invoke("inspect", "evil.onnx")
    kinds = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    record = logging.LogRecord("x", logging.WARNING, "", 0, "a\x1bb", (), None)
    assert all("\x1b" not in handler.format(record) for handler in kinds)


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_no_encoding_of_a_terminal_ends_a_run(evil: Path, here: Path, encoding: str) -> None:
    words = ("run", evil, "--camera", "test://bars?frames=2&size=96x64", "--save", "film.mp4", "--policy", "every")
    outcome = run_command(*words, cwd=here, env=_ENCODINGS[encoding])
    assert outcome.code == 0 and "Traceback" not in outcome.err, outcome.err
    assert (here / "film.mp4").exists() and "wrote film.mp4" in outcome.out + outcome.err


def test_stand_ins_are_in_the_words_of_the_terminal(evil: Path, here: Path) -> None:
    ascii_ = _ENCODINGS["ascii"]
    assert "\\xe9 -> x" in run_command("inspect", evil, cwd=here, env=ascii_).out
    found = run_command("inspect", evil, "--json", cwd=here, env=ascii_)
    assert json.loads(found.out)["spec"]["class_names"] == list(_EVIL)
    assert run_command("doctor", cwd=here, env=ascii_).out.count("+ ") > 3


def test_a_file_whose_name_is_no_text_runs_into_every_record(evil: Path, here: Path) -> None:
    pytest.importorskip("mcap", reason="mcap is not installed")
    folder = os.fsdecode(b"caf\xe9")
    assert invoke("run", evil, "--camera", "test://bars?frames=2&size=96x64", "--masks", folder).code == 0
    outcome = invoke("run", evil, "--camera", folder, "--publish", "mcap:a.mcap", "--json")
    assert outcome.code == 0, outcome.err
    assert b"caf\\udce9" in (here / "a.mcap").read_bytes()


def test_half_a_pair_is_no_class_name() -> None:
    with pytest.raises(SpecError, match=r"ud800.*no text") as caught:
        tiny_spec().replace(class_names=("road", "sky\ud800", "a", "b", "c"))
    assert caught.value.hint
    odd = tiny_spec().replace(provenance={"recipe": "\ud800"})
    assert type(odd).from_json(odd.to_json().encode()).provenance == {"recipe": "\\ud800"}


def test_a_table_that_is_too_wide_is_folded_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rtda_deploy.cli.terminal.console import print_table

    monkeypatch.setenv("COLUMNS", "40")
    print_table(("model", "mIoU", "gain"), [("/a/very/long/folder/of/a/run/" + "x" * 40, 35.61, 20.62)])
    out = capsys.readouterr().out
    assert "…" not in out and "35.61" in out and "20.62" in out and out.count("x") == 40
