"""``rtda-deploy data cvat``: an archive for CVAT, and corrected masks back."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import cv2
import pytest
from cli.commandline import assert_refused, files_below, invoke

from rtda_deploy.own_masks import marked
from rtda_runtime.sinks.masks import own_png


@pytest.fixture(autouse=True)
def standing(here: Path, tiny_data: Path) -> None:
    """In a folder with a set of one's own."""
    shutil.copytree(tiny_data, here / "set")


def test_labels_go_to_cvat_and_come_back() -> None:
    told = invoke("data", "cvat", "folder:set", "--out", "task.zip", "--json").json
    assert (told["archive"], told["labels"]) == ("task.zip", "task.labels.json") and told["masks"] > 0
    names = {entry["name"] for entry in json.loads(Path("task.labels.json").read_text(encoding="utf-8"))}
    with zipfile.ZipFile("task.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[1:]
    assert {line.split(":")[0] for line in lines} == {*names, "background"}
    shown = invoke("data", "cvat", "folder:set", "--corrected", "task.zip")
    assert shown.code == 0 and f"0 labels changed (0.00 % of the pixels), {told['masks']} as they were" in shown.out
    found = invoke("data", "cvat", "folder:set", "--corrected", "task.zip", "--json").json
    assert (found["changed"], found["same"], found["unknown"]) == (0, told["masks"], [])
    assert "--corrected EXPORT.zip" in invoke("data", "cvat", "folder:set").err and Path("annotations.zip").is_file()


def test_masks_that_nobody_corrected_are_not_proposed_as_a_check_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    labels = [Path(path) for path in files_below(Path()) if path.endswith(".png") and "abel" in path]
    for path in labels:
        path.write_bytes(marked(path.read_bytes()))
    own = len(labels)
    invoke("data", "cvat", "folder:set", "--out", "task.zip")
    assert invoke("data", "cvat", "folder:set", "--corrected", "task.zip", "--json").json["own"] == own
    shown = invoke("data", "cvat", "folder:set", "--corrected", "task.zip")
    assert "all of them are masks as a network wrote them" in shown.err
    assert "use     --check" not in shown.err and "use     correct masks in CVAT" in shown.err
    assert "next    rtda-deploy data cvat folder:set --corrected EXPORT.zip" in shown.err
    label = cv2.imread(str(labels[0]), cv2.IMREAD_UNCHANGED)
    label[0] = (label[0] + 1) % 2
    cv2.imwrite(str(labels[0]), label)
    invoke("data", "cvat", "folder:set", "--out", "corrected.zip")
    label[0] = (label[0] + 1) % 2
    labels[0].write_bytes(own_png(label))
    shown = invoke("data", "cvat", "folder:set", "--corrected", "corrected.zip")
    assert f"{own - 1} of them are masks as a network" in shown.err and "use     --check folder:set" in shown.err


def test_what_cannot_be_is_refused(here: Path) -> None:
    invoke("data", "cvat", "folder:set", "--out", "task.zip")
    before = files_below(here)
    both = ["--out", "a.zip", "--corrected", "task.zip"]
    assert_refused(invoke("data", "cvat", "folder:set", *both), 2, "--out and --corrected", "one writes")
    assert_refused(invoke("data", "cvat", "folder:nowhere"), 1, "nothing of this name", "spelling")
    assert_refused(invoke("data", "cvat", "folder:set", "--corrected", "nowhere.zip"), 1, "cannot read", "spelling")
    assert_refused(invoke("data", "cvat", "folder:set", "--corrected", "task.labels.json"), 1, "no archive", "Segment")
    toytown = "toytown:source?split=val&count=2&size=64x32"
    assert_refused(invoke("data", "cvat", toytown, "--corrected", "task.zip"), 1, "is no folder of yours", "folder:")
    label = next(
        path for path in files_below(here) if path.startswith("set") and path.endswith(".png") and "abel" in path
    )
    assert_refused(invoke("data", "cvat", "folder:set", "--out", label), 2, "would write over", "another")
    assert files_below(here) == before
