"""The pixel cache: the same batches as without it, whole or not there, and never a label of the target."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pickle
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import write_data_set

from rtda_deploy.errors import DataError, FileAccessError
from rtda_training.checkpoint import read_checkpoint
from rtda_training.data.batches import StepBatches
from rtda_training.data.config import AugmentConfig
from rtda_training.data.pixel_cache import CachedPictures, cached, cached_size
from rtda_training.plan import load_plan
from rtda_training.readers import LabelledSet, UnlabelledSet, open_labelled, open_unlabelled
from rtda_training.trainer import Trainer

SIZE_HW = (32, 64)
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture()
def data(tmp_path) -> Path:
    """Twelve pictures of 96x64 with labels."""
    return write_data_set(tmp_path / "set", 12)


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "pixels-v2").iterdir())


def batches(pictures: UnlabelledSet, augment: AugmentConfig, interpolation: str = "linear") -> StepBatches:
    return StepBatches(
        pictures,
        size_hw=SIZE_HW,
        batch_size=3,
        seed=5,
        stream=0,
        augment=augment,
        interpolation=interpolation,
        steps=8,
    )


def assert_same_batches(one: StepBatches, other: StepBatches) -> None:
    for step in range(8):
        a, b = one[step], other[step]
        assert torch.equal(a.frames, b.frames) and torch.equal(a.labels, b.labels) and a.skipped == b.skipped


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "area"])
@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(brightness=0.3, blur=0.5)])
def test_batches_are_the_same_bit_by_bit(data, interpolation, augment):
    source, target = open_labelled(f"folder:{data}"), open_unlabelled(f"folder:{data}")
    for pictures in (source, target):
        fast = cached(pictures, cached_size(SIZE_HW, 1.0), interpolation)
        assert_same_batches(batches(pictures, augment, interpolation), batches(fast, augment, interpolation))


def test_pictures_of_the_right_size_are_kept_as_they_are_at_every_scale(data):
    source = open_labelled(f"folder:{data}")  # 96x64 is 1.5 times 64x42
    augment = AugmentConfig(scale_min=0.5, scale_max=1.5)
    assert cached_size((42, 64), 1.5) == (63, 96)
    fast = cached(source, (64, 96))
    assert_same_batches(batches(source, augment), batches(fast, augment))


def test_a_set_without_labels_gets_none(data, cache):
    for path in (data / "labels").iterdir():
        path.write_bytes(b"no picture")
    fast = cached(open_unlabelled(f"folder:{data}"), SIZE_HW)
    assert type(fast) is UnlabelledSet and not hasattr(fast, "label")
    assert sorted(path.name for path in kept(cache)[0].iterdir()) == ["frames.npy", "set.json"]
    with pytest.raises(DataError, match="opened without labels"):
        CachedPictures(kept(cache)[0], open_unlabelled(f"folder:{data}"), {}).label(0)


def test_each_picture_is_decoded_once(data):
    told, notes = [], []
    cached(open_labelled(f"folder:{data}"), SIZE_HW, progress=lambda *values: told.append(values), tell=notes.append)
    assert told == [(done, 12) for done in range(1, 13)]
    assert len(notes) == 1 and "12 pictures, 0.1 MB" in notes[0]
    again = open_labelled(f"folder:{data}")
    fast = cached(again, SIZE_HW, progress=lambda *values: told.append(values), tell=notes.append)
    assert type(fast) is LabelledSet and len(notes) == 1 and len(told) == 12
    assert [fast.name(i) for i in range(12)] == [again.name(i) for i in range(12)]
    assert [fast.key(i) for i in range(12)] == [again.key(i) for i in range(12)]
    assert fast.address == again.address and fast.classes == again.classes


@pytest.mark.parametrize("change", ["size", "interpolation", "labels", "picture", "label", "order"])
def test_the_cache_is_another_when_what_it_depends_on_changes(data, cache, change):
    cached(open_labelled(f"folder:{data}"), SIZE_HW)
    address, size, interpolation = f"folder:{data}", SIZE_HW, "linear"
    opened = open_labelled
    if change == "size":
        size = (16, 32)
    elif change == "interpolation":
        interpolation = "area"
    elif change == "labels":
        opened = open_unlabelled
    elif change == "order":
        (data / "list.txt").write_text("\n".join(f"images/{i:02d}" for i in reversed(range(12))))
        address += "?list=list.txt"
    else:
        path = data / {"picture": "images", "label": "labels"}[change] / "03.png"
        old = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), old[::-1])
        os.utime(path, ns=(1, 1))
    fast = cached(opened(address), size, interpolation)
    assert len(kept(cache)) == 2
    slow = opened(address)
    first = cv2.resize(slow.frame(3), (size[1], size[0]), interpolation=3 if interpolation == "area" else 1)
    assert np.array_equal(fast.frame(3), first)


def test_a_broken_picture_stays_broken_and_is_named(data):
    (data / "images/04.png").write_bytes(b"no picture")
    cv2.imwrite(str(data / "labels/07.png"), np.zeros((8, 8), np.uint8))
    slow = open_labelled(f"folder:{data}")
    for fast in (cached(slow, SIZE_HW), cached(slow, SIZE_HW)):
        with pytest.raises(DataError, match=r"04\.png is no picture"):
            fast.frame(4)
        with pytest.raises(DataError, match=r"07\.png: picture is 96x64, its label 8x8"):
            fast.pair(7)
        assert_same_batches(batches(slow, AugmentConfig()), batches(fast, AugmentConfig()))


def test_a_loader_process_maps_the_files_instead_of_copying_them(data):
    fast = cached(open_labelled(f"folder:{data}"), SIZE_HW)
    content = pickle.dumps(fast)
    assert len(content) < 5000 < 12 * 32 * 64
    again = pickle.loads(content)
    assert np.array_equal(again.frame(2), fast.frame(2)) and np.array_equal(again.label(2), fast.label(2))


def test_nothing_is_left_when_it_breaks_off(data, cache):
    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(open_labelled(f"folder:{data}"), SIZE_HW, progress=stop)
    assert kept(cache) == []


def test_what_a_killed_process_left_is_taken_away_and_a_living_ones_is_not(data, cache):
    for name in (".64x32-killed.x", ".64x32-alive.x", ".64x32-young.x"):
        (cache / "pixels-v2" / name).mkdir(parents=True)
        (cache / "pixels-v2" / name / ".lock").touch()
        if "young" not in name:
            os.utime(cache / "pixels-v2" / name / ".lock", (time.time() - 100,) * 2)
    with open(cache / "pixels-v2/.64x32-alive.x/.lock") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        cached(open_labelled(f"folder:{data}"), SIZE_HW)
    names = [path.name for path in kept(cache)]
    assert names[:2] == [".64x32-alive.x", ".64x32-young.x"] and len(names) == 3


def test_a_full_disk_is_one_error_with_its_fix(data, cache, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FileAccessError, match="No space left") as caught:
        cached(open_labelled(f"folder:{data}"), SIZE_HW)
    assert "RTDA_CACHE" in caught.value.hint and "0.1 MB" in caught.value.why
    assert kept(cache) == []


def test_a_cache_that_somebody_broke_says_what_to_delete(data, cache):
    cached(open_labelled(f"folder:{data}"), SIZE_HW)
    (kept(cache)[0] / "labels.npy").write_bytes(b"")
    with pytest.raises(DataError, match="broken") as caught:
        cached(open_labelled(f"folder:{data}"), SIZE_HW)
    shutil.rmtree(caught.value.hint.rpartition(" ")[2])
    cached(open_labelled(f"folder:{data}"), SIZE_HW)


def test_two_processes_that_fill_it_at_once_both_end_with_a_whole_one(data, cache):
    def overtaken(done, total):
        if done == 1:
            cached(open_labelled(f"folder:{data}"), SIZE_HW)

    assert len(cached(open_labelled(f"folder:{data}"), SIZE_HW, progress=overtaken)) == 12
    assert len(kept(cache)) == 1


def test_a_training_with_the_cache_ends_with_the_same_weights(data, tmp_path, cache):
    settings = ["size=64x32", "batch_size=2", "device=cpu", "precision=fp32", "steps=3", "val_every=0"]
    fields = {"source": f"folder:{data}", "target": f"folder:{data}", "val": f"folder:{data}"}
    plain = load_plan("rtda-light-thin", settings, **fields)
    Trainer(plain, tmp_path / "plain").run()
    events = []
    Trainer(dataclasses.replace(plain, cache=True), tmp_path / "cached", events.append).run()
    one, other = (read_checkpoint(tmp_path / name / "last.pth").weights for name in ("plain", "cached"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert len(kept(cache)) == 2, "source and target"
    assert any(event.kind == "prepare" for event in events)
    for name in ("plain", "cached"):  # the export is verified on what a camera gives
        assert cv2.imread(str(tmp_path / name / "verify/0.png")).shape == (64, 96, 3)
