"""Bulk labels: units that are done when their file stands; runs that go on; what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any, Dict, List

import pytest
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import ConfigError, DataError, EngineError, FileAccessError, MissingPackageError
from rtda_deploy.files import sha256_file
from rtda_deploy.run_folders import FolderBusyError, folder_lock
from rtda_runtime.fleet.labelling import in_a_loop, label_footage
from rtda_runtime.fleet.output import MOST_ATTEMPTS, open_output
from rtda_runtime.fleet.plan import PLAN, Plan
from rtda_runtime.fleet.request import Labelled, LabelRequest
from rtda_runtime.fleet.run import Run
from rtda_runtime.fleet.units import Unit
from rtda_runtime.fleet.worker import Job, Worker
from rtda_runtime.segmenter import Segmenter

cv2 = pytest.importorskip("cv2")
pytest.importorskip("av", reason="films for the tests are written with PyAV")
videos = pytest.importorskip("runtime.sources.footage.videos")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos with a key frame each ten frames, and a folder with a picture and one below; not to be changed."""
    folder = tmp_path_factory.mktemp("footage")
    videos.write_video(folder / "one.mp4", count=24)
    videos.write_video(folder / "two.mp4", count=7)
    for number, name in enumerate(("a.jpg", "a.png", "deep/b.png")):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), videos.numbered(number))
    return folder


def request(model: Path, out: Path, *footage: Path, **changes: Any) -> LabelRequest:
    asked = LabelRequest(model, tuple(map(str, footage)), out, threads=1, unit_frames=8)
    return dataclasses.replace(asked, **changes)


def tree(folder: Path) -> Dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def units_of(out: Path) -> List[Unit]:
    plan = Plan.read(out)
    assert plan is not None
    return list(plan.units)


def test_every_frame_gets_the_mask_and_confidence_that_the_segmenter_gives(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    found = label_footage(request(model_path, tmp_path / "out", footage / "one.mp4", footage / "pictures"))
    assert (found.frames, found.skipped, found.failed, found.layout) == (27, (), (), "png")
    names = (tmp_path / "out" / "labelled.txt").read_text().split("\n")[:-1]
    assert names[0] == "one/000000.000s" and names[-3:] == ["pictures/a.jpg", "pictures/a.png", "pictures/deep/b"]
    picture = cv2.imread(str(footage / "pictures" / "deep" / "b.png"))
    with Segmenter.open(model_path, "cpu", threads=1, confidence=True) as segmenter:
        result = segmenter.segment(picture)
        for kind, expected in (("masks", result.mask), ("confidences", result.confidence)):
            path = tmp_path / "out" / kind / "pictures" / "deep" / "b.png"
            assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == expected).all()
    assert json.loads((tmp_path / "out" / "masks" / "classes.json").read_text())["names"] == list(
        tiny_spec().class_names
    )
    assert not (tmp_path / "out" / "attempts").exists()


def test_units_are_small_and_those_of_a_video_begin_at_key_frames(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    film = videos.write_video(tmp_path / "film.mp4", count=24, options={"g": "10", "sc_threshold": "0"})
    label_footage(request(model_path, tmp_path / "out", film, unit_frames=15))
    units = units_of(tmp_path / "out")
    assert [unit.numbers[0] for unit in units] == [0, 10]  # 15 frames hold one key frame after the first
    assert sorted(number for unit in units for number in unit.numbers) == list(range(24))
    assert max(len(json.dumps(unit.to_dict())) for unit in units) < 1000


def test_a_rate_and_a_part_of_a_video_are_taken(model_path: Path, footage: Path, tmp_path: Path) -> None:
    address = f"video:{footage / 'one.mp4'}?every=0.2s&to=0.8s"  # 25 frames a second
    found = label_footage(LabelRequest(model_path, (address,), tmp_path / "out"))
    assert found.frames == 4


def test_shards_hold_the_same_files_as_the_folder(model_path: Path, footage: Path, tmp_path: Path) -> None:
    for layout in ("png", "tar"):
        label_footage(request(model_path, tmp_path / layout, footage / "one.mp4", layout=layout))
    loose = {name: content for name, content in tree(tmp_path / "png").items() if name.endswith(".png")}
    packed = {}
    for path in (tmp_path / "tar" / "shards").iterdir():
        with tarfile.open(path) as archive:
            packed.update({one.name: archive.extractfile(one).read() for one in archive})  # type: ignore[union-attr]
    assert {name: content for name, content in packed.items() if name.endswith(".png")} == loose
    assert (tmp_path / "png" / "labelled.txt").read_text() == (tmp_path / "tar" / "labelled.txt").read_text()


@pytest.mark.parametrize("skipped", [0, 3, 2000])
def test_what_a_unit_says_of_itself_is_read_from_the_end_of_its_shard(tmp_path: Path, skipped: int) -> None:
    output = open_output(tmp_path, "tar")
    lost = [{"file": f"{number}.png", "key": "ü" * 20, "why": "damaged"} for number in range(skipped)]
    told = {"id": "0a", "state": "done", "frames": 30, "skipped": lost}
    with output.writing("0a", told) as writer:
        for number in range(30):
            writer.add("masks", f"{number}", b"unit.json\0" * 1000)  # as if a picture held such a name
    assert output.summary("0a") == told
    path = output.done_path("0a")
    path.write_bytes(path.read_bytes().replace(b'{"frames"', b'["frames"'))
    with pytest.raises(DataError, match=r"is damaged|no JSON"):
        output.summary("0a")


@pytest.mark.parametrize("layout", ["png", "tar"])
def test_a_run_goes_on_with_what_is_missing(model_path: Path, footage: Path, tmp_path: Path, layout: str) -> None:
    asked = request(model_path, tmp_path / "out", footage, layout=layout)
    label_footage(asked)
    before = tree(tmp_path / "out")
    units = units_of(tmp_path / "out")
    output = open_output(tmp_path / "out", layout)
    output.done_path(units[1].id).unlink()
    kept = output.done_path(units[0].id)
    stamp = kept.stat().st_mtime_ns
    (kept.parent / f".{units[1].id}.abcd1234.part{kept.suffix}").write_bytes(b"half")  # of a process that was killed
    found = label_footage(asked)
    assert (found.before, found.new_frames) == (len(units) - 1, len(units[1]))
    assert kept.stat().st_mtime_ns == stamp
    assert tree(tmp_path / "out") == before


def test_a_run_with_a_spec_of_its_own_goes_on_and_not_with_another(footage: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "bare.onnx", with_spec=False)
    asked = request(model, tmp_path / "out", footage / "two.mp4", spec=tiny_spec())
    assert label_footage(asked).frames == 7
    assert label_footage(asked).new_frames == 0
    with pytest.raises(ConfigError, match="other options: spec"):
        label_footage(dataclasses.replace(asked, spec=tiny_spec(mean=(1.0, 2.0, 3.0))))


def test_a_stopped_run_keeps_what_is_done_and_counts_no_attempt(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    asked = request(model_path, tmp_path / "out", footage / "one.mp4")

    def stop(state: Any) -> None:
        if state.done >= 10:
            raise KeyboardInterrupt

    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(KeyboardInterrupt):
            label_footage(asked, told=stop)
    assert not (tmp_path / "out" / "labelled.json").exists()
    output = open_output(tmp_path / "out", "png")
    assert sum(output.is_done(unit.id) for unit in units_of(tmp_path / "out")) == 1
    found = label_footage(asked)
    assert (found.frames, found.failed) == (24, ())


def job_of(model: Path, out: Path, layout: str = "tar") -> Job:
    return Job(str(model), sha256_file(model), str(out), layout, "cpu", 1, True)


def test_a_unit_that_kills_its_worker_is_given_up_and_tried_again_when_asked(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    asked = request(model_path, tmp_path / "out", footage / "two.mp4", layout="tar")
    label_footage(asked)
    unit = units_of(tmp_path / "out")[0]
    output = open_output(tmp_path / "out", "tar")
    output.done_path(unit.id).unlink()
    for _ in range(MOST_ATTEMPTS):  # what a worker leaves that died
        output.begin(unit.id)
    found = label_footage(asked)
    assert [failed["why"] for failed in found.failed] == [f"its worker died {MOST_ATTEMPTS} times"]
    assert (tmp_path / "out" / "labelled.txt").read_text() == ""
    assert label_footage(asked).failed == found.failed  # not in a loop
    again = label_footage(dataclasses.replace(asked, retry=True))
    assert (again.frames, again.failed) == (7, ())


def test_telling_how_far_a_run_is_costs_the_same_whatever_the_plan(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    """It is told after each frame: the units of a long plan are not counted each time."""

    counted: List[int] = []

    class Counted(Plan):
        @property
        def frames(self) -> int:
            counted.append(1)
            return super().frames

    asked = request(model_path, tmp_path / "out", footage / "one.mp4")
    label_footage(asked)
    output = open_output(tmp_path / "out", "png")
    for unit in units_of(tmp_path / "out"):
        output.done_path(unit.id).unlink()
    told: List[Any] = []
    plan = Counted.read(tmp_path / "out")
    assert plan is not None
    job = dataclasses.replace(job_of(model_path, tmp_path / "out", "png"), fingerprint=plan.machine.to_json())
    assert Run(asked, plan, output, told.append).work(in_a_loop, job).frames == 24
    assert len(told) > 24 and len(counted) == 1


def test_a_worker_that_dies_while_it_opens_the_network_has_made_an_attempt(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    label_footage(request(model_path, tmp_path / "out", footage / "one.mp4", layout="tar"))
    output, unit = open_output(tmp_path / "out", "tar"), units_of(tmp_path / "out")[0]
    output.done_path(unit.id).unlink()
    counted: List[int] = []

    class Watched(Worker):
        def open(self) -> Any:
            counted.append(output.attempts(unit.id))
            raise EngineError("no network today")

    with pytest.raises(EngineError, match="no network"):
        Watched(job_of(model_path, tmp_path / "out")).label(unit)
    assert counted == [1] and output.attempts(unit.id) == 0


def test_two_workers_at_one_unit_leave_one_whole_shard(model_path: Path, footage: Path, tmp_path: Path) -> None:
    asked = request(model_path, tmp_path / "out", footage / "one.mp4", layout="tar")
    label_footage(asked)
    before = tree(tmp_path / "out" / "shards")
    unit = units_of(tmp_path / "out")[0]
    open_output(tmp_path / "out", "tar").done_path(unit.id).unlink()
    workers = [Worker(job_of(model_path, tmp_path / "out")) for _ in range(2)]
    threads = [threading.Thread(target=worker.label, args=(unit,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        worker.close()
    assert tree(tmp_path / "out" / "shards") == before


def test_a_stop_takes_back_no_attempt_of_an_earlier_run(model_path: Path, footage: Path, tmp_path: Path) -> None:
    """Or a unit that kills its worker and a user's Ctrl-C would go on for ever."""
    asked = request(model_path, tmp_path / "out", footage / "one.mp4")

    def stop(state: Any) -> None:
        if state.what == "label" and state.done >= 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_footage(asked, told=stop)
    output, units = open_output(tmp_path / "out", "png"), units_of(tmp_path / "out")
    for unit in units[:2]:
        for _ in range(2):  # what two workers leave that died
            output.begin(unit.id)
    with pytest.raises(KeyboardInterrupt):
        label_footage(asked, told=stop)
    assert [output.attempts(unit.id) for unit in units] == [2, 2, 0]


@pytest.mark.parametrize("left", ["a plan and no classes", "half a plan"])
def test_a_run_that_was_killed_before_its_first_unit_goes_on(
    model_path: Path, footage: Path, tmp_path: Path, left: str
) -> None:
    out = tmp_path / "out"
    asked = request(model_path, out, footage / "two.mp4")
    label_footage(dataclasses.replace(asked, out=tmp_path / "other"))
    out.mkdir()
    if left == "a plan and no classes":
        (out / PLAN).write_bytes((tmp_path / "other" / PLAN).read_bytes())
    else:
        (out / ".plan.0a1b2c3d.part.json").write_text("{")
        (out / ".lock").write_text("process 1")
    assert label_footage(asked).frames == 7
    assert tree(out) == tree(tmp_path / "other")


def test_a_second_run_into_the_folder_is_refused_while_one_works(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    with folder_lock(tmp_path / "out"), pytest.raises(FolderBusyError):
        label_footage(request(model_path, tmp_path / "out", footage / "two.mp4"))


def test_another_model_other_options_and_other_footage_are_refused(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    asked = request(model_path, tmp_path / "out", footage / "two.mp4")
    label_footage(asked)
    other = write_model(tmp_path / "other.onnx", seed=3)
    with pytest.raises(ConfigError, match="another model"):
        label_footage(dataclasses.replace(asked, model=other))
    with pytest.raises(ConfigError, match="confidence True, now False"):
        label_footage(dataclasses.replace(asked, confidence=False))
    with pytest.raises(ConfigError, match="other footage: 1 files new"):
        label_footage(dataclasses.replace(asked, footage=(*asked.footage, str(footage / "one.mp4"))))
    with pytest.raises(ConfigError, match="another rate"):
        label_footage(dataclasses.replace(asked, footage=(f"video:{footage / 'two.mp4'}?every=0.1s",)))


def test_footage_that_changed_meanwhile_is_refused(model_path: Path, footage: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes((footage / "two.mp4").read_bytes())
    asked = request(model_path, tmp_path / "out", film)
    label_footage(asked)
    os.utime(film, ns=(1, 1))
    with pytest.raises(ConfigError, match="1 files changed"):
        label_footage(asked)


def test_names_that_are_odd_are_kept_apart(model_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    content = cv2.imencode(".png", videos.numbered(1))[1].tobytes()
    names = ["a.jpg", "a.png", "a.jpg.png", "b b.png", "ü#?%.png", "new\nline.png", "x" * 251 + ".png"]
    for name in (*map(os.fsencode, names), b"no text \xff.png"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)
    (folder / "loop").symlink_to(folder)
    (folder / "nothing.png").symlink_to(tmp_path / "nowhere.png")
    for layout in ("png", "tar"):
        found = label_footage(request(model_path, tmp_path / layout, folder, skip_share=0.2, layout=layout))
        assert [Path(entry["file"]).name for entry in found.skipped] == ["new\nline.png"]
        assert "line break" in found.skipped[0]["why"] and found.frames == 7
        listed = (tmp_path / layout / "labelled.txt").read_text().splitlines()
        assert len(listed) == 7 and {"a.jpg", "a.png", "a.jpg.png", "b b", "ü#?%"} < set(listed)
    masks = [path.name for path in (tmp_path / "png" / "masks").iterdir() if path.suffix == ".png"]
    assert len(masks) == 7


def test_two_frames_of_one_name_are_refused(model_path: Path, footage: Path, tmp_path: Path) -> None:
    """A video, and a folder of its frames under its name."""
    (tmp_path / "one").mkdir()
    cv2.imwrite(str(tmp_path / "one" / "000000.000s.png"), videos.numbered(1))
    with pytest.raises(ConfigError, match=r"two frames would be called one/000000\.000s"):
        label_footage(request(model_path, tmp_path / "out", footage / "one.mp4", tmp_path / "one"))
    assert not (tmp_path / "out" / PLAN).exists()


def test_a_recording_that_is_named_twice_is_labelled_once(model_path: Path, footage: Path, tmp_path: Path) -> None:
    film = footage / "two.mp4"
    assert label_footage(request(model_path, tmp_path / "out", film, film)).frames == 7
    asked = request(model_path, tmp_path / "other", film)
    with pytest.raises(ConfigError, match="named twice with different options") as caught:
        label_footage(dataclasses.replace(asked, footage=(str(film), f"video:{film}?every=1s")))
    assert "every=1s" in caught.value.why


def test_two_topics_of_a_bag_are_both_labelled(model_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("mcap")
    from runtime.sources import bags

    messages = bags.drive(4)
    bag = bags.write_mcap(tmp_path / "run.mcap", {"/front": messages, "/left": messages[:3]})
    address = f"bag:{bag}?topic="
    asked = LabelRequest(model_path, (f"{address}/front", f"{address}/left"), tmp_path / "out", threads=1)
    assert label_footage(asked).frames == 7
    folders = [path.name for path in (tmp_path / "out" / "masks").iterdir() if path.is_dir()]
    assert sorted(len(list((tmp_path / "out" / "masks" / name).iterdir())) for name in folders) == [3, 4]


def test_a_machine_that_lacks_a_package_ends_the_run_and_blames_no_unit(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mcap")
    from runtime.sources import bags

    asked = request(model_path, tmp_path / "out", bags.write_mcap(tmp_path / "run.mcap", {"/front": bags.drive(4)}))

    def lose(state: Any) -> None:
        if state.what == "label":
            monkeypatch.setitem(sys.modules, "mcap.reader", None)

    with pytest.raises(MissingPackageError, match="mcap"):
        label_footage(asked, told=lose)
    monkeypatch.undo()
    found = label_footage(asked)
    assert (found.frames, found.failed) == (4, ())


def test_a_folder_of_something_else_is_refused(model_path: Path, footage: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="other files, such as thesis"):
        label_footage(request(model_path, tmp_path / "out", footage))
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]


def damaged_footage(folder: Path) -> Path:
    """Three good pictures, a broken one, an empty one and a video that is none."""
    folder.mkdir()
    for name in ("1.png", "2.png", "3.png", "broken.png"):
        cv2.imwrite(str(folder / name), videos.numbered(5))
    (folder / "broken.png").write_bytes((folder / "broken.png").read_bytes()[:60])
    (folder / "empty.png").touch()
    (folder / "film.mp4").write_bytes(b"no film" * 100)
    return folder


def test_damaged_files_are_named_and_left_out_up_to_a_share(model_path: Path, tmp_path: Path) -> None:
    folder = damaged_footage(tmp_path / "footage")
    asked = request(model_path, tmp_path / "out", folder, skip_share=0.5)
    found: Labelled = label_footage(asked)
    assert found.frames == 3 and not found.failed
    assert sorted(Path(entry["file"]).name for entry in found.skipped) == ["broken.png", "empty.png", "film.mp4"]
    assert all(entry["why"] for entry in found.skipped)
    assert (tmp_path / "out" / "labelled.txt").read_text().split() == ["footage/1", "footage/2", "footage/3"]
    with pytest.raises(DataError, match="of 6 files are damaged, more than --skip 20%"):
        label_footage(dataclasses.replace(asked, skip_share=0.2, out=tmp_path / "other"))


def test_a_video_that_is_cut_off_gives_the_frames_that_are_there(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    whole = videos.write_video(tmp_path / "film.ts", count=24, container="mpegts")
    content = whole.read_bytes()
    middle = len(content) // 2 // 188 * 188
    whole.write_bytes(content[:middle] + b"\xff" * 188 * 2 + content[middle + 376 :])
    found = label_footage(request(model_path, tmp_path / "out", whole, skip_share=1.0))
    assert 0 < found.frames <= 24 and not found.failed
    assert found.frames + len(found.skipped) == sum(len(unit) for unit in units_of(tmp_path / "out"))


def test_a_file_that_is_gone_fails_its_unit_and_no_other(model_path: Path, footage: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes((footage / "two.mp4").read_bytes())

    def lose(state: Any) -> None:
        if state.what == "label":
            film.unlink(missing_ok=True)

    found = label_footage(request(model_path, tmp_path / "out", footage / "pictures", film), told=lose)
    assert found.frames == 3
    assert [failed["path"] for failed in found.failed] == [str(film)]
    assert "not there any more" in found.failed[0]["why"]


def test_a_network_that_answers_nan_fails_the_unit_and_names_it(footage: Path, tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = write_model(tmp_path / "nan.onnx")
    graph = onnx.load(str(model))
    weights = numpy_helper.to_array(graph.graph.initializer[0]) * np.float32("nan")
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, graph.graph.initializer[0].name))
    onnx.save(graph, str(model))
    found = label_footage(request(model, tmp_path / "out", footage / "two.mp4"))
    assert found.frames == 0 and "NaN" in found.failed[0]["why"]


def test_an_output_that_cannot_be_written_ends_the_run_and_blames_no_unit(
    model_path: Path, footage: Path, tmp_path: Path
) -> None:
    asked = request(model_path, tmp_path / "out", footage / "two.mp4")

    def block(state: Any) -> None:
        if state.what == "label" and not (tmp_path / "out" / "confidences").exists():
            (tmp_path / "out" / "confidences").touch()  # a file where a folder is needed

    with pytest.raises(FileAccessError):
        label_footage(asked, told=block)
    (tmp_path / "out" / "confidences").unlink()
    assert label_footage(asked).frames == 7


def test_a_worker_refuses_another_model_under_the_same_name(model_path: Path, footage: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(job_of(model_path, tmp_path), sha256="0" * 64)
    with pytest.raises(EngineError, match="another model here"):
        Worker(job).open()


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("nowhere.mp4", FileAccessError, "nowhere"),
        ("nowhere", FileAccessError, "cannot read nowhere"),
        ("empty", ConfigError, "no pictures, videos or bags"),
        ("notes.txt", ConfigError, "is no footage"),
    ],
)
def test_what_is_no_footage_is_refused(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: Any, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").write_text("no footage")
    with pytest.raises(error, match=match):
        label_footage(LabelRequest(model_path, (text,), Path("out")))
    assert not Path("out").exists()


def test_a_plan_that_is_none_is_refused(model_path: Path, footage: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for text in ("{", '{"format": 99}', "[]", '{"format": 1}'):
        (tmp_path / "out" / PLAN).write_text(text)
        with pytest.raises(DataError, match=r"plan|no JSON|format"):
            label_footage(request(model_path, tmp_path / "out", footage))


@pytest.mark.parametrize("room", ["units", "failed"])
@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"id": "a", "state": "failed", "frames": 0, "skipped": [5]}'])
def test_a_damaged_file_that_says_what_became_of_a_unit_is_named(
    model_path: Path, footage: Path, tmp_path: Path, room: str, text: str
) -> None:
    out = tmp_path / "out"
    label_footage(request(model_path, out, footage / "pictures"))
    done = next((out / "units").iterdir())
    damaged = out / room / done.name
    done.unlink()
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_text(text)
    with pytest.raises(DataError, match=f"{room}/{done.name}") as caught:
        label_footage(request(model_path, out, footage / "pictures"))
    assert "remove it" in caught.value.hint
    damaged.unlink()
    assert label_footage(request(model_path, out, footage / "pictures")).frames == 3


@pytest.mark.parametrize(
    "place, value",
    [
        ("asked", {}),
        ("asked", []),
        ("asked.options", 5),
        ("asked.files", None),
        ("asked.files", [5]),
        ("asked.sha256", 5),
        ("asked.rates", [["a"]]),
        ("machine", []),
        ("machine.pixels", []),
        ("units.0.id", "../../elsewhere"),
        ("units.0.folder", "../elsewhere/"),
        ("units.0.folder", "/elsewhere/"),
        ("units.0.names", ["one"]),
    ],
)
def test_a_plan_that_was_edited_is_refused_and_writes_nowhere(
    model_path: Path, footage: Path, tmp_path: Path, place: str, value: Any
) -> None:
    out = tmp_path / "out"
    label_footage(request(model_path, out, footage / "pictures"))
    plan = json.loads((out / PLAN).read_text())
    *above, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner = plan
    for key in above:
        inner = inner[key]
    inner[last] = value
    (out / PLAN).write_text(json.dumps(plan))
    shutil.rmtree(out / "units")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="is no plan of labels") as caught:
        label_footage(request(model_path, out, footage / "pictures"))
    assert caught.value.why and "--out" in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before
