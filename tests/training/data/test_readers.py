"""Data sets by address: folders of any user, ToyTown's cache, and targets without labels."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli.commandline import invoke
from interrupting import interrupt
from training.settings import make_pictures

from rtda_deploy.errors import ConfigError, DataError, FileAccessError
from rtda_deploy.sizes import parse_size
from rtda_training.data import toytown
from rtda_training.data.address import DataAddress
from rtda_training.data.readers.kinds import DATA_KINDS, DataKind, kinds_text
from rtda_training.readers import open_labelled, open_unlabelled


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for kind in ("images", "labels"):
            (tmp_path / split / kind / "town").mkdir(parents=True)
        for index in range(count):
            frame = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            label = rng.integers(0, 3, (24, 32), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / split / "images" / "town" / f"{index}.png"), frame)
            cv2.imwrite(str(tmp_path / split / "labels" / "town" / f"{index}.png"), label)
    classes = {"names": ["road", "sky", "car"], "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    return tmp_path


def test_addresses_are_kind_path_and_options():
    address = DataAddress.parse("toytown:target?split=test&count=3")
    assert (address.kind, address.path, address.split) == ("toytown", "target", "test")
    assert address.whole_number("count", 9) == 3
    assert DataAddress.parse(str(address)) == address
    assert parse_size("1024x512") == (512, 1024)


@pytest.mark.parametrize("text", ["toytown", "nothing:x", "toytown:mars", "toytown:source?split=dev", "folder:"])
def test_a_bad_address_is_a_usage_error(text):
    with pytest.raises(ConfigError):
        open_labelled(text)


class Painted:
    """A kind of data set in one class and one row: ``painted:COUNT``."""

    @classmethod
    def open(cls, address, split, *, labels):
        return make_pictures(int(address.path), seed=len(split))


def test_a_kind_is_one_class_and_one_row(monkeypatch):
    row = DataKind(f"{__name__}:Painted", "painted:3", "for a test", splits=("train", "all"))
    monkeypatch.setitem(DATA_KINDS, "painted", row)
    assert len(open_labelled("painted:3")) == 3 and (open_labelled("painted:3?split=all").label(0) < 5).all()
    assert open_unlabelled("painted:2?classes=camvid").classes.num_classes == 11
    assert "painted:3 (for a test)" in kinds_text()
    with pytest.raises(ConfigError) as caught:
        open_labelled("nothing:x")
    assert "painted" in caught.value.hint
    with pytest.raises(ConfigError, match="split 'val'") as caught:
        open_labelled("painted:3?split=val")
    assert "train, all" in caught.value.hint
    with pytest.raises(ConfigError, match="split 'all'") as caught:
        open_labelled("camvid:x?split=all")
    assert "'all' is for gta5, synthia, idda, video, bag, painted" in caught.value.hint


def test_the_page_of_data_sets_and_the_help_have_every_kind(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = invoke("data", "check", "--help").out
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    for name, kind in DATA_KINDS.items():
        assert kind.example.partition("?")[0].partition(":")[0] == name
        assert f"**`{kind.example.partition('?')[0]}" in page, name
        assert kind.example in shown, name


def test_unknown_options_name_the_known_ones(folder):
    with pytest.raises(ConfigError, match="colour") as caught:
        open_labelled("toytown:source?colour=red")
    assert "count" in caught.value.hint


def test_a_users_folder_with_splits_and_classes(folder):
    data = open_labelled(f"folder:{folder}")
    assert len(data) == 3 and data.classes.names == ("road", "sky", "car")
    for index in range(3):
        frame, label = data.pair(index)
        assert frame.shape == (24, 32, 3) and label.shape == (24, 32) and label.max() <= 2
    assert len(open_labelled(f"folder:{folder}?split=val")) == 2


def test_an_unlabelled_set_never_touches_labels(folder):
    for path in (folder / "train" / "labels").rglob("*.png"):
        path.unlink()
    target = open_unlabelled(f"folder:{folder}")
    assert target.frame(0).shape == (24, 32, 3)
    assert not hasattr(target, "label") and not hasattr(target, "pair")
    with pytest.raises(DataError, match="3 of 3 pictures"):
        open_labelled(f"folder:{folder}")


def test_labels_outside_the_class_list_are_named_with_their_file(folder):
    cv2.imwrite(str(folder / "train" / "labels" / "town" / "1.png"), np.full((24, 32), 7, np.uint8))
    data = open_labelled(f"folder:{folder}")
    with pytest.raises(DataError, match=r"1\.png.*outside its 3 classes: 7"):
        data.label(1)


def test_broken_and_empty_pictures_and_other_sizes_are_named(folder):
    images = folder / "train" / "images" / "town"
    (images / "0.png").write_bytes(b"no picture")
    (images / "1.png").write_bytes(b"")
    cv2.imwrite(str(images / "2.png"), np.zeros((8, 8, 3), np.uint8))
    data = open_labelled(f"folder:{folder}")
    with pytest.raises(DataError, match=r"0\.png"):
        data.frame(0)
    with pytest.raises(FileAccessError, match=r"1\.png is empty"):
        data.frame(1)
    with pytest.raises(DataError, match=r"2\.png: picture is 8x8, its label 32x24"):
        data.pair(2)


def test_a_folder_without_pictures_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no pictures"):
        open_unlabelled(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="is no folder"):
        open_unlabelled(f"folder:{tmp_path}/none")


def test_a_broken_classes_file_is_refused(folder):
    (folder / "classes.json").write_text('{"names": ["road"], "palette": []}')
    with pytest.raises(DataError, match=r"classes\.json"):
        open_labelled(f"folder:{folder}")


def test_toytown_is_rendered_once_and_read_back_as_drawn(cache):
    told = []
    address = "toytown:target?split=val&count=3&size=64x32"
    data = open_labelled(address, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (3, 3) and len(data) == 3
    frame, label = toytown.render("target", "val", 2, (32, 64))
    assert (data.frame(2) == frame).all() and (data.label(2) == label).all()
    told.clear()
    open_labelled(address, progress=lambda done, total: told.append((done, total)))
    assert told == []  # from the cache


def test_an_interrupted_rendering_leaves_nothing_behind(cache):
    with pytest.raises(KeyboardInterrupt):
        open_labelled("toytown:source?count=2&size=64x32", progress=lambda done, total: interrupt())
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_broken_cache_says_what_to_delete(cache):
    open_labelled("toytown:source?split=val&count=2&size=64x32")
    broken = next(cache.rglob("frames.npy"))
    os.truncate(broken, 10)
    with pytest.raises(DataError) as caught:
        open_labelled("toytown:source?split=val&count=2&size=64x32")
    assert str(broken.parent) in caught.value.hint
