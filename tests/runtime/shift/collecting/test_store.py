"""The folder of collected frames: complete after every kill and every refusal of the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from runtime.models import tiny_spec

from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_runtime.shift.collecting.store import FrameStore
from rtda_runtime.sinks.masks import own_png

PNG = own_png(np.zeros((4, 6), np.uint8))
FILES = {"images": b"\xff\xd8 a picture", "labels": PNG, "confidence": PNG}


def names_below(folder: Path) -> List[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def lines_of(folder: Path) -> List[Dict[str, Any]]:
    content = (folder / "frames.jsonl").read_text(encoding="utf-8")
    assert not content or content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def filled(folder: Path, count: int) -> List[str]:
    store = FrameStore(folder, tiny_spec())
    names = []
    for number in range(count):
        names.append(store.new_id(number))
        store.write({"id": names[-1], "number": number}, FILES)
    store.close()
    return names


def test_a_frame_is_three_files_and_a_line(tmp_path: Path) -> None:
    (name,) = filled(tmp_path / "hard", 1)
    assert name == "19700101-000000-000000"
    files = [f"confidence/{name}.png", f"images/{name}.jpg", f"labels/{name}.png"]
    assert names_below(tmp_path / "hard") == ["classes.json", *files[:1], "frames.jsonl", *files[1:]]
    assert lines_of(tmp_path / "hard") == [{"id": name, "number": 0}]
    again = FrameStore(tmp_path / "hard", tiny_spec())
    assert again.sizes == {name: sum(map(len, FILES.values()))} and again.bytes == again.sizes[name]
    again.close()


def test_no_frame_takes_the_name_of_another_where_a_clock_is_set_back(tmp_path: Path) -> None:
    store = FrameStore(tmp_path / "hard", tiny_spec())
    for _ in range(3):
        store.write({"id": store.new_id(5_000)}, FILES)
    assert list(store.lines) == [f"19700101-000000-00000{number}" for number in (5, 6, 7)]
    store.close()


def test_lines_of_frames_that_gave_way_are_left_out_at_the_end_and_now_and_then(tmp_path: Path) -> None:
    folder = tmp_path / "hard"
    names = filled(folder, 3)
    store = FrameStore(folder, tiny_spec())
    store.remove(names[1])
    assert len(lines_of(folder)) == 3
    store.close()
    assert [line["id"] for line in lines_of(folder)] == [names[0], names[2]]
    store = FrameStore(folder, tiny_spec())
    most = 0
    for number in range(10, 140):
        name = store.new_id(number * 1000)
        store.write({"id": name}, {"images": b"x", "labels": b"y"})
        store.remove(name)
        most = max(most, len(lines_of(folder)))
    store.close()
    assert 50 < most < 130 and len(lines_of(folder)) == 2


@pytest.mark.parametrize("killed_after", ["confidence", "labels", "half a line", "line", "image that gave way"])
def test_what_a_kill_left_is_taken_away_at_the_next_start(tmp_path: Path, killed_after: str) -> None:
    folder = tmp_path / "hard"
    names = filled(folder, 2)
    before = names_below(folder)
    other = "20261130-101112-000001"
    temporary = folder / "images" / f".{other}.0a1b2c3d.part.jpg"
    temporary.write_bytes(b"half")
    if killed_after == "image that gave way":
        (folder / "images" / f"{names[1]}.jpg").unlink()
        before = [name for name in before if names[1] not in name]
    else:
        for part in ("confidence", "labels") if killed_after != "confidence" else ("confidence",):
            (folder / part / f"{other}.png").write_bytes(PNG)
        line = json.dumps({"id": other}) + "\n"
        with open(folder / "frames.jsonl", "a", encoding="utf-8") as stream:
            stream.write({"half a line": line[:9], "line": line}.get(killed_after, ""))
    store = FrameStore(folder, tiny_spec())
    assert names_below(folder) == sorted([*before, ".lock"])
    store.close()
    assert names_below(folder) == before
    assert [line["id"] for line in lines_of(folder)] == names[: 1 if killed_after == "image that gave way" else 2]


def test_what_people_put_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "hard"
    (name,) = filled(folder, 1)
    (folder / "labels" / f"{name}.png").write_bytes(b"corrected by hand")
    (folder / "labels" / "20261130-101112-000001.png").write_bytes(b"corrected, its picture is elsewhere")
    (folder / "images" / "own.jpg").write_bytes(b"own")
    (folder / "labels" / "own.png").write_bytes(PNG)
    before = names_below(folder)
    FrameStore(folder, tiny_spec()).close()
    assert names_below(folder) == before


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds notes\.txt, and no frames"):
        FrameStore(tmp_path, tiny_spec())
    assert names_below(tmp_path) == ["notes.txt"]


def test_frames_of_other_classes_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "hard", 1)
    other = tiny_spec(class_names=("road", "building", "sky", "car", "person"))
    with pytest.raises(ConfigError, match="other classes than this network's") as caught:
        FrameStore(tmp_path / "hard", other)
    assert caught.value.why == "other names" and "new folder" in caught.value.hint
    FrameStore(tmp_path / "hard", tiny_spec()).close()


def test_one_process_collects_into_a_folder(tmp_path: Path) -> None:
    store = FrameStore(tmp_path / "hard", tiny_spec())
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from runtime.models import tiny_spec\n"
        "from rtda_runtime.shift.collecting.store import FrameStore\n"
        f"FrameStore({str(tmp_path / 'hard')!r}, tiny_spec())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "FolderBusyError" in done.stderr and done.returncode
    store.close()


def test_a_place_that_is_a_file_or_may_not_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileAccessError):
            FrameStore(place, tiny_spec())


_LIMITED = """
import resource, signal, sys
sys.path.insert(0, "tests")
from pathlib import Path
from runtime.models import tiny_spec
from rtda_deploy.errors import FileAccessError
from rtda_runtime.shift.collecting.store import FrameStore
store = FrameStore(Path(sys.argv[1]), tiny_spec())
small = {"images": b"i" * 10, "labels": b"l" * 10}
store.write({"id": "20260101-000000-000001", "say": "x" * 400}, small)
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
large = b"x" * 800
for number, files, say in ((2, {**small, "images": large}, 1), (3, {**small, "labels": large}, 1), (4, small, 400)):
    try:
        store.write({"id": f"20260101-000000-00000{number}", "say": "x" * say}, files)
        print("written")
    except FileAccessError as err:
        print(err)
    assert (Path(sys.argv[1]) / "frames.jsonl").read_bytes().endswith(b"}\\n"), "before anybody brings it in order"
store.close()
"""


def test_a_disk_that_refuses_leaves_whole_frames_and_whole_lines(tmp_path: Path) -> None:
    """The limit of a file's size stands for the full disk: no file may grow beyond 700 bytes."""
    folder = tmp_path / "hard"
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3 and all("cannot write" in line and "File too large" in line for line in said)
    assert "000002.jpg" in said[0] and "000003.png" in said[1] and "frames.jsonl" in said[2]
    name = "20260101-000000-000001"
    assert names_below(folder) == ["classes.json", "frames.jsonl", f"images/{name}.jpg", f"labels/{name}.png"]
    assert [line["id"] for line in lines_of(folder)] == [name]


_WATCHED = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from runtime.models import tiny_spec
from rtda_runtime.shift.collecting.store import FrameStore

folder = Path(sys.argv[1]) / "hard"
store = FrameStore(folder, tiny_spec())
lines = folder / "frames.jsonl"

def told(event, given):
    place = {"os.rename": 1, "os.remove": 0}.get(event)
    if place is not None and Path(given[place]).parent.parent == folder:
        print(event, Path(given[place]).parent.name, lines.read_text().count("0001"))

sys.addaudithook(told)
store.write({"id": "20260101-000000-000001"}, dict.fromkeys(("images", "labels", "confidence"), b"x"))
store.remove("20260101-000000-000001")
"""


def test_the_picture_comes_last_after_its_line_and_goes_first(tmp_path: Path) -> None:
    """So that at any moment each picture has its mask and its line."""
    done = subprocess.run([sys.executable, "-c", _WATCHED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = ["os.rename confidence 0", "os.rename labels 0", "os.rename images 1"]
    gone = ["os.remove images 1", "os.remove labels 1", "os.remove confidence 1"]
    assert done.stdout.splitlines() == [*written, *gone]
