"""Which engine ``provider="auto"`` takes for an ``.onnx`` on a CPU: the race on a clock of ours, then the real two."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import pytest
from runtime.fakes import FakeClock, NumpyEngine
from runtime.models import tiny_spec, write_model
from runtime.quantised import write_quantised

from rtda_deploy.errors import ConfigError, EngineError, MissingPackageError
from rtda_deploy.optional import available
from rtda_runtime.engines import Engine, contest, open_engine, verdict
from rtda_runtime.engines.contest import agreement, hold_contest, is_quantised, race, synthetic_input
from rtda_runtime.engines.verdict import OPENVINO, ORT, Verdict, VerdictFile

needs_openvino = pytest.mark.skipif(not available("openvino"), reason="OpenVINO is not installed")
LOG = "rtda_runtime.engines"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Contests are held, and kept in a folder of the test."""
    monkeypatch.delenv("RTDA_CONTEST", raising=False)
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contest"


class Contestants:
    """Two engines that take as long as they are told, and what became of the contest between them."""

    def __init__(
        self, reference_s: float, *challenger_s: float, wrong: int = 0, error: Optional[BaseException] = None
    ) -> None:
        self.clock = FakeClock()
        self.turns: List[str] = []
        durations = itertools.chain(challenger_s, itertools.repeat(challenger_s[-1]))
        self.reference = NumpyEngine(before=lambda: self._work("reference", reference_s))
        self.challenger = Wrong(wrong, before=lambda: self._work("challenger", next(durations)))
        self._error = error

    def _work(self, name: str, seconds: float) -> None:
        self.turns.append(name)
        self.clock.sleep(seconds)

    def open_challenger(self) -> Engine:
        if self._error is not None:
            raise self._error
        return self.challenger

    def hold(self, path: Path, file: Optional[VerdictFile] = None) -> Engine:
        return hold_contest(
            self.reference,
            self.open_challenger,
            path,
            file or VerdictFile(None, {}),
            clock=lambda: self.clock() / 1e9,
            sleep=self.clock.sleep,
        )


class Wrong(NumpyEngine):
    """Gives the first cells another class."""

    def __init__(self, cells: int, before: Callable[[], Any]) -> None:
        super().__init__(before=before)
        self._cells = cells

    def _infer(self) -> np.ndarray:
        logits = super()._infer()
        flat = logits.reshape(len(logits), -1)
        flat[:, : self._cells] = np.roll(flat[:, : self._cells], 1, axis=0)
        return logits


# the race


@pytest.mark.parametrize(
    ("reference_s", "challenger_s", "wins"),
    [(0.1, 0.05, True), (0.104, 0.1, True), (0.102, 0.1, False), (0.1, 0.1, False), (0.1, 0.2, False)],
)
def test_openvino_is_taken_only_if_it_wins_by_more_than_the_margin(
    model_path: Path, reference_s: float, challenger_s: float, wins: bool
) -> None:
    made = Contestants(reference_s, challenger_s)
    winner = made.hold(model_path)
    assert winner is (made.challenger if wins else made.reference)
    assert not winner.closed and made.reference.closed is wins and made.challenger.closed is not wins
    ratio = f"{reference_s / challenger_s:.2f}"
    said = f"{ratio} times as fast as ONNX Runtime here" if wins else f"OpenVINO: {ratio} times as fast here"
    assert winner.description == f"the tiny network in NumPy ({said})"


def test_one_round_does_not_decide(model_path: Path) -> None:
    slow_once = Contestants(0.1, 0.05, 0.05, 0.9, 0.05)  # two of them warm it up
    assert slow_once.hold(model_path) is slow_once.challenger
    quick_once = Contestants(0.1, 0.2, 0.2, 0.01, 0.2)
    assert quick_once.hold(model_path) is quick_once.reference


def test_who_begins_changes_from_round_to_round() -> None:
    made = Contestants(0.1, 0.1)
    race(made.reference, made.challenger, 1, lambda: made.clock() / 1e9, made.clock.sleep)
    begins = made.turns[::2]
    assert begins == ["reference", "challenger"] * 2 + ["reference"] and len(made.turns) == 10


@pytest.mark.parametrize(
    ("seconds", "least_rounds", "most_rounds", "most_s"),
    [(3.0, 3, 3, 24.5), (0.3, 3, 4, 3.2), (0.1, 5, 5, 1.6), (0.02, 5, 5, 0.5), (0.0001, 5, 5, 0.4)],
)
def test_the_contest_has_a_budget(
    model_path: Path, seconds: float, least_rounds: int, most_rounds: int, most_s: float
) -> None:
    made = Contestants(seconds, seconds)
    start = made.clock()
    made.hold(model_path)
    assert (made.clock() - start) / 1e9 <= most_s
    turn = max(1, round(0.02 / seconds))
    warm = 1 if seconds > 0.25 else 2
    assert least_rounds <= (made.turns.count("reference") - warm) / turn <= most_rounds
    assert made.turns.count("reference") == made.turns.count("challenger")


@pytest.mark.parametrize(
    ("challenger_s", "kept"),
    [
        ((0.05,), True),
        ((0.05, 0.05, 0.05, 0.3, 0.05, 0.05, 0.05), True),  # one of five rounds is another opinion
        ((0.05, 0.05, 0.05, 0.3, 0.05, 0.3, 0.05), False),
        ((0.1, 0.1, 0.09, 0.1, 0.09, 0.1, 0.1), True),  # hardly a difference, whoever wins
    ],
)
def test_rounds_that_disagree_decide_for_this_start_only(
    model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, challenger_s: Any, kept: bool
) -> None:
    file = VerdictFile(tmp_path / "verdict.json", {"of": "a test"})
    with caplog.at_level(logging.INFO, LOG):
        Contestants(0.1, *challenger_s).hold(model_path, file)
    assert (file.read() is not None) is kept
    assert ("measures again" in caplog.text) is not kept


# the same answer


@pytest.mark.parametrize(
    ("quantised", "wrong", "wins"), [(False, 0, True), (False, 1, False), (True, 2, True), (True, 3, False)]
)
def test_another_answer_loses_however_quick(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quantised: bool, wrong: int, wins: bool
) -> None:
    path = write_quantised(tmp_path / "m.onnx") if quantised else write_model(tmp_path / "m.onnx")
    made = Contestants(0.1, 0.01, wrong=wrong)  # of 96 cells
    assert made.hold(path) is (made.challenger if wins else made.reference)
    assert wins == ("another class" not in caplog.text)
    assert made.reference.description == "the tiny network in NumPy"


def test_logits_that_tie_may_go_either_way() -> None:
    one = np.zeros((3, 2, 2), np.float32)
    one[0], one[1, 0, 0], one[2] = 5.0, 4.9999, -5.0
    other = one.copy()
    other[1, 0, 0] = 5.0001
    assert agreement(one, other) == 1.0
    other[1, 0, 0], one[1, 0, 0] = 5.0001, 4.99
    assert agreement(one, other) == 0.75


def test_masks_agree_where_they_are_equal_and_nan_agrees_with_nothing() -> None:
    assert agreement(np.array([[1, 2], [3, 4]], np.uint8), np.array([[1, 2], [3, 0]], np.uint8)) == 0.75
    logits = np.zeros((2, 4, 4), np.float32)
    assert agreement(logits, np.full_like(logits, np.nan)) == 0.0


def test_the_picture_of_the_contest_is_normalised_as_the_spec_says() -> None:
    spec = tiny_spec()
    made = synthetic_input(spec)
    assert made.shape == (1, 3, 64, 96) and made.dtype == np.float32
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    pixels = (made[0] * std + mean) / spec.pixel_scale
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-3)
    assert pixels.min() > -0.5 and pixels.max() < 255.5 and np.ptp(pixels, axis=(1, 2)).min() > 200
    assert np.abs(np.diff(pixels, axis=2)).max() < 60, "smooth"


def test_a_file_with_nodes_that_quantise_runs_in_int8(tmp_path: Path, model_path: Path) -> None:
    assert is_quantised(write_quantised(tmp_path / "int8.onnx"))
    assert not is_quantised(model_path)


# losers


@needs_openvino
def test_an_openvino_that_does_not_open_the_file_loses_for_good(
    model_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Contestants(0.1, 0.1, error=EngineError("OpenVINO cannot run it", why="no such operator"))
    file = VerdictFile.of(model_path, None)
    assert made.hold(model_path, file) is made.reference and not made.reference.closed
    assert file.read() == Verdict(ORT, reason="OpenVINO cannot run it")
    assert "OpenVINO cannot run it" in caplog.text


@needs_openvino
def test_an_openvino_that_does_not_load_is_tried_again_at_the_next_start(model_path: Path, cache: Path) -> None:
    made = Contestants(0.1, 0.1, error=MissingPackageError("package openvino is installed but does not load"))
    file = VerdictFile.of(model_path, None)
    assert made.hold(model_path, file) is made.reference and file.read() is None


def test_ctrl_c_closes_both(model_path: Path) -> None:
    made = Contestants(0.1, 0.1)

    def interrupted() -> None:
        raise KeyboardInterrupt

    made.challenger.before = interrupted
    with pytest.raises(KeyboardInterrupt):
        made.hold(model_path)
    assert made.reference.closed and made.challenger.closed


# what is kept


@needs_openvino
def test_the_verdict_is_kept_and_read_again(model_path: Path, cache: Path) -> None:
    file = VerdictFile.of(model_path, None)
    assert file.read() is None
    for made in (Verdict(OPENVINO, 1.25), Verdict(ORT, 0.5), Verdict(ORT, reason="no")):
        file.write(made)
        assert VerdictFile.of(model_path, None).read() == made
    assert [path.name for path in cache.iterdir()] == [file.path.name if file.path else ""], "no leftovers"


@needs_openvino
def test_another_model_thread_count_machine_or_version_has_another_file(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [VerdictFile.of(model_path, None), VerdictFile.of(model_path, 1)]
    made.append(VerdictFile.of(write_model(tmp_path / "other.onnx", seed=3), None))
    changes: Dict[str, Any] = {
        "usable_cores": lambda: 77,
        "cpu_model": lambda: "Another",
        "_openvino_version": lambda: "1.0",
        "_FORMAT": 99,
    }
    for name, value in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(verdict, name, value)
            made.append(VerdictFile.of(model_path, None))
    same = write_model(tmp_path / "copy.onnx")
    assert VerdictFile.of(same, None).path == made[0].path, "the name and place of the model do not matter"
    assert len({file.path for file in made}) == len(made)


@needs_openvino
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"case": {}, "winner": "openvino", "ratio": 2.0, "reason": ""}',
        {"winner": "tensorrt"},
        {"ratio": "2"},
        {"ratio": float("nan")},
        {"ratio": -1.0},
        {"ratio": True},
        {"reason": None},
    ],
)
def test_a_broken_file_is_no_verdict_and_no_error(
    model_path: Path, caplog: pytest.LogCaptureFixture, content: Any
) -> None:
    file = VerdictFile.of(model_path, None)
    file.write(Verdict(OPENVINO, 2.0))
    assert file.path is not None
    if isinstance(content, dict):
        content = json.dumps({**json.loads(file.path.read_text()), **content}).encode()
    file.path.write_bytes(content)
    with caplog.at_level(logging.DEBUG, LOG):
        assert file.read() is None
    assert "another is held" in caplog.text and len(caplog.records) == 1


@needs_openvino
def test_a_cache_that_cannot_be_written_or_read_is_no_error(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "file"))
    file = VerdictFile.of(model_path, None)
    with caplog.at_level(logging.DEBUG, LOG):
        assert file.read() is None
        caplog.clear()
        file.write(Verdict(ORT, 1.0))
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.DEBUG


@needs_openvino
def test_a_user_without_a_home_is_no_error(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RTDA_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    file = VerdictFile.of(model_path, None)
    file.write(Verdict(ORT, 1.0))
    assert file.path is None and file.read() is None


@needs_openvino
def test_the_cache_is_where_the_user_wants_it(model_path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("RTDA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    path = VerdictFile.of(model_path, None).path
    assert path is not None and path.parent == tmp_path / "xdg" / "rtda-deploy" / "contest"


# provider="auto"


@needs_openvino
def test_no_verdict_is_kept_on_weights_that_lie_in_another_file(tmp_path: Path, cache: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="writing weights apart needs onnx")
    path = write_model(tmp_path / "m.onnx")
    assert not contest.has_weights_elsewhere(path)
    model = onnx.load(str(path))
    apart = tmp_path / "apart.onnx"
    onnx.save(model, str(apart), save_as_external_data=True, location="apart.data", size_threshold=0)
    assert contest.has_weights_elsewhere(apart)
    for _ in range(2):
        with open_engine(apart, threads=1) as engine:
            assert np.isfinite(engine.infer()).all()
    assert not cache.exists()


@needs_openvino
@pytest.mark.parametrize(("said", "holds"), [("0", False), ("off", False), (" No ", False), ("1", True), ("", True)])
def test_a_contest_can_be_switched_off(
    model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, said: str, holds: bool
) -> None:
    monkeypatch.setenv("RTDA_CONTEST", said)
    open_engine(model_path, threads=1).close()
    assert contest._wanted() is holds


def test_a_switch_that_says_neither_is_an_error(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTDA_CONTEST", "perhaps")
    with pytest.raises(ConfigError, match="neither yes nor no"):
        open_engine(model_path, threads=1)


@needs_openvino
def test_the_first_start_measures_and_the_next_one_does_not(
    model_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOG), open_engine(model_path, threads=1) as engine:
        first = engine.description
        assert engine.provider in ("cpu", "openvino") and "times as fast" in first
        assert np.isfinite(engine.infer()).all()
    assert len(caplog.records) == 1 and "timing ONNX Runtime against OpenVINO" in caplog.text
    (kept,) = cache.iterdir()
    found = json.loads(kept.read_text())
    assert found["winner"] in (ORT, OPENVINO) and found["ratio"] > 0 and found["case"]["threads"] == 1
    caplog.clear()
    with caplog.at_level(logging.INFO, LOG), open_engine(model_path, threads=1) as engine:
        assert engine.description == first
    assert not caplog.records


@needs_openvino
@pytest.mark.parametrize(("winner", "provider"), [(OPENVINO, "openvino"), (ORT, "cpu")])
def test_a_kept_verdict_opens_only_the_winner(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, winner: str, provider: str
) -> None:
    VerdictFile.of(model_path, None).write(Verdict(winner, 1.31))
    loser = "open_onnx" if winner == OPENVINO else "open_openvino"
    monkeypatch.setattr(contest, loser, lambda *args, **kwargs: pytest.fail("the loser was opened"))
    with open_engine(model_path) as engine:
        assert engine.provider == provider and "1.31 times as fast" in engine.description


@needs_openvino
def test_a_winner_that_opens_no_more_is_replaced_with_a_warning(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise MissingPackageError("package openvino is installed but does not load")

    VerdictFile.of(model_path, None).write(Verdict(OPENVINO, 1.31))
    monkeypatch.setattr(contest, "open_openvino", broken)
    with open_engine(model_path) as engine:
        assert engine.provider == "cpu" and "times" not in engine.description
    assert "does not load" in caplog.text and caplog.records[0].levelno == logging.WARNING


@needs_openvino
@pytest.mark.parametrize("why", ["environment", "provider", "no OpenVINO"])
def test_without_a_contest_it_is_onnx_runtime_and_nothing_is_written(
    model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    VerdictFile.of(model_path, None).write(Verdict(OPENVINO, 9.0))
    before = sorted(cache.iterdir())
    if why == "environment":
        monkeypatch.setenv("RTDA_CONTEST", "0")
    if why == "no OpenVINO":
        monkeypatch.setattr(contest, "available", lambda name: name != "openvino")
    with open_engine(model_path, "cpu" if why == "provider" else "auto") as engine:
        assert engine.provider == "cpu" and "times" not in engine.description
    assert sorted(cache.iterdir()) == before


@needs_openvino
def test_without_onnx_runtime_it_is_openvino(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "available", lambda name: name != "onnxruntime")
    with open_engine(model_path) as engine:
        assert engine.provider == "openvino"


@needs_openvino
@pytest.mark.parametrize(("loads", "contests"), [("cuda", 0), ("cpu", 1)])
def test_a_gpu_that_works_comes_first(
    model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, loads: str, contests: int
) -> None:
    opened = []

    def open_onnx(path: Path, *, provider: str, **_: Any) -> Engine:
        engine = NumpyEngine()
        engine.provider = loads if provider == "auto" else provider
        opened.append(engine)
        return engine

    monkeypatch.setattr(contest, "provider_plan", lambda asked, available: ["cuda", "cpu"])
    monkeypatch.setattr(contest, "open_onnx", open_onnx)
    with open_engine(model_path, threads=1) as engine:
        assert contests or engine.provider == "cuda"
    assert all(each.closed for each in opened), "each is closed that is not given"
    assert len(list(cache.glob("*"))) == contests


@needs_openvino
def test_the_errors_of_a_file_that_cannot_be_opened_are_those_of_onnx_runtime(tmp_path: Path, cache: Path) -> None:
    path = write_model(tmp_path / "six.onnx", classes=6)
    for _ in range(2):
        with pytest.raises(EngineError, match="output logits is 1x6x8x12, its spec says 1x5x8x12"):
            open_engine(path)
    assert not cache.exists()


@needs_openvino
@pytest.mark.parametrize("output", ["logits", "mask"])
def test_the_real_two_give_the_same_classes(tmp_path: Path, output: str) -> None:
    path = write_model(tmp_path / "m.onnx", tiny_spec(output=output))
    with open_engine(path, "cpu") as one, open_engine(path, "openvino") as other:
        one.input_buffer[...] = other.input_buffer[...] = synthetic_input(one.spec)
        answer = one.infer()
        assert agreement(answer, other.infer()) >= 0.999
        classes = answer if output == "mask" else answer.argmax(0)
        assert len(np.unique(classes)) >= 2, "a picture of one class would prove nothing"


@needs_openvino
def test_two_programs_may_start_at_once(model_path: Path, cache: Path) -> None:
    code = "import sys; from rtda_runtime import open_engine; open_engine(sys.argv[1], threads=1).infer()"
    command = [sys.executable, "-c", code, str(model_path)]
    running = [subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    assert VerdictFile.of(model_path, 1).read() is not None
