"""verify: small differences are measured, large ones fail, and nothing else passes for agreement."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Tuple

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, EngineError, ExportError, FileAccessError, ParityError, RtdaError
from rtda_export import verify
from rtda_export.parity import LIMITS
from rtda_export.parity.compare import Comparison
from rtda_export.parity.networks import Network
from rtda_export.parity.report import percent


class FakeNetwork(Network):
    """Answers what it is told, frame after frame."""

    def __init__(self, name: str, spec: Any, *answers: np.ndarray) -> None:
        super().__init__(name, spec)
        self._answers = list(answers)

    def answer(self, image: np.ndarray) -> np.ndarray:
        return self._answers.pop(0)


def one_hot(mask: np.ndarray, classes: int = 5, height: float = 10.0) -> np.ndarray:
    return (np.arange(classes)[:, None, None] == mask).astype(np.float32) * height


def compared(workshop: Any, a: list[np.ndarray], b: list[np.ndarray], limit: str = "fp32") -> Any:
    spec = workshop.spec()
    comparison = Comparison(FakeNetwork("a.onnx", spec, *a), FakeNetwork("b.onnx", spec, *b))
    for index in range(len(a)):
        comparison.add(f"frame {index}", np.zeros((64, 64, 3), np.uint8))
    return comparison.report(LIMITS[limit])


def test_the_figures_are_those_of_a_case_done_by_hand(workshop: Any) -> None:
    left = np.zeros((8, 8), np.int64)
    left[:, 4:] = 1  # left half class 0, right half class 1
    right = np.zeros((8, 8), np.int64)
    report = compared(workshop, [one_hot(left), one_hot(left)], [one_hot(left), one_hot(right)])
    assert report.logit_range == 10.0 and report.max_abs == 10.0 and report.relative == 1.0
    assert report.pixels == 2 * 64 * 64 and report.pixels_differing == 32 * 64
    assert report.agreement == 0.75
    road, car, tree = report.classes[:3]
    assert (road.pixels, road.agreement, road.iou) == (4096, 1.0, 4096 / 6144)
    assert (car.pixels, car.agreement, car.iou) == (4096, 0.5, 0.5)
    assert (tree.pixels, tree.agreement, tree.iou) == (0, None, None)
    assert report.worst == 1
    assert len(report.missed) == 2 and not report.passed


@pytest.mark.parametrize(("limit", "passes"), [("fp32", False), ("fp16", True), ("int8", True)])
def test_each_precision_has_its_own_limit(workshop: Any, limit: str, passes: bool) -> None:
    rng = np.random.default_rng(0)
    logits = one_hot(np.zeros((8, 8), np.int64)) + rng.random((5, 8, 8), dtype=np.float32)
    report = compared(workshop, [logits], [logits + np.float32(0.01)], limit)
    assert report.agreement == 1.0
    assert report.passed is passes


def test_a_difference_just_past_a_limit_is_not_rounded_to_it(workshop: Any) -> None:
    assert percent(0.99989999) == "99.989 %"
    assert percent(0.9999999) == "99.999 %"
    assert percent(1.0) == "100 %"


def test_identical_constant_logits_agree_and_different_ones_do_not(workshop: Any) -> None:
    flat = np.zeros((5, 8, 8), np.float32)
    assert compared(workshop, [flat], [flat]).passed
    report = compared(workshop, [flat], [flat + 1])
    assert math.isinf(report.relative) and not report.passed
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_no_number_fails_and_names_the_file(workshop: Any, side: int, value: float) -> None:
    answers = [one_hot(np.zeros((8, 8), np.int64)) for _ in range(2)]
    answers[side][2, 3, 4] = value
    with pytest.raises(ParityError, match=rf"{'ab'[side]}\.onnx gives 1 of 320 logits .* on frame 0"):
        compared(workshop, [answers[0]], [answers[1]])


def test_a_letterboxed_frame_is_compared_without_its_bars(workshop: Any) -> None:
    spec = workshop.spec(resize="letterbox")
    plain, bars = one_hot(np.zeros((8, 8), np.int64)), np.zeros((8, 8), np.int64)
    bars[:2] = bars[6:] = 1  # where a frame of 2:1 leaves bars above and below
    comparison = Comparison(FakeNetwork("a", spec, plain), FakeNetwork("b", spec, one_hot(bars)))
    comparison.add("wide", np.zeros((40, 80, 3), np.uint8))
    assert comparison.report(LIMITS["int8"]).agreement == 1.0


def test_perturbed_weights_are_caught_with_figures_and_a_page(
    one_checkpoint: Path, tmp_path: Path, workshop: Any
) -> None:
    def perturb(model: Any) -> None:
        model.head.weight.add_(0.2 * model.head.weight.flip(0))

    changed = workshop.onnx(workshop.checkpoint(tmp_path, change=perturb), tmp_path / "changed.onnx")
    with pytest.raises(ParityError, match=r"changed\.onnx does not answer as best\.pth: logits differ") as caught:
        verify(one_checkpoint, changed, workshop.frames(), out_dir=tmp_path / "out")
    assert "--force" in caught.value.hint
    assert "max |Δlogit|" in caught.value.why and "verify.html" in caught.value.why
    page = (tmp_path / "out" / "verify.html").read_text(encoding="utf-8")
    assert "past its limit" in page and "data:image/png;base64," in page and "://" not in page

    report = verify(one_checkpoint, changed, workshop.frames(), force=True)
    assert not report.passed and report.relative > 1e-3


def test_one_wrong_bias_is_caught(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(one_onnx))
    bias = next(weight for weight in model.graph.initializer if weight.name == "head.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[1] += 0.05
    bias.CopyFrom(onnx.numpy_helper.from_array(values, "head.bias"))
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    with pytest.raises(ParityError):
        verify(one_onnx, tmp_path / "wrong.onnx", workshop.frames())


def test_the_json_has_the_documented_fields(
    one_checkpoint: Path, one_onnx: Path, workshop: Any, tmp_path: Path
) -> None:
    report = verify(one_checkpoint, one_onnx, workshop.frames(), out_dir=tmp_path)
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    documented = type(report).to_dict.__doc__
    assert documented is not None
    assert all(f"``{name}``" in documented for name in values)
    assert values["a"] == "best.pth" and values["b"] == "best.onnx"
    assert values["passed"] is True and values["missed"] == []
    assert values["limit"] == {"name": "fp32", "agreement": 0.9999, "logit": 0.0001}
    assert [frame["name"] for frame in values["frames"]] == ["frame 0", "frame 1"]
    assert set(values["classes"][0]) == {"name", "pixels", "agreement", "iou"}
    assert values["page"] == str(tmp_path / "verify.html")
    assert f'"logit_range": {values["logit_range"]}' in (tmp_path / "verify.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("class_names", {"class_names": ("road", "car", "tree", "sky", "rider")}),
        ("mean", {"mean": (0.5, 0.5, 0.5)}),
        ("channel_order", {"channel_order": "bgr"}),
        ("resize", {"resize": "letterbox"}),
    ],
)
def test_specs_that_differ_are_refused_by_field(
    one_onnx: Path, tmp_path: Path, workshop: Any, field: str, change: dict[str, Any]
) -> None:
    from rtda_export.graph.from_torch import read_onnx, stamped

    other = tmp_path / "other.onnx"
    other.write_bytes(stamped(read_onnx(one_onnx), workshop.spec(**change)))
    with pytest.raises(ExportError, match=rf"^{field} differs: .* in best\.onnx, .* in other\.onnx"):
        verify(one_onnx, other, workshop.frames())


def test_another_size_is_refused_with_the_size_to_export_at(
    one_checkpoint: Path, one_onnx: Path, tmp_path: Path, workshop: Any
) -> None:
    wide = workshop.onnx(one_checkpoint, tmp_path / "wide.onnx", size_hw=(32, 96))
    with pytest.raises(ExportError, match=r"size_hw differs: 64x64 in best\.onnx, 96x32 in wide\.onnx") as caught:
        verify(one_onnx, wide, workshop.frames())
    assert "--size 64x64" in caught.value.hint


def test_a_palette_or_provenance_of_its_own_is_no_difference(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    from rtda_export.graph.from_torch import read_onnx, stamped

    other = tmp_path / "other.onnx"
    other.write_bytes(stamped(read_onnx(one_onnx), workshop.spec(palette=[(1, 2, 3)] * 5)))
    assert verify(one_onnx, other, workshop.frames()).max_abs == 0.0


def test_pictures_come_from_a_folder_evenly_and_at_most_eight(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    workshop.store_frames(tmp_path / "many", 20)
    (tmp_path / "many" / "notes.txt").write_text("no picture")
    report = verify(one_onnx, one_onnx, tmp_path / "many")
    names = [frame.name for frame in report.frames]
    assert len(names) == 8 and names[0] == "0.png"
    assert len(set(names)) == 8 and sorted(names)[-1] == names[-1] == "9.png"


def test_a_single_picture_and_a_stream_work_too(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    folder = workshop.store_frames(tmp_path / "two")
    assert [frame.name for frame in verify(one_onnx, one_onnx, folder / "1.png").frames] == ["1.png"]
    report = verify(one_onnx, one_onnx, "test://bars?fps=0&frames=50&size=64x48", max_frames=4)
    numbers = [int(frame.name.split("#")[1]) for frame in report.frames]
    assert len(numbers) == 4 and numbers[0] == 0 and numbers[-1] >= 40


def test_what_cannot_be_compared_is_refused(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="holds no picture"):
        verify(one_onnx, one_onnx, tmp_path / "empty")
    with pytest.raises(RtdaError):
        verify(one_onnx, one_onnx, tmp_path / "missing.png")
    with pytest.raises(ExportError, match="no picture"):
        verify(one_onnx, one_onnx, [])
    with pytest.raises(FileAccessError, match=r"missing\.onnx"):
        verify(one_onnx, tmp_path / "missing.onnx", workshop.frames())
    with pytest.raises(ConfigError, match="fp8"):
        verify(one_onnx, one_onnx, workshop.frames(), limit="fp8")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(one_onnx.read_bytes()[:100_000])
    with pytest.raises(EngineError, match=r"cut\.onnx"):
        verify(one_onnx, cut, workshop.frames())


def test_parity_needs_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, rtda_export, rtda_export.parity.compare, rtda_export.parity.page, rtda_export.export;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_sorted_and_there() -> None:
    import rtda_export

    assert rtda_export.__all__ == sorted(rtda_export.__all__)
    assert {"export_model", "onnx_from_checkpoint", "verify"} <= set(rtda_export.__all__)
    assert all(callable(getattr(rtda_export, name)) for name in rtda_export.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rtda_export.nothing  # noqa: B018


def test_hidden_pictures_are_no_frames_to_verify_on(tmp_path: Path) -> None:
    from conftest import write_pictures

    from rtda_export.parity.frames import read_frames

    write_pictures(tmp_path, 2)
    (tmp_path / "._0.png").write_bytes(b"AppleDouble")
    assert [name for name, _ in read_frames(tmp_path)] == ["0.png", "1.png"]


def test_footage_gives_frames_spread_over_all_of_it_or_over_the_part_that_is_meant(tmp_path: Path) -> None:
    from runtime.sources.footage.videos import number_of, write_video

    from rtda_export.parity.frames import read_frames

    drives = [tmp_path / "drives" / name for name in ("1.mp4", "2.mkv")]
    for path in drives:
        path.parent.mkdir(exist_ok=True)
        write_video(path, count=20)

    def numbers(source: str) -> List[Tuple[str, int]]:
        return [(name.rpartition("/")[2], number_of(frame)) for name, frame in read_frames(source, 4)]

    assert numbers(str(drives[0])) == [(f"1.mp4 #{number}", number) for number in (0, 6, 13, 19)]
    assert [number for _, number in numbers(f"video:{drives[0]}?from=0.2s&to=0.36s")] == [5, 6, 7, 8]
    assert [name for name, _ in numbers(str(tmp_path / "drives"))] == ["1.mp4 #0", "1.mp4 #13", "2.mkv #6", "2.mkv #19"]
    with pytest.raises(RtdaError, match="evry"):
        read_frames(f"{drives[0]}?evry=1s")
