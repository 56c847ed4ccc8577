"""``rtda-deploy models``: promote, refuse, roll back, and ``run models/NAME``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.commandline import assert_refused, invoke
from conftest import write_data_set, write_pictures

from rtda_deploy.files import sha256_file

pytest.importorskip("onnx")

WORDS = ("--frames", "folder:frames", "--provider", "cpu", "--max-slower", "1000")


@pytest.fixture()
def shop(here: Path) -> Path:
    """Two models of the same classes, and frames."""
    from runtime.models import write_model

    write_model(here / "a.onnx")
    write_model(here / "b.onnx", seed=3)
    write_pictures(here / "frames", 3)
    return here


def run_once(*words: str) -> Any:
    outcome = invoke("run", *words, "--camera", "test://bars?fps=0&frames=1&size=96x64", "--provider", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_a_model_is_promoted_run_replaced_and_brought_back(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = invoke("models", "promote", "a.onnx", *WORDS, "--json")
    assert first.code == 0, first.err
    assert first.json["promoted"] and first.json["agreement"] is None and first.json["name"] == "robot"
    assert "rtda-deploy run models/robot" in first.err
    second = invoke("models", "promote", "b.onnx", *WORDS, "--min-agreement", "0")
    assert second.code == 0, second.err
    assert "pixels agree" in second.out and "p95 ms" in second.out
    assert run_once("models/robot")[-1]["event"] == "summary"
    shown = invoke("models", "list", "--json").json["models"]
    assert {row["file"].rpartition("/")[2]: row["role"] for row in shown} == {"a.onnx": "previous", "b.onnx": "current"}
    back = invoke("models", "rollback")
    assert back.code == 0 and back.out.strip().endswith("/a.onnx")
    assert "current" in invoke("models", "list").out
    again = invoke("models", "promote", second.err.split(" is ")[1].split(",")[0], *WORDS, "--min-agreement", "0")
    assert again.code == 0, again.err  # by its digest
    digest = back.out.strip().split("/")[-2]
    assert invoke("models", "promote", digest[:6], *WORDS, "--min-agreement", "0").code == 0  # or its first digits
    assert_refused(invoke("models", "promote", "0000dead", *WORDS), 2, "has no model '0000dead'", digest)
    by_name = invoke("models", "promote", f"models/robot@{digest[:5]}", *WORDS, "--min-agreement", "0", "--json")
    assert by_name.code == 0 and by_name.json["model"] == digest, by_name.err


def test_digits_that_name_no_model_or_several_say_which_there_are(shop: Path) -> None:
    from runtime.models import write_model

    assert_refused(invoke("models", "promote", "dd4", *WORDS), 2, "has no model 'dd4'", "models promote MODEL")
    names = [invoke("models", "promote", "a.onnx", *WORDS, "--json").json["model"]]
    for seed in range(1, 40):  # until two share their first digit
        write_model(shop / "next.onnx", seed=seed)
        names.append(sha256_file(shop / "next.onnx")[:12])
        if len({name[0] for name in names}) < len(names):
            break
    twins = [name for name in names if name[0] == names[-1][0]]
    for name in names[1:]:
        (shop / "models" / "robot" / name).mkdir()
        (shop / "models" / "robot" / name / "a.onnx").write_bytes(b"")
    outcome = invoke("models", "promote", twins[0][0], *WORDS)
    assert_refused(outcome, 2, f"2 models of models/robot begin with '{twins[0][0]}'.*{twins[-1]}", "more digits")
    outcome = invoke("models", "promote", "g", *WORDS)
    assert_refused(outcome, 1, "cannot read g", None)


def test_a_name_under_which_nothing_was_promoted_says_how(shop: Path) -> None:
    for name in ("models/robot", "models/robot@previous", "models/robot@dd4"):
        outcome = invoke("run", name, "--camera", "test://bars")
        assert_refused(outcome, 2, "models/robot has no model yet", "models promote MODEL --frames DATA --name robot$")
    assert invoke("models", "promote", "a.onnx", *WORDS, "--folder", "here it is").code == 0
    outcome = invoke("run", "here it is/boat", "--camera", "test://bars")
    fix = "known: here it is/robot; or put one there: .* --name boat --folder 'here it is'"
    assert_refused(outcome, 2, "here it is/boat has no model yet", fix)
    for strange in ("@previous", "a@", "x" * 300):
        assert_refused(invoke("models", "promote", strange, *WORDS), 1, "cannot read", None)
    assert_refused(invoke("run", "nowhere/robot", "--camera", "test://bars"), 1, "cannot read nowhere/robot")
    assert_refused(invoke("run", "models/last.onnx", "--camera", "test://bars"), 1, "cannot read models/last.onnx")


def test_past_a_limit_nothing_is_changed_and_what_was_seen_is_kept(shop: Path) -> None:
    assert invoke("models", "promote", "a.onnx", *WORDS).code == 0
    before = sorted(path.name for path in (shop / "models" / "robot" / "current").iterdir())
    refused = invoke("models", "promote", "b.onnx", *WORDS, "--min-agreement", "99.9%", "--json")
    assert refused.code == 4 and "is not promoted" in refused.said["error"] and "--compare" in refused.said["fix"]
    assert not refused.json["promoted"] and refused.json["missed"]
    assert sorted(path.name for path in (shop / "models" / "robot" / "current").iterdir()) == before
    history = (shop / "models" / "robot" / "history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["what"] == "refused" and json.loads(history[-1])["agreement"] < 0.999


def test_labels_are_used_where_they_are(here: Path, tiny_onnx: Path) -> None:
    write_data_set(here / "labelled", 4)
    outcome = invoke("models", "promote", tiny_onnx, "--frames", "folder:labelled", "--provider", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    scored = invoke("eval", tiny_onnx, "--data", "folder:labelled", "--json")
    assert outcome.json["labelled"] == 4
    assert outcome.json["miou"][1] == pytest.approx(scored.json["miou"], abs=0.1)


def test_what_is_tried_is_the_copy_that_will_run(shop: Path) -> None:
    """A network whose weights lie in a file of their own opens where it was made, and would not on the robot."""
    import onnx

    loaded = onnx.load(str(shop / "a.onnx"))
    (shop / "there").mkdir()
    onnx.save(
        loaded, str(shop / "there" / "big.onnx"), save_as_external_data=True, location="big.data", size_threshold=0
    )
    assert_refused(
        invoke("models", "promote", "there/big.onnx", *WORDS), 1, "big.onnx keeps its weights in another file", None
    )
    assert not (shop / "models").exists()


def test_a_current_model_that_was_removed_is_told_and_replaced(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setenv("COLUMNS", "200")
    first = invoke("models", "promote", "a.onnx", *WORDS, "--json").json["model"]
    shutil.rmtree(shop / "models" / "robot" / first)
    assert_refused(invoke("run", "models/robot", "--camera", "test://bars"), 1, f"means {first}", "promote one")
    shown = invoke("models", "list")
    assert shown.code == 0 and first in shown.out and "removed" in shown.out
    assert_refused(invoke("models", "promote", "a.onnx", *WORDS, "--max-p95-ms", "nan"), 2, "limit of a promotion")
    again = invoke("models", "promote", "b.onnx", *WORDS, "--json")
    assert again.code == 0 and again.json["runs"] >= 40, again.err
    assert f"what was current, {first}, is not there any more" in again.err
    (row,) = invoke("models", "list", "--json").json["models"]
    assert row["role"] == "current"


def test_what_makes_no_sense_is_refused(shop: Path) -> None:
    from runtime.models import NAMES, tiny_spec, write_model

    assert_refused(invoke("models", "rollback"), 2, "no previous model")
    assert_refused(invoke("run", "frames", "--camera", "test://bars"), 2, "without a current model", "models promote")
    assert_refused(invoke("models", "promote", "nowhere.onnx", *WORDS), 1, "nowhere.onnx", None)
    typed = invoke("models", "promote", "a.onnx", *WORDS, "--min-agreement", "50")
    assert_refused(typed, 2, "--min-agreement 50 is no share", "--min-agreement 50%")
    (shop / "last.pth").write_bytes(b"a checkpoint")
    said = "last.pth cannot be deployed: what runs is .*[.]onnx.* exported first"
    assert_refused(invoke("models", "promote", "last.pth", *WORDS), 2, said, "rtda-deploy export last.pth")
    assert not list((shop / "models").glob("robot/[0-9a-f]*")), "it is not copied"
    assert invoke("models", "promote", "a.onnx", *WORDS).code == 0
    assert ", as before" in invoke("models", "promote", "a.onnx", *WORDS).err
    write_model(shop / "other.onnx", tiny_spec(class_names=(*NAMES[:-1], "water")))
    outcome = invoke("models", "promote", "other.onnx", *WORDS)
    assert_refused(outcome, 2, "other classes than the deployed one: without vegetation; with water", "--name OTHER")
    assert invoke("models", "promote", "other.onnx", *WORDS, "--name", "boat").code == 0
    assert_refused(invoke("models", "rollback"), 2, "models of 2 names: boat, robot", "--name")


def test_an_empty_shop_says_how_to_begin(here: Path) -> None:
    outcome = invoke("models", "list")
    assert outcome.code == 0 and "models promote" in outcome.err and outcome.out == ""
    assert "--frames DATA --folder 'a b' puts" in " ".join(invoke("models", "list", "--folder", "a b").err.split())


def test_a_name_whose_first_model_was_refused_is_listed(shop: Path) -> None:
    assert invoke("models", "promote", "a.onnx", *WORDS, "--max-p95-ms", "0").code == 4
    (row,) = invoke("models", "list", "--json").json["models"]
    assert (row["name"], row["role"], row["last"]) == ("robot", "", "refused")
    assert invoke("models", "promote", row["digest"][:4], *WORDS).code == 0
    shown = invoke("models", "list", "--folder", "models/robot")
    assert "models/robot is one name's folder: rtda-deploy models list --folder models" in " ".join(shown.err.split())
