"""Lists as people have them: of this machine or another, with commas and backslashes; links; pictures of one name."""

from __future__ import annotations

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.survey import survey
from rtda_training.readers import open_labelled, open_unlabelled

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
HW = (6, 8)


def add(path, value=0, channels=3):
    """A picture (or label) of one value, so that it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*HW, 3) if channels == 3 else HW, value, np.uint8))
    return path


def pair(root, name, value):
    add(root / "images" / name, value)
    add((root / "labels" / name).with_suffix(".png"), value % 19, channels=1)


def taken(address):
    """The value of each picture and of its label."""
    data = open_labelled(address)
    return [(int(data.frame(index)[0, 0, 0]), int(data.label(index)[0, 0])) for index in range(len(data))]


def listed(root, text, name="l.txt"):
    (root / name).write_text(text)
    return f"folder:{root}?list={name}"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "my set"
    pair(root, "town/a.png", 1)
    pair(root, "town/b 1.png", 2)
    pair(root, "drive#2.png", 3)
    pair(root, "drive.png", 4)
    return root


LINES = {
    "key": ("town/a", 1),
    "tail": ("a.png", 1),
    "dot": ("./images/town/a.png", 1),
    "dots": ("images/../images/town/a.png", 1),
    "backslashes": (r"images\town\a.png", 1),
    "another machine": ("/home/ann/data/images/town/a.png", 1),
    "another machine's drive": (r"D:\data\images\town\a.png", 1),
    "the set's own name first": ("my set/images/town/a.png", 1),
    "spaces": ("images/town/b 1.png", 2),
    "hash in a name": ("drive#2.png", 3),
    "comment": ("drive.png # the first", 4),
    "comma": ("images/town/a.png,labels/town/a.png", 1),
    "comma and space": ("images/town/b 1.png, labels/town/b 1.png", 2),
    "tab": ("images/town/b 1.png\tlabels/town/b 1.png", 2),
    "quotes": ('"images/town/b 1.png" "labels/town/b 1.png"', 2),
    "pair with spaces": ("images/town/b 1.png labels/town/b 1.png", 2),
    "pair of another machine": (r"/x/my set/images/town/a.png C:\my set\labels\town\a.png", 1),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_means_the_picture_that_it_names(root, kind):
    line, value = LINES[kind]
    assert taken(listed(root, line + "\n")) == [(value, value)]
    assert int(open_unlabelled(listed(root, line + "\n")).frame(0)[0, 0, 0]) == value


def test_absolute_paths_of_this_machine_count_through_links_and_not_beside_the_set(root, tmp_path):
    add(tmp_path / "far" / "c.png", 9)
    add(root / "labels" / "far" / "c.png", 9, channels=1)
    (root / "images" / "far").symlink_to(tmp_path / "far")
    assert taken(listed(root, f"{root}/images/town/a.png\n{tmp_path}/far/c.png\n")) == [(1, 1), (9, 9)]
    add(tmp_path / "other" / "images" / "town" / "a.png", 7)  # another set's picture of the same name
    with pytest.raises(DataError, match="names no picture"):
        open_labelled(listed(root, f"{tmp_path}/other/images/town/a.png\n"))


def test_a_bare_name_of_another_machine_is_not_guessed(root):
    with pytest.raises(DataError, match=r"l\.txt:1: '/val/drive\.png' names no picture"):
        open_labelled(listed(root, "/val/drive.png\n"))
    flat = add(root.parent / "flat" / "drive.png", 5).parent
    with pytest.raises(DataError, match="names no picture"):
        open_unlabelled(listed(flat, "/data/val/drive.png\n"))
    assert len(open_unlabelled(listed(flat, "/data/flat/drive.png\n"))) == 1
    add(flat / "b.png", 6)
    add(flat / "masks" / "b.png", 2, channels=1)
    line = "/data/flat/drive.png /data/flat/masks/b.png\n"  # two names, the second after the folder's name too
    assert taken(listed(flat, line)) == [(5, 2)]
    assert int(open_unlabelled(listed(flat, "/data/flat/drive.png /data/flat/b.png\n")).frame(0)[0, 0, 0]) == 5
    with pytest.raises(DataError, match=r"label .*town/none\.png is not there"):
        open_labelled(listed(root, "images/town/a.png,labels/town/none.png\n"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_list_of_any_editor_is_read(root, encoding):
    (root / "l.txt").write_bytes("town/a.png\r\ndrive.png\r\n".encode(encoding))
    assert taken(f"folder:{root}?list=l.txt") == [(1, 1), (4, 4)]


def test_a_plus_in_an_option_is_a_plus(root):
    assert taken(listed(root, "drive.png\n", "day+night.txt")) == [(4, 4)]
    address = DataAddress.parse("folder:x?list=a%26b+c%25.txt")
    assert address.options["list"] == "a&b+c%.txt" and DataAddress.parse(str(address)) == address
    with pytest.raises(ConfigError, match="twice"):
        DataAddress.parse("folder:x?split=val&split=train")


def test_segnets_own_list_is_read(tmp_path):
    for split in ("train", "test"):
        add(tmp_path / split / "0001TP_1.png", 5 if split == "train" else 6)
        add(tmp_path / f"{split}annot" / "0001TP_1.png", 5 if split == "train" else 6, channels=1)
    (tmp_path / "l.txt").write_text("/SegNet/CamVid/test/0001TP_1.png /SegNet/CamVid/testannot/0001TP_1.png\n")
    assert taken(f"camvid:{tmp_path}?list=l.txt") == [(6, 6)]


@pytest.mark.parametrize("kind", ["folder", "folder without images", "carla", "cityscapes", "camvid"])
@pytest.mark.parametrize("split", ["", "&split=train"])
def test_a_list_means_the_whole_set_whatever_split_its_pictures_lie_in(tmp_path, kind, split):
    layouts = {
        "folder": ("{0}/images/{1}.png", "{0}/labels/{1}.png"),
        "folder without images": ("{0}/{1}.png", "{0}annot/{1}.png"),
        "carla": ("{0}/images/{1}.png", "{0}/labels/{1}.png"),
        "cityscapes": ("leftImg8bit/{0}/x/{1}_leftImg8bit.png", "gtFine/{0}/x/{1}_gtFine_labelTrainIds.png"),
        "camvid": ("{0}/{1}.png", "{0}annot/{1}.png"),
    }
    picture, label = layouts[kind]
    for number, name in enumerate(("train", "val", "test")):
        add(tmp_path / picture.format(name, name), 10 * number)
        add(tmp_path / label.format(name, name), 1, channels=1)
    (tmp_path / "l.txt").write_text(f"{picture.format('test', 'test')} {label.format('test', 'test')}\n")
    assert taken(f"{kind.split()[0]}:{tmp_path}?list=l.txt{split}") == [(20, 0 if kind == "carla" else 1)]


def test_a_split_beside_a_list_says_which_of_two_is_meant(tmp_path):
    for number, name in enumerate(("train", "val")):
        add(tmp_path / name / "images" / "1.png", number)
        add(tmp_path / name / "labels" / "1.png", number, channels=1)
    with pytest.raises(DataError, match="more than one"):
        taken(listed(tmp_path, "1.png\n"))
    assert taken(listed(tmp_path, "1.png\n") + "&split=val") == [(1, 1)]


def test_two_pictures_of_one_name_are_a_fault_and_an_exact_name_means_one(root):
    add(root / "images" / "drive.jpg", 200)
    for open_it in (open_labelled, open_unlabelled):
        with pytest.raises(DataError, match=r"drive\.png: has the name of .*drive\.jpg") as caught:
            open_it(f"folder:{root}")
    assert "?list=" in caught.value.hint
    found = survey(f"folder:{root}")
    assert len(found.faults["same_name"]) == 1 and found.fixes["same_name"] == caught.value.hint
    assert taken(listed(root, "drive.png\n")) == [(4, 4)]
    assert taken(listed(root, "images/drive.jpg\n")) == [(200, 4)]
    with pytest.raises(DataError, match="more than one"):
        open_labelled(listed(root, "drive\n"))


def test_the_pictures_of_another_folder_are_found_by_their_exact_name_first(root, tmp_path):
    (root / "images" / "drive#2.png").unlink()
    for name in ("town/a.png", "town/b 1.png", "drive.png"):
        add(tmp_path / "other" / name, 50)
    add(tmp_path / "other" / "drive.jpg", 99)
    data = open_unlabelled(f"folder:{root}?pictures={tmp_path / 'other'}")
    assert [int(data.frame(index)[0, 0, 0]) for index in range(3)] == [50, 50, 50]


def test_what_is_left_out_is_counted_and_links_are_followed(root, tmp_path):
    add(tmp_path / "far" / "c.png", 9)
    add(root / "labels" / "far" / "c.png", 9, channels=1)
    (root / "images" / "far").symlink_to(tmp_path / "far")
    (root / "images" / "gone.png").symlink_to(tmp_path / "none.png")
    (root / "images" / "loop").symlink_to(root / "images")
    for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".Trash-0"):
        add(root / "images" / folder / "x.png", 100)
    assert sorted(taken(f"folder:{root}")) == [(1, 1), (2, 2), (3, 3), (4, 4), (9, 9)]
    found = survey(f"folder:{root}").left_out
    assert sorted(len(paths) for paths in found.values()) == [1, 1, 4]
    assert any(path.endswith("gone.png") for path in found["links to nothing"])


def test_labels_that_a_list_uses_are_not_called_unused(root):
    for name in ("p", "q"):
        pair(root, f"{name}.png", 8)
        (root / "labels" / f"{name}.png").rename(root / "labels" / f"{name}_L.png")
    add(root / "masks" / "m.png", 1, channels=1)
    (root / "labels" / "more").symlink_to(root / "masks")
    add(root / "labels" / "none.png", 1, channels=1)
    found = survey(listed(root, "images/p.png labels/../labels/p_L.png\nimages/q.png masks/m.png\n"))
    assert [path.rpartition("/")[2] for path in found.no_picture] == ["none.png"]  # q_L.png is q.png's in another list
