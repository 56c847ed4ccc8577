"""Which model, size and precision: the frontier, the sentence, times in turns, files that are made once."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, ExportError
from rtda_export.tradeoff.comparison import Comparison, compare, estimated
from rtda_export.tradeoff.making import Maker, variants
from rtda_export.tradeoff.points import Point, Variant, choice, frontier, sentence
from rtda_export.tradeoff.stamps import source_stamp
from rtda_export.tradeoff.table import markdown
from rtda_export.tradeoff.timing import in_turns


def point(name: str, ms: float, miou: Optional[float]) -> Point:
    return Point(Variant(Path(f"{name}.pth"), (512, 1024), "int8", name), Path("f.onnx"), miou, ms, ms - 1, ms + 1)


A, B, C, D = point("a", 10, 40.0), point("b", 20, 50.0), point("c", 25, 45.0), point("d", 90, 60.0)


def test_only_what_no_other_beats_is_on_the_frontier() -> None:
    assert frontier([D, C, B, A]) == [A, B, D]
    assert frontier([point("x", 10, 40.0), point("y", 10, 41.0)])[0].variant.name == "y"
    assert frontier([A, point("same", 10, 40.0)]) == [A]
    assert [each.variant.name for each in frontier([point("slow", 9, None), point("fast", 5, None)])] == ["fast"]


def test_the_most_right_that_keeps_the_rate_is_taken() -> None:
    assert choice([A, B, C, D], 30) == B and choice([A, B, C, D], 60) == A and choice([A, B, C, D], 5) == D
    assert choice([D], 30) is None
    assert sentence([A, B], 30, "here") == "for 30 masks a second here: b at 1024x512, int8 (50.0 mIoU, 20.0 ms)"
    assert "none; the fastest is a at 1024x512, int8, 100.0 a second" in sentence([A, B], 200, "on t4")
    assert sentence([point("f", 8, None)], 30, "here").endswith("f at 1024x512, int8 (8.0 ms)")


class Machine:
    """A clock that runs only while a model runs, or somebody waits; every second round all take ten times as long."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.calls = 0.0, []  # type: float, List[int]
        self.runs = [self._run(place, each) for place, each in enumerate(seconds)]
        self.slow = False

    def _run(self, place: int, seconds: float) -> Any:
        def run() -> None:
            self.calls.append(place)
            self.now += seconds * (10 if self.slow else 1)

        return run

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_all_have_their_turn_in_each_round_and_the_median_of_the_rounds_counts() -> None:
    machine, told = Machine(0.1, 0.03), []  # type: Machine, List[int]

    def tell(done: int, total: int) -> None:
        told.append(done)
        machine.slow = done == 2  # the third round

    timed = in_turns(machine.runs, rounds=5, turn_s=0.2, tell=tell, clock=lambda: machine.now, sleep=machine.sleep)
    assert told == [1, 2, 3, 4, 5]
    assert [each.ms for each in timed] == pytest.approx([100, 30])
    assert [each.high_ms for each in timed] == pytest.approx([1000, 300])
    assert machine.calls[:2] == [0, 1], "each once to warm up"
    assert machine.calls.count(0) < machine.calls.count(1), "as often as a turn takes"


@pytest.fixture(scope="module")
def labelled(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("labelled")
    workshop.store_frames(folder / "images", 3)
    (folder / "labels").mkdir()
    rng = np.random.default_rng(1)
    for index in range(3):
        mask = np.kron(rng.integers(0, 5, (6, 10)), np.ones((8, 8))).astype(np.uint8)
        assert cv2.imwrite(str(folder / "labels" / f"{index}.png"), mask)
    (folder / "classes.json").write_text(json.dumps({"names": list(workshop.classes)}))
    return f"folder:{folder}"


def compared(models: List[Path], folder: Path, address: str, lines: List[str], **options: Any) -> Comparison:
    from rtda_training.readers import open_labelled

    frame = np.full((96, 160, 3), 90, np.uint8)
    maker = Maker(folder, verify=None, calibrate=options.pop("calibrate", None), int8_target="cpu", tell=lines.append)
    wanted = variants(models, options.pop("sizes", []), options.pop("precisions", ["fp32", "fp16"]), lines.append)
    chosen = {"device": "", "per_second": 1.0, "rounds": 1, "max_pictures": 2, **options}
    data = open_labelled(address, split="test") if address else None
    return compare(wanted, maker, data=data, address=address, frame=frame, tell=lines.append, **chosen)


def test_a_model_is_made_scored_and_timed_and_the_second_time_found(
    one_checkpoint: Path, labelled: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    lines: List[str] = []
    options: Any = {"sizes": [(64, 64), (64, 96)], "precisions": ["fp32"]}
    found = compared([one_checkpoint], tmp_path, labelled, lines, **options)
    assert [line.split()[0] for line in lines] == ["export", "score"] * 2
    assert {entry.variant.title for entry in found.points} == {f"best at {size}, fp32" for size in ("64x64", "96x64")}
    for entry in found.points:
        assert entry.low_ms <= entry.ms <= entry.high_ms and entry.miou is not None and entry.file.is_file()
    assert found.pictures == 2 and found.sentence.startswith("for 1 masks a second here: best at")
    values = json.loads(json.dumps(found.to_dict()))
    assert len(values["points"]) == 2 and any(each["frontier"] for each in values["points"])
    again: List[str] = []
    second = compared([one_checkpoint], tmp_path, labelled, again, **options)
    assert again == [], "files and scores stand in the folder"
    assert {entry.file: entry.miou for entry in second.points} == {entry.file: entry.miou for entry in found.points}
    found.points[0].file.write_bytes(b"spoilt")
    compared([one_checkpoint], tmp_path, labelled, again, **options)
    assert [line.split()[0] for line in again] == ["export"]


def test_changed_pictures_under_the_same_path_are_looked_at_again(
    one_checkpoint: Path, workshop: Any, tmp_path: Path
) -> None:
    from rtda_training.readers import open_labelled

    cv2 = pytest.importorskip("cv2")
    for name in ("seen", "calibrate"):
        workshop.store_frames(tmp_path / name, 2)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        assert cv2.imwrite(str(tmp_path / name / "a.png"), np.zeros((64, 64, 3)[: 3 if name == "images" else 2]))
    (tmp_path / "classes.json").write_text(json.dumps({"names": list(workshop.classes)}))
    variant = Variant(one_checkpoint, (64, 64), "int8", "best")
    address = f"folder:{tmp_path}"
    (tmp_path / "file.onnx").write_bytes(b"")

    def known() -> Dict[str, Any]:
        """What a new comparison finds, with the score, if it takes that one."""
        options = {"verify": str(tmp_path / "seen"), "calibrate": str(tmp_path / "calibrate")}
        maker = Maker(tmp_path / "out", int8_target="cpu", tell=lambda text: None, **options)
        data = open_labelled(address, split="test")
        found = maker.kept(variant)
        maker.keep(variant, {"file": "x", "scores": {maker.score_key(tmp_path / "file.onnx", data, address, 2): 1.0}})
        return {**found, "scored": maker.score_key(tmp_path / "file.onnx", data, address, 2) in found.get("scores", {})}

    def repaint(path: Path) -> None:
        before = path.stat().st_mtime_ns
        assert cv2.imwrite(str(path), np.full((64, 64), 3, np.uint8))
        os.utime(path, ns=(before + 1, before + 1))

    known()
    assert known()["file"] == "x" and known()["scored"]
    for place, file_stays in (("seen", False), ("calibrate", False), ("images", True), ("labels", True)):
        repaint(next((tmp_path / place).glob("*.png")))
        found = known()
        assert (("file" in found), found["scored"]) == (file_stays, False), place
        assert known()["scored"]


def test_recordings_are_looked_at_as_folders_are(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"1")
    sources = [str(tmp_path / "a.mp4"), f"video:{tmp_path}/a.mp4,{tmp_path}/b.mp4?from=1", f"video:{tmp_path}/*.mp4"]
    before = [source_stamp(source) for source in sources]
    assert len(set(before)) == 3 and [source_stamp(source) for source in sources] == before
    for changed, name in enumerate(("c.mp4", "b.mp4", "a.mp4"), start=1):
        (tmp_path / name).write_bytes(b"22")
        assert [source_stamp(source) != old for source, old in zip(sources, before)].count(True) == changed
    assert source_stamp(None) == "" != source_stamp(str(tmp_path / "nothing"))


def test_the_table_says_what_a_file_ran_in_and_has_scores_where_there_are_some() -> None:
    named = dataclasses.replace(A, variant=dataclasses.replace(A.variant, precision="fp32"))
    points = (dataclasses.replace(named, runs_on="OpenVINO on cpu in bf16, 2 threads"), B)
    found = Comparison(points, "here", "a CPU", True, (720, 1280), "", 0, 30.0, ())
    lines = markdown(found.to_dict()).splitlines()
    assert lines[2] == "| **a** | 1024x512 | fp32, run in bf16 | 40.0 | 10.0 (9.0 to 11.0) | 100.0 |"
    assert lines[3] == "| **b** | 1024x512 | int8 | 50.0 | 20.0 (19.0 to 21.0) | 50.0 |"
    plain = [dataclasses.replace(each, miou=None) for each in points]
    lines = markdown(dataclasses.replace(found, points=tuple(plain)).to_dict()).splitlines()
    assert lines[2:4] == [
        "| a | 1024x512 | fp32, run in bf16 | 10.0 (9.0 to 11.0) | 100.0 |",
        "| b | 1024x512 | int8 | 20.0 (19.0 to 21.0) | 50.0 |",
    ]
    assert lines[-1].startswith("a CPU; frame to mask, frames of 1280x720. For 30 masks a second here: a at")


def test_the_picture_is_drawn(one_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from rtda_export.tradeoff.picture import save_picture

    points = tuple(point(name, ms, miou) for name, ms, miou in (("a", 10, 40.0), ("b", 20, 50.0), ("c", 25, 45.0)))
    found = Comparison(points, "here", "a CPU", True, (720, 1280), "folder:x", 9, 30.0, ())
    path = save_picture(found, tmp_path / "t.png")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_an_onnx_is_compared_at_its_own_size_and_a_quantised_one_as_it_is(
    one_checkpoint: Path, workshop: Any, tmp_path: Path
) -> None:
    lines: List[str] = []
    plain = workshop.onnx(one_checkpoint, tmp_path / "plain.onnx")
    found = variants([plain], [(128, 128)], ["fp32", "fp16"], lines.append)
    assert [each.title for each in found] == ["plain at 64x64, fp32", "plain at 64x64, fp16"]
    assert lines == ["plain is compared at its own size, 64x64: its .pth can be had at any other"]
    twice = variants([plain, one_checkpoint.with_name("plain.pth")][:1] * 2, [], ["fp32"], lines.append)
    assert len({each.name for each in twice}) == 1, "the same file twice has one name"


def test_what_cannot_be_made_is_left_out_and_said_and_nothing_at_all_is_an_error(
    one_checkpoint: Path, tmp_path: Path
) -> None:
    lines: List[str] = []
    options: Any = {"precisions": ["fp32", "int8"]}  # nothing to calibrate on
    alone = tmp_path / "alone" / "best.pth"
    alone.parent.mkdir()
    alone.write_bytes(one_checkpoint.read_bytes())
    with pytest.raises(ExportError, match="none of the variants"):
        compared([alone], tmp_path / "x", "", lines, **options)  # and nothing to verify on
    assert len([line for line in lines if "is left out" in line]) == 2
    with pytest.raises(ConfigError, match="nothing to compare"):
        variants([], [], ["fp32"], lines.append)
    with pytest.raises(ConfigError, match="precision"):
        variants([alone], [], ["fp3"], lines.append)


def test_another_device_is_estimated(one_checkpoint: Path, workshop: Any, tmp_path: Path) -> None:
    plain = workshop.onnx(one_checkpoint, tmp_path / "plain.onnx")
    variant = Variant(plain, (64, 64), "fp32", "plain")
    (found,), title = estimated([(variant, plain, 40.0)], "xavier-agx")
    assert found.low_ms < found.ms < found.high_ms and "Xavier" in title and "estimated" in found.runs_on
    with pytest.raises(ConfigError, match="xavier-agx-9"):
        estimated([(variant, plain, 40.0)], "xavier-agx-9")


def test_what_a_device_computes_in_another_precision_is_told(
    one_checkpoint: Path, workshop: Any, tmp_path: Path
) -> None:
    plain = workshop.onnx(one_checkpoint, tmp_path / "plain.onnx")
    asked: List[Any] = [(Variant(plain, (64, 64), name, name), plain, 40.0) for name in ("fp32", "fp16", "int8")]
    lines: List[str] = []
    estimated([*asked, *asked], "gtx-1080-ti", lines.append)
    assert lines == [
        "GeForce GTX 1080 Ti has no fast fp16: an engine computes in fp32 instead",
        "int8 is taken for every layer; those that an engine keeps in float cost more",
    ]
    estimated(asked[2:], "v100", lines.append)
    assert lines[2:] == ["Tesla V100 SXM2 has no fast int8: an engine computes in fp16 instead"]


def test_a_mistyped_device_is_told_before_anything_is_made(one_checkpoint: Path, tmp_path: Path) -> None:
    lines: List[str] = []
    with pytest.raises(ConfigError, match="xavier-agx-9"):
        compared([one_checkpoint], tmp_path, "", lines, device="xavier-agx-9")
    assert not lines


def test_a_file_of_another_version_of_the_exporter_is_made_again(
    one_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    lines: List[str] = []
    options: Any = {"precisions": ["fp32"], "device": "xavier-agx"}
    for version in ("1", "1", "2"):
        monkeypatch.setattr("rtda_export.tradeoff.making.__version__", version)
        compared([one_checkpoint], tmp_path, "", lines, **options)
    assert [line.split()[0] for line in lines] == ["export", "export"]
