"""Files of the version before the rooms (commit 32a537f) are read as that version read them.

``tests/earlier/version-before-rooms.tar.xz`` holds what it wrote with its own command line, networks narrow as in
``tests/narrow.py``, the values of every tensor replaced by a pattern so that the archive is small.
"""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path
from typing import Any, Dict

import pytest
from cli.commandline import invoke

from rtda_deploy.engine_file import read_sidecar

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")
ARCHIVE = Path(__file__).parents[1] / "earlier" / "version-before-rooms.tar.xz"


@pytest.fixture()
def earlier(here: Path) -> Path:
    """A folder of one's own with the files; the working directory."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive.getmembers():
            member.mode |= 0o600
            archive.extract(member)
    return here


def said(path: str) -> Dict[str, Any]:
    """What the version before printed with ``--json``."""
    found: Dict[str, Any] = json.loads(Path(path).read_text())
    return found


def assert_close(found: Any, expected: Any, where: str = "") -> None:
    """Equal values under the keys that were there; numbers to a thousandth."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_close(found[key], value, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            assert_close(found[place], value, f"{where}/{place}")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-3), where
    else:
        assert found == expected, where


@pytest.mark.parametrize(("file", "answer"), [("last.onnx", "inspect.json"), ("last.pth", "inspect-pth.json")])
def test_inspect_says_the_same(earlier: Path, file: str, answer: str) -> None:
    outcome = invoke("inspect", f"run/{file}", "--json")
    assert outcome.code == 0, outcome.err
    assert_close(outcome.json, said(answer))


def test_eval_gives_the_same_scores(earlier: Path) -> None:
    outcome = invoke("eval", "run/last.onnx", "--data", "folder:set?split=val", "--json", "--out", "e")
    assert outcome.code == 0, outcome.err
    assert_close(outcome.json, said("eval.json"))


def test_verify_compares_the_same(earlier: Path) -> None:
    words = ("run/last.pth", "run/last.onnx", "--frames", "set/train/images", "--json", "--out", "again")
    outcome = invoke("verify", *words)
    assert outcome.code == 0, outcome.err
    expected = said("verify.json")
    assert outcome.json.keys() == expected.keys()
    assert outcome.json["passed"] is expected["passed"] is True


@pytest.mark.parametrize("file", ["last.onnx", "last.fp16.onnx", "last.int8.onnx"])
def test_models_run(earlier: Path, file: str) -> None:
    source = "test://bars?fps=0&frames=2&size=96x64"
    outcome = invoke("run", f"run/{file}", "--camera", source, "--provider", "cpu", "--json")
    assert outcome.code == 0, outcome.err


def test_a_checkpoint_is_exported(earlier: Path) -> None:
    outcome = invoke("export", "run/best.pth", "--to", "onnx", "--json")
    assert outcome.code == 0, outcome.err


def test_a_finished_run_is_resumed_to_the_same_weights(earlier: Path) -> None:
    import torch

    before = torch.load("run/last.pth", weights_only=True)
    outcome = invoke("train", "--resume", "auto", "--out", "run")
    assert outcome.code == 0, outcome.err
    assert "resumed at step 2, its last" in outcome.err
    after = torch.load("run/last.pth", weights_only=True)
    assert all(torch.equal(value, after["weights"][key]) for key, value in before["weights"].items())


def test_a_run_goes_on_from_its_middle(earlier: Path) -> None:
    import torch

    content = torch.load("run/last.pth", weights_only=True)
    content["training"].update(step=1, done=False)  # as it was saved a step earlier: save_every was 1
    torch.save(content, "run/last.pth")
    outcome = invoke("train", "--resume", "auto", "--out", "run")
    assert outcome.code == 0, outcome.err
    assert "resumed at step 1" in outcome.err
    assert torch.load("run/last.pth", weights_only=True)["training"]["step"] == 2


def test_finished_rows_of_a_grid_are_not_trained_again(earlier: Path) -> None:
    kept = {path: path.read_bytes() for path in Path("grid").glob("*/scores.json")}
    table = Path("grid/table.md").read_text()
    grid = Path("grid.toml")
    grid.write_text(f"control = false\n{grid.read_text()}")  # which that version did not train
    outcome = invoke("train", "grid.toml", "--out", "grid")
    assert outcome.code == 0, outcome.err
    assert len(kept) == 2 and all(path.read_bytes() == content for path, content in kept.items())
    assert Path("grid/table.md").read_text() == table


def test_bench_records_are_compared(earlier: Path) -> None:
    outcome = invoke("bench", "--compare", "bench-A.json", "bench-B.json", "--json")
    assert outcome.code == 0, outcome.err
    for kind in ("rate", "source"):
        same = invoke("bench", "--compare", f"bench-{kind}.json", f"bench-{kind}.json", "--json")
        assert same.code == 0, same.err


def test_an_engines_sidecar_is_read_whole(earlier: Path) -> None:
    engine = Path("run/last.fp16.engine")
    sidecar = read_sidecar(engine)
    assert sidecar.built.precision == "fp16" and sidecar.built.kept_fp32 == ("/a/Conv",)
    assert json.loads(sidecar.to_json()) == said(f"{engine}.json")
    outcome = invoke("inspect", engine, "--json")
    assert outcome.code == 0, outcome.err
