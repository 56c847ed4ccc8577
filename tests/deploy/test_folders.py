"""What of a folder is data: links are followed once, hidden and system folders are not looked into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtda_deploy.errors import FileAccessError
from rtda_deploy.folders import is_hidden, walk


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


def found(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    answer = walk(folder, lambda name: name.endswith(".png"))
    left = {why: [path.name for path in paths] for why, paths in answer.left_out.items()}
    return [path.relative_to(folder).as_posix() for path in answer.files], left


def test_linked_folders_and_files_are_read_where_they_are_linked(tmp_path: Path) -> None:
    made(tmp_path, "elsewhere/day/2.png", "elsewhere/3.png", "set/1.png")
    (tmp_path / "set/drive").symlink_to(tmp_path / "elsewhere/day")
    (tmp_path / "set/4.png").symlink_to("../elsewhere/3.png")
    assert found(tmp_path / "set") == (["1.png", "4.png", "drive/2.png"], {})


def test_links_that_lead_back_and_folders_linked_twice_are_read_once(tmp_path: Path) -> None:
    made(tmp_path, "set/images/1.png", "set/labels/9.png", "far/2.png")
    images = tmp_path / "set/images"
    for name, target in {"up": "..", "me": ".", "a": "../../far", "b": "../../far"}.items():
        (images / name).symlink_to(target)
    (tmp_path / "far/back").symlink_to(tmp_path / "far")
    files, left = found(images)
    assert files == ["1.png", "a/2.png"]
    assert sorted(name for names in left.values() for name in names) == ["b", "back", "me", "up"]


def test_what_is_no_data_is_left_out_and_counted(tmp_path: Path) -> None:
    hidden = (".ipynb_checkpoints", "@eaDir", ".Trash-0", "__MACOSX", "lost+found", "$RECYCLE.BIN", ".git")
    made(tmp_path, "1.png", "notes.txt", "._1.png", ".hidden.txt", *(f"{name}/2.png" for name in hidden))
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe.png")
    files, left = found(tmp_path)
    assert files == ["1.png"]
    assert left["hidden or system folders and files"] == sorted([*hidden, "._1.png"])
    assert left["links to nothing"] == ["gone.png", "self"]
    assert [names for why, names in left.items() if "pipes" in why] == [["pipe.png"]]


def test_only_names_below_the_folder_count() -> None:
    assert not is_hidden("@61532@1.jpg")  # IDDA's pictures
    assert is_hidden("@EADIR")


def test_a_hidden_folder_that_was_typed_is_read(tmp_path: Path) -> None:
    made(tmp_path, ".cache/1.png")
    assert found(tmp_path / ".cache")[0] == ["1.png"]
    with pytest.raises(FileAccessError, match="cannot list"):
        walk(tmp_path / "none", lambda name: True)
