from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from training.settings import TinyNetwork, class_names, make_pictures

from rtda_deploy.errors import DataError
from rtda_deploy.optional import available
from rtda_training.data.address import DataAddress
from rtda_training.loop.runlog import RunLog
from rtda_training.loop.validate import colours, masks_of, picture_grid, spread_places, usable_frame, validate
from rtda_training.plan import PlanConfig
from rtda_training.readers import LabelledSet
from rtda_training.run_folder import read_rows

PLAN = PlanConfig(size="64x64")


def pictures(count=6):
    return LabelledSet(make_pictures(count), DataAddress.parse("list:val"))


def test_every_number_gets_a_column_when_it_first_comes(tmp_path):
    log = RunLog(tmp_path)
    log.add({"stage": "a", "stage_index": 0, "step": 1, "seg": 2.0, "learning_rate": 0.1})
    log.add({"stage": "b", "stage_index": 1, "step": 1, "seg": 1.0, "disc": 0.7, "learning_rate": 0.1})
    log.close()
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [line["disc"] for line in lines] == ["", "0.7"]
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 1]


def test_the_rows_of_a_killed_run_end_with_the_last_whole_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "a", "step": 1}\n{"stage": "a", "st')
    assert read_rows(tmp_path) == [{"stage": "a", "step": 1}]
    assert read_rows(tmp_path / "missing") == []


def test_the_last_confusion_is_kept(tmp_path):
    log = RunLog(tmp_path)
    for step, value in ((1, 3), (2, 5)):
        log.keep_confusion({"stage": "a", "step": step}, pictures(), np.full((5, 5), value))
    log.close()
    found = json.loads((tmp_path / "confusion.json").read_text())
    assert (found["step"], found["counts"][0], found["classes"]) == (2, [5] * 5, list(class_names(5).names))
    assert found["data"] == "list:val"


@pytest.mark.skipif(not available("tensorboard"), reason="needs tensorboard")
def test_tensorboard_shows_the_same_pictures_at_every_validation(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path)
    network, data = TinyNetwork(5).train(), pictures()
    for step in (10, 20):
        log.show({"stage": "a", "step": step}, network, data, PLAN, class_names(5).palette)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = events.Images("a/pictures")
    assert [event.step for event in shown] == [10, 20]
    assert (shown[0].width, shown[0].height) == (640, 4 * 320)
    assert network.training, "the training goes on as before"


def test_without_tensorboard_no_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    log, data = RunLog(tmp_path), pictures()
    data.frame = lambda place: pytest.fail("asked for")
    log.show({"stage": "a", "step": 1}, TinyNetwork(5), data, PLAN, class_names(5).palette)
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.skipif(not available("tensorboard"), reason="needs tensorboard")
def test_a_broken_picture_does_not_end_the_training(tmp_path):
    def broken(place):
        raise DataError("0.png cannot be read")

    log, data = RunLog(tmp_path), pictures()
    data.frame = broken
    log.show({"stage": "a", "step": 1}, TinyNetwork(5), data, PLAN, class_names(5).palette)
    log.close()


# the pictures


@pytest.mark.parametrize(
    ("count", "total", "places"), [(4, 100, [12, 37, 62, 87]), (4, 4, [0, 1, 2, 3]), (4, 2, [0, 1]), (3, 0, [])]
)
def test_places_are_spread_and_none_is_taken_twice(count, total, places):
    assert spread_places(count, total) == places


def test_masks_have_their_pictures_size_and_leave_the_network_as_it_was():
    network = TinyNetwork(5).train()
    network.backbone.layer1.eval()  # as fixed batch norms are
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frames = [np.zeros((48, 80, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8)]
    masks = masks_of(network, frames, (64, 64), PLAN.input)
    assert [(mask.shape, mask.dtype) for mask in masks] == [((48, 80), np.uint8), ((64, 64), np.uint8)]
    assert all((value == before[name]).all() for name, value in network.state_dict().items())
    assert network.training and not network.backbone.layer1.training and network.head.training


def test_masks_are_those_that_validation_counts():
    from rtda_training.metrics import ConfusionMatrix

    network, data = TinyNetwork(5), pictures()
    own, given = ConfusionMatrix(5), ConfusionMatrix(5)
    for index, mask in enumerate(masks_of(network, [data.frame(i) for i in range(6)], (64, 64), PLAN.input)):
        own.add(data.label(index), mask)
    scores = validate(network, data, (64, 64), PLAN.input, confusion=given)
    assert (own.counts == given.counts).all() and own.counts.sum() == scores.pixels


def test_colours_are_the_palettes_in_opencvs_order():
    shown = colours(np.array([[0, 1, 255]], np.uint8), [(1, 2, 3), (4, 5, 6)])
    assert shown.tolist() == [[[3, 2, 1], [6, 5, 4], [0, 0, 0]]]


def test_a_picture_that_cannot_be_read_is_replaced_by_the_next_that_can():
    data = pictures(3)
    frames, read = [data.frame(place) for place in range(3)], data.frame

    def frame(place):
        if place in broken:
            raise DataError(f"picture {place} is damaged")
        return read(place)

    data.frame, broken = frame, {2, 0}
    assert (usable_frame(data, 2) == frames[1]).all()
    broken.add(1)
    with pytest.raises(DataError, match="picture 2 is damaged"):
        usable_frame(data, 2)


def test_the_grid_is_rgb_with_the_mask_at_the_right():
    data = pictures(2)
    grid = picture_grid(TinyNetwork(5), data, (64, 64), PLAN.input, [(255, 0, 0)] * 5)
    assert grid.shape == (2 * 320, 640, 3)
    assert (grid[:, 320:] == (255, 0, 0)).all()
    assert grid[10, 10, 0] == pytest.approx(int(data.frame(0)[2, 2, 2]), abs=30)
