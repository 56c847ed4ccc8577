"""The table of engines: a further kind is one file and one row (``toy_engine.py``), and everything finds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, Tuple

import pytest
from cli.commandline import Outcome, assert_refused, environment
from runtime.models import tiny_spec
from runtime.toy_engine import TOY

from rtda_deploy.errors import ConfigError
from rtda_runtime.engines import providers, register
from rtda_runtime.engines.kinds import engine_kinds, one_of
from rtda_runtime.kinds import function_named

_WITH_TOYS = """
import json, sys
from rtda_runtime.engines import register
from runtime.toy_engine import BARE, TOY
register(TOY)
register(BARE)
from cli.commandline import invoke
print(json.dumps([invoke(*words.split()) for words in sys.argv[1:]]))
"""
_FAST = "--camera test://bars?fps=0&size=96x64&frames=2"
_COMMANDS = (
    "run --help",
    "bench --help",
    "doctor --json",
    "inspect model.toy --json",
    "inspect notes.txt",
    "inspect model.bare",
    f"run {_FAST} --json",
    f"run notes.txt {_FAST}",
    f"run model.toy {_FAST} --provider cpu",
    f"run model.toy {_FAST} --provider tpu",
    "bench model.toy --provider toy --duration 0.1 --warmup 0 --frame-size 96x64 --out bench --json",
)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Outcome]:
    """What the commands say in a program that has registered the kind, in a folder with ``model.toy``."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "model.toy").write_text(tiny_spec().to_json())
    (folder / "model.bare").write_text(tiny_spec().to_json())
    (folder / "notes.txt").write_text("no model")
    tests = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = environment(PYTHONPATH=os.pathsep.join(tests), COLUMNS="200", TERM="dumb")
    program = [sys.executable, "-c", _WITH_TOYS, *_COMMANDS]
    done = subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "bench" / "report.html").replace(folder / "report.html")
    outcomes = {words: Outcome(*outcome) for words, outcome in zip(_COMMANDS, json.loads(done.stdout))}
    return {**outcomes, "page": Outcome(0, (folder / "report.html").read_text(), "")}


def starting(said: Dict[str, Outcome], words: str) -> Outcome:
    (found,) = (outcome for command, outcome in said.items() if command.startswith(words))
    return found


@pytest.mark.parametrize("verb", ["run", "bench"])
def test_the_help_of_provider_names_it(said: Dict[str, Outcome], verb: str) -> None:
    assert f"{', '.join(providers())}, toy or bare" in starting(said, f"{verb} --help").out


def test_doctor_looks_for_its_packages_and_asks_what_it_wants_to_know(said: Dict[str, Outcome]) -> None:
    found = {finding["name"]: finding for finding in said["doctor --json"].json["findings"]}
    assert found["runtime.toy_engine"]["state"] == "ok"
    assert found["toy_key"] == {
        "name": "toy_key",
        "state": "missing",
        "detail": "not installed; for winding up",
        "fix": "pip install 'rtda-deploy[openvino]'",
    }
    assert found["Toy's spring"]["fix"] == "turn the key"


def test_inspect_describes_its_files_and_names_its_suffix(said: Dict[str, Outcome]) -> None:
    found = said["inspect model.toy --json"].json
    assert (found["kind"], found["spec"], len(found["sha256"])) == ("toy", tiny_spec().to_dict(), 64)
    for file in ("notes.txt", "model.bare"):  # the second runs, and has nothing that describes it
        assert_refused(said[f"inspect {file}"], 2, "no kind that inspect knows", r"\.toy, \.json$")


def test_run_finds_its_files_without_being_told_and_runs_them(said: Dict[str, Outcome]) -> None:
    outcome = said[f"run {_FAST} --json"]
    assert outcome.code == 0 and "model.toy   (the newest here)" in outcome.err
    summary = json.loads(outcome.out.splitlines()[-1])
    assert (summary["model"], summary["provider"], summary["frames"]) == ("model.toy", "toy", 2)


def test_errors_name_its_suffix_and_its_provider(said: Dict[str, Outcome]) -> None:
    assert_refused(starting(said, "run notes.txt"), 1, "is no model that runs here", r"\.toy")
    other = said[f"run model.toy {_FAST} --provider cpu"]
    assert_refused(other, 3, r"model\.toy does not run on provider cpu Toy takes toy", "leave --provider out")
    assert_refused(said[f"run model.toy {_FAST} --provider tpu"], 2, "unknown provider 'tpu'", "toy")


def test_a_benchmark_records_its_version_and_the_page_shows_it(said: Dict[str, Outcome]) -> None:
    record = starting(said, "bench model.toy").json
    assert (record["model"]["provider"], record["environment"]["runtime.toy_engine"]) == ("toy", "7.5")
    assert "runtime.toy engine" in said["page"].out and "7.5" in said["page"].out


def test_a_row_names_functions_and_extras_that_there_are() -> None:
    for kind in engine_kinds():
        for name in (kind.opener, kind.auto, kind.describe, *(check for _, check in kind.checks)):
            assert not name or callable(function_named(name))
        assert set(kind.cpu_providers) <= set(kind.providers)


def test_two_kinds_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="TensorRT already"):
        register(engine_kinds()[0])
    assert TOY not in engine_kinds()


@pytest.mark.parametrize(("words", "text"), [(("a",), "a"), (("a", "b"), "a or b"), (("a", "b", "c"), "a, b or c")])
def test_words_for_a_help_text(words: Tuple[str, ...], text: str) -> None:
    assert one_of(words) == text
