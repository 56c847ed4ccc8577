"""``MODEL_CARD.md``: what it says is known, "unknown" where nothing is, and it cannot be broken by names."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

pytest.importorskip("torch")

from training.settings import write_domains

from rtda_deploy.files import sha256_file
from rtda_training.checkpoint import read_checkpoint, write_checkpoint
from rtda_training.loop.events import TrainResult
from rtda_training.pages.model_card import licence_of, write_model_card
from rtda_training.plan import load_plan
from rtda_training.run import train
from rtda_training.run_folder import copy_run, saved_plan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a start of its own, on a set with a licence and one with a README."""
    base = tmp_path_factory.mktemp("card")
    data = write_domains(base, 3, 4, 16)
    (data / "source/LICENSE.txt").write_text("\n# A <b>free</b> | licence\nmore\n")
    (data / "target/README.md").write_text("By-nc, perhaps.\n")
    asked = {"steps": 2, "batch_size": 2, "size": "64x64", "device": "cpu", "source": f"folder:{data}/source"}
    train("source-only", out=base / "start", **asked)  # type: ignore[arg-type]
    init = base / "start/last.pth"
    train("minent", out=base / "run", init=init, target=f"folder:{data}/target", **asked)  # type: ignore[arg-type]
    return base / "run"


def test_a_run_tells_what_it_was_made_of_and_what_is_not_known(run: Path) -> None:
    text = (run / "MODEL_CARD.md").read_text()
    start = run.parent / "start/last.pth"
    data = run.parent
    for said in (
        "# Model card: minent",
        "BiSeNet-resnet18 rtda",
        f"`folder:{data}/source` | 4 | `LICENSE.txt` in its folder: A &lt;b&gt;free&lt;/b&gt; \\| licence |",
        f"`folder:{data}/target` | 4 | unknown; `README.md` in its folder may say |",
        f"| network: `{start}` | `{sha256_file(start)}` | see MODEL_CARD.md beside it |",
        "Batches of 2 pictures, seed 0.",
        "supervised, entropy",
        "one seed",
        "on 4 pictures (held out)",
        "learned from 4 labelled pictures",
        f"| `last.pth` | `{sha256_file(run / 'last.pth')}` |",
        "rtda-deploy ",
    ):
        assert said in text, said
    assert "None: random, drawn with the seed." in (run.parent / "start/MODEL_CARD.md").read_text()
    assert not list(run.glob(".MODEL_CARD*")), "whole, and nothing left beside it"


def test_what_is_not_learned_from_is_not_called_so(run: Path, tmp_path: Path) -> None:
    copy_run(run, tmp_path)
    data, result = run.parent, TrainResult(tmp_path, math.nan, "", math.nan, 1.0)
    plan = saved_plan(tmp_path)
    assert "| adapted to, without labels |" in write_model_card(plan, tmp_path, result).read_text()
    typed = {"source": plan.source, "target": plan.target}
    few = load_plan("few-labels", labelled_target=f"folder:{data}/target?split=val", **typed)
    text = write_model_card(few, tmp_path, result).read_text()
    assert f"| looked at, not learned from | `folder:{data}/target` |" in text and "It was adapted to" not in text
    assert f"learned from the labelled frames `folder:{data}/target?split=val` alone" in text
    unheard = load_plan("few-labels", ["target-labels.weight=0"], labelled_target=few.labelled_target, **typed)
    text = write_model_card(unheard, tmp_path, result).read_text()
    assert "| target frames seen, their labels unused (weight 0) |" in text and "learned from the labelled" not in text
    text = write_model_card(load_plan("target-only", **typed), tmp_path, result).read_text()
    assert f"| looked at, not learned from | `folder:{data}/source` |" in text
    assert f"| learned from, with labels | `folder:{data}/target` |" in text


def test_it_is_written_of_a_run_whose_data_are_gone_or_whose_network_is_broken(run: Path, tmp_path: Path) -> None:
    copy_run(run, tmp_path)
    gone = dataclasses.replace(saved_plan(tmp_path), source="folder:/nowhere/at-all", init="", val="")
    text = write_model_card(gone, tmp_path, TrainResult(tmp_path, math.nan, "", math.nan, 1.0)).read_text()
    assert "can no longer be opened | unknown" in text and "No labelled picture was scored." in text
    found = read_checkpoint(tmp_path / "last.pth")
    broken = {
        name: weight * math.nan if weight.is_floating_point() else weight for name, weight in found.weights.items()
    }
    write_checkpoint(tmp_path / "last.pth", dataclasses.replace(found, weights=broken))
    text = write_model_card(gone, tmp_path, TrainResult(tmp_path, 0.1, "train @2", 0.1, 1.0)).read_text()
    assert "BiSeNet-resnet18 rtda. " in text and "multiply-adds" not in text and "No card:" in text


def test_toytown_is_ours_and_what_is_no_data_set_is_unknown(tmp_path: Path) -> None:
    assert licence_of("toytown:target?split=val") == "drawn by rtda-deploy: Apache-2.0"
    assert licence_of("folder:/nowhere") == licence_of("nonsense") == licence_of("") == "unknown"
    (tmp_path / "COPYING").write_bytes(b"\xff\x00 ***\n")
    assert licence_of(f"folder:{tmp_path}").startswith("`COPYING` in its folder: ")


def test_packaged_weights_say_their_licence() -> None:
    from rtda_training.models.backbones import BACKBONES

    packaged = BACKBONES["efficientnet-lite0"].packaged
    assert packaged is not None and packaged.licence == "Apache-2.0"
