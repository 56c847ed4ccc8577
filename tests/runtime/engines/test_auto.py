"""Which engine ``provider="auto"`` takes for an ``.onnx`` on a CPU: by a clock of the test's own, then the real two."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from runtime.contest import Start
from runtime.fakes import FakeClock
from runtime.models import tiny_spec, write_model
from runtime.quantised import write_quantised

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError
from rtda_deploy.optional import available
from rtda_runtime.engines import open_engine
from rtda_runtime.engines.contest import agreement, in_turns, race
from rtda_runtime.engines.kept_choice import Choice, KeptChoice, case_of
from rtda_runtime.engines.pictures import natural_input, smooth_input

pytestmark = pytest.mark.skipif(not available("openvino"), reason="OpenVINO is not installed")
LOG = "rtda_runtime.engines"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines are timed, and the choice is kept in a folder of the test."""
    monkeypatch.delenv("RTDA_CONTEST", raising=False)
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contest"


@pytest.mark.parametrize(
    ("reference_s", "challenger_s", "wins"),
    [(0.1, 0.05, True), (0.104, 0.1, True), (0.102, 0.1, False), (0.1, 0.1, False), (0.1, 0.2, False)],
)
def test_openvino_is_taken_where_it_is_faster_by_more_than_the_margin_and_the_next_start_opens_only_the_winner(
    model_path: Path, reference_s: float, challenger_s: float, wins: bool
) -> None:
    start = Start(reference_s, challenger_s)
    first = start.open(model_path)
    assert first is (start.challenger if wins else start.reference)
    assert start.reference.closed is wins and start.challenger.closed is not wins
    ratio = f"{reference_s / challenger_s:.2f}"
    said = f"{ratio} times as fast as ONNX Runtime here" if wins else f"OpenVINO: {ratio} times as fast here"
    assert first.description == f"{first.provider} ({said})"
    second = start.open(model_path)
    assert second is (start.challenger if wins else start.reference) and (start.reference is None) is wins
    assert second.description == first.description and len(start.opened) == 3


def test_one_round_does_not_decide(model_path: Path, tmp_path: Path) -> None:
    assert Start(0.1, 0.05, 0.05, 0.9, 0.05).open(model_path).provider == "openvino"  # the first two warm it up
    other = write_model(tmp_path / "other.onnx", seed=3)
    assert Start(0.1, 0.2, 0.2, 0.01, 0.2).open(other).provider == "cpu"


def test_who_begins_alternates_and_rounds_are_bounded() -> None:
    clock = FakeClock()
    turns: List[str] = []
    pauses: List[float] = []

    def run(name: str, seconds: float) -> Any:
        return lambda: (turns.append(name), clock.sleep(seconds))

    for seconds, rounds in ((3.0, 3), (0.3, 3), (0.1, 5), (0.0001, 5)):
        turns.clear()
        pauses.clear()
        runs = [run("a", seconds), run("b", seconds / 2)]
        took = in_turns(runs, budget_s=1.0, clock=lambda: clock() / 1e9, sleep=pauses.append)
        assert len(took) == rounds and [a / b for a, b in took] == pytest.approx([2.0] * rounds, rel=1e-3)
        assert "".join(turns) == "abbaabbaab"[: 2 * rounds] and len(pauses) == len(turns)
    turns.clear()
    in_turns([run(name, 0.0001) for name in "abc"], rounds=(4, 4), clock=lambda: clock() / 1e9, sleep=pauses.append)
    assert "".join(turns) == "abccbaabccba"
    assert race(lambda: None, lambda: None, rounds=(2, 2))[1] > 0


@pytest.mark.parametrize(("seconds", "most_s"), [(3.0, 24.5), (0.1, 1.6), (0.02, 0.5), (0.0001, 0.4)])
def test_the_first_start_takes_its_time_and_no_more(model_path: Path, seconds: float, most_s: float) -> None:
    start = Start(seconds, seconds)
    began = start.clock()
    start.open(model_path)
    assert 0.2 <= (start.clock() - began) / 1e9 <= most_s, "a fast network runs several times in a turn"


@pytest.mark.parametrize(
    ("challenger_s", "kept"),
    [
        ((0.05, 0.05, 0.05, 0.3, 0.05, 0.05, 0.05), True),  # one of five rounds is another opinion
        ((0.05, 0.05, 0.05, 0.3, 0.05, 0.3, 0.05), False),
        ((0.1, 0.1, 0.09, 0.1, 0.09, 0.1, 0.1), True),  # hardly a difference, whoever wins
    ],
)
def test_rounds_that_disagree_decide_for_this_start_only(
    model_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, challenger_s: Any, kept: bool
) -> None:
    with caplog.at_level(logging.INFO, LOG):
        Start(0.1, *challenger_s).open(model_path)
    assert cache.exists() is kept and ("measures again" in caplog.text) is not kept


@pytest.mark.parametrize(
    ("quantised", "wrong", "wins"), [(False, 0, True), (False, 1, False), (True, 2, True), (True, 3, False)]
)
def test_another_answer_loses_however_fast(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quantised: bool, wrong: int, wins: bool
) -> None:
    path = write_quantised(tmp_path / "m.onnx") if quantised else write_model(tmp_path / "m.onnx")
    engine = Start(0.1, 0.01, wrong=wrong).open(path)  # of 96 cells
    assert engine.provider == ("openvino" if wins else "cpu")
    assert wins == ("another class" not in caplog.text) == ("times" in engine.description)


def test_masks_agree_where_they_are_equal_ties_may_go_either_way_and_nan_agrees_with_nothing() -> None:
    assert agreement(np.array([[1, 2], [3, 4]], np.uint8), np.array([[1, 2], [3, 0]], np.uint8)) == 0.75
    one = np.zeros((3, 2, 2), np.float32)
    one[0], one[1, 0, 0], one[2] = 5.0, 4.9999, -5.0
    other = one.copy()
    other[1, 0, 0] = 5.0001
    assert agreement(one, other) == 1.0
    other[1, 0, 0], one[1, 0, 0] = 5.0001, 4.99
    assert agreement(one, other) == 0.75
    assert agreement(one, np.full_like(one, np.nan)) == 0.0


@pytest.mark.parametrize(
    ("error", "kept"),
    [(EngineError("OpenVINO cannot run it"), True), (MissingPackageError("openvino does not load"), False)],
)
def test_an_openvino_that_does_not_open_the_file_loses_for_good_unless_it_can_be_repaired(
    model_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, error: Exception, kept: bool
) -> None:
    start = Start()
    start.error = error
    assert start.open(model_path) is start.reference and not start.reference.closed
    assert str(error) in caplog.text and cache.exists() is kept
    start.error = None
    assert start.open(model_path).provider == ("cpu" if kept else "openvino")


def test_a_winner_that_does_not_open_any_more_is_replaced_with_a_warning(
    model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = Start()
    assert start.open(model_path).provider == "openvino"
    start.error = MissingPackageError("package openvino is installed but does not load")
    assert start.open(model_path).description == "cpu" and "does not load" in caplog.text


def test_ctrl_c_closes_both(model_path: Path) -> None:
    start = Start(0.1, None)
    with pytest.raises(KeyboardInterrupt):
        start.open(model_path)
    assert start.reference.closed and start.challenger.closed


@pytest.mark.parametrize(("loads", "files"), [("cuda", 0), ("cpu", 1)])
def test_a_gpu_that_works_comes_first(model_path: Path, cache: Path, loads: str, files: int) -> None:
    start = Start(gpu=loads)
    engine = start.open(model_path)
    assert engine.provider == ("openvino" if files else "cuda") and len(list(cache.glob("*"))) == files
    assert [each for each in start.opened if not each.closed] == [engine]


@pytest.mark.parametrize(("said", "measures"), [("0", False), ("off", False), (" No ", False), ("1", True), ("", True)])
def test_the_measurement_can_be_switched_off(
    model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, said: str, measures: bool
) -> None:
    monkeypatch.setenv("RTDA_CONTEST", said)
    assert Start().open(model_path).provider == ("openvino" if measures else "cpu")
    assert cache.exists() is measures
    monkeypatch.setenv("RTDA_CONTEST", "perhaps")
    with pytest.raises(ConfigError, match="neither yes nor no"):
        open_engine(model_path)


@pytest.mark.parametrize(("library", "taken"), [("onnxruntime", "cpu"), ("openvino", "openvino")])
def test_the_only_library_there_is_runs_unmeasured(model_path: Path, cache: Path, library: str, taken: str) -> None:
    start = Start()
    start.installed = {library}
    assert start.open(model_path).description == taken and len(start.opened) == 1 and not cache.exists()


def test_the_choice_is_of_a_model_a_machine_threads_and_versions(model_path: Path, tmp_path: Path, cache: Path) -> None:
    case = case_of(model_path, None)
    assert set(case) == {"format", "model_sha256", "cpu", "cores", "threads", "onnxruntime", "openvino"}
    assert case == case_of(write_model(tmp_path / "copy.onnx"), None), "name and place of the model do not matter"
    assert case["model_sha256"] != case_of(write_model(tmp_path / "other.onnx", seed=3), None)["model_sha256"]
    assert case_of(model_path, 1) == {**case, "threads": 1} and all(case[key] for key in case if key != "threads")
    paths = {KeptChoice({**case, key: "another"}).path for key in case}
    assert len(paths) == len(case) and all(path is not None and path.parent == cache for path in paths)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff\xfe\x00", b"[]", b"{}", b"[" * 100_000),
        *({"winner": "tensorrt"}, {"ratio": "2"}, {"ratio": float("nan")}, {"ratio": -1.0}, {"ratio": True}),
        *({"reason": None}, {"case": {}}),
    ],
)
def test_a_broken_file_is_no_choice_and_no_error(caplog: pytest.LogCaptureFixture, content: Any) -> None:
    kept = KeptChoice({"of": "a test"})
    kept.write(Choice("openvino", 2.0))
    assert kept.path is not None and kept.read() == Choice("openvino", 2.0)
    if isinstance(content, dict):
        content = json.dumps({**json.loads(kept.path.read_text()), **content}).encode()
    kept.path.write_bytes(content)
    with caplog.at_level(logging.DEBUG, LOG):
        assert kept.read() is None
    assert "measured again" in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize("homeless", [False, True])
def test_without_a_cache_every_start_measures(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, homeless: bool
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("RTDA_CACHE", str(model_path))  # which is no folder
    if homeless:
        monkeypatch.delenv("RTDA_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", home)
    start = Start()
    for opened in (2, 4):
        assert start.open(model_path).provider == "openvino" and len(start.opened) == opened


def test_no_choice_is_kept_on_weights_that_lie_in_another_file(tmp_path: Path, cache: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="writing weights apart needs onnx")
    model = onnx.load(str(write_model(tmp_path / "m.onnx")))
    apart = tmp_path / "apart.onnx"
    onnx.save(model, str(apart), save_as_external_data=True, location="apart.data", size_threshold=0)
    Start().open(apart)
    assert not cache.exists()


def test_the_real_two_are_timed_once(model_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOG), open_engine(model_path, threads=1) as engine:
        first = engine.description
        assert engine.provider in ("cpu", "openvino") and "times as fast" in first
        assert np.isfinite(engine.infer()).all()
    assert "timing ONNX Runtime against OpenVINO" in caplog.text
    (kept,) = cache.iterdir()
    assert json.loads(kept.read_text())["case"]["threads"] == 1
    caplog.clear()
    with caplog.at_level(logging.INFO, LOG), open_engine(model_path, threads=1) as engine:
        assert engine.description == first and not caplog.records


def test_the_errors_of_a_file_that_cannot_be_opened_are_those_of_onnx_runtime(tmp_path: Path, cache: Path) -> None:
    path = write_model(tmp_path / "six.onnx", classes=6)
    with pytest.raises(EngineError, match="output logits is 1x6x8x12, its spec says 1x5x8x12"):
        open_engine(path)
    assert not cache.exists()


@pytest.mark.parametrize("output", ["logits", "mask"])
def test_the_real_two_give_the_same_classes_of_a_smooth_picture(tmp_path: Path, output: str) -> None:
    path = write_model(tmp_path / "m.onnx", tiny_spec(output=output))
    with open_engine(path, "cpu") as one, open_engine(path, "openvino") as other:
        picture = smooth_input(one.spec)
        assert np.abs(np.diff(picture * 58, axis=3)).max() < 60 and np.ptp(picture) > 3
        one.input_buffer[...] = other.input_buffer[...] = picture
        answer = one.infer()
        assert agreement(answer, other.infer()) >= 0.999
        classes = answer if output == "mask" else answer.argmax(0)
        assert len(np.unique(classes)) >= 2, "a picture of one class would prove nothing"


def test_the_test_picture_is_the_same_for_a_network_that_takes_pixels() -> None:
    spec = tiny_spec(channel_order="bgr")
    expected = smooth_input(spec)
    for changes in ({"input": "uint8"}, {"input": "uint8", "layout": "nhwc"}, {"input": "pixels"}):
        given = smooth_input(spec.replace(**changes))
        assert given.shape == spec.replace(**changes).input_shape and given.flags.c_contiguous
        pixels = (given.transpose(0, 3, 1, 2) if given.shape[3] == 3 else given).astype(np.float64)
        mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
        np.testing.assert_allclose((pixels * spec.pixel_scale - mean) / std, expected, atol=1e-6)


def test_natural_pictures_are_many_the_same_everywhere_and_fall_off_as_photographs() -> None:
    spec = tiny_spec(size_hw=(128, 256))
    one, other = natural_input(spec), natural_input(spec, 1)
    assert one.shape == (1, 3, 128, 256) and one.dtype == np.float32
    np.testing.assert_array_equal(one, natural_input(spec))
    assert np.abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5
    power = np.abs(np.fft.rfft(one[0, 1], axis=1)).mean(axis=0)
    slope = np.polyfit(np.log(np.arange(2, 64)), np.log(power[2:64]), 1)[0]
    assert -1.6 < slope < -0.9, "a line through a picture falls off by half less than the picture"
