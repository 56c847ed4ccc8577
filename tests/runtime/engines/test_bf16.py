"""Bfloat16 with ``provider="auto"``: taken where a file's export verified it so, else told of and never taken."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.contest import Start, saying
from runtime.models import write_model
from runtime.quantised import write_quantised

from rtda_deploy.cli import main
from rtda_deploy.errors import EngineError
from rtda_deploy.files import cache_folder
from rtda_deploy.optional import available
from rtda_runtime import Segmenter
from rtda_runtime.bench.benchmark import benchmark
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.engines import open_engine
from rtda_runtime.engines.bf16 import Verified, bf16_here, verified
from rtda_runtime.engines.kept_choice import Bf16Timed, Choice, KeptChoice, case_of
from rtda_runtime.engines.trial import Trial
from rtda_runtime.pool import SegmenterPool

pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(not available("openvino"), reason="OpenVINO is not installed")
needs_bf16 = pytest.mark.skipif(not bf16_here(), reason="OpenVINO does not compute in bfloat16 on this processor")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines are timed, and the choice is kept in a folder of the test."""
    monkeypatch.delenv("RTDA_CONTEST", raising=False)
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contest"


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """A file that the test may write into."""
    return write_model(tmp_path / "tiny.onnx")


def starting(bf16_s: float = 0.02, wrong: int = 0) -> Start:
    """ONNX Runtime takes 100 ms, OpenVINO 50, and ``bf16_s`` seconds in bfloat16."""
    start = Start(0.1, 0.05)
    start.bf16 = (bf16_s, wrong)
    return start


def test_a_file_that_passed_runs_in_bfloat16_and_the_next_start_opens_only_that(model_path: Path) -> None:
    start = starting()
    first = start.open(saying(model_path))
    assert first is start.in_bf16 and start.reference.closed and start.challenger.closed and not first.closed
    assert first.description == (
        "openvino-bf16 (2.50 times as fast as in float32 here; 99.71 % of pixels kept their class at its export)"
    )
    assert first.advice == "" and start.tried == 0
    second = start.open(model_path)
    assert second is start.in_bf16 and start.reference is None and start.challenger is None
    assert second.description == first.description


def test_a_file_that_says_nothing_is_told_what_it_would_bring_and_how_to_have_it(model_path: Path) -> None:
    start = starting(wrong=1)
    first = start.open(model_path)
    assert first is start.challenger and start.in_bf16.closed and start.tried == 1
    assert "(2.00 times as fast as ONNX Runtime here)" in first.description
    for said in (
        "2.5 times as fast here (middle half of the rounds: 2.5 to 2.5)",
        "gives 1.04 % of synthetic pictures another class",
        f"rtda-deploy export {model_path} --verify PICTURES --out bf16",
    ):
        assert said in first.advice
    second = start.open(model_path)
    assert second is start.challenger and second.advice == first.advice and start.tried == 1


@pytest.mark.parametrize("bf16_s", [0.047, 0.05, 0.2])
@pytest.mark.parametrize("passed", [True, None])
def test_a_small_gain_is_neither_taken_nor_told_of(model_path: Path, bf16_s: float, passed: Any) -> None:
    engine = starting(bf16_s).open(saying(model_path) if passed else model_path)
    assert engine.provider == "openvino" and engine.advice == ""


def test_a_file_that_did_not_pass_is_not_even_timed(model_path: Path) -> None:
    start = starting()
    engine = start.open(saying(model_path, passed=False))
    assert engine is start.challenger and engine.advice == "" and start.in_bf16 is None


def test_another_answer_on_the_test_picture_loses_whatever_the_file_says(
    model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rtda_runtime.engines"):
        engine = starting(wrong=5).open(saying(model_path))  # of 96 cells
    assert engine.provider == "openvino" and "bfloat16 is out" in caplog.text
    assert starting(wrong=5).open(write_model(model_path.with_name("other.onnx"), seed=3)).advice == ""


def test_a_file_that_bfloat16_ends_is_not_opened_in_this_process(model_path: Path) -> None:
    start = starting()
    start.trial = Trial("openvino", "OpenVINO", "1", "the process that loads it ends with SIGSEGV", fatal=True)
    engine = start.open(model_path)
    assert engine is start.challenger and start.in_bf16 is None and start.tried == 1 and engine.advice == ""


@pytest.mark.parametrize(("version", "tried"), [("1", 0), ("2", 1)])
def test_a_file_that_another_version_verified_is_tried_first(model_path: Path, version: str, tried: int) -> None:
    start = starting()
    start.version = version
    assert start.open(saying(model_path)) is start.in_bf16 and start.tried == tried


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_only_float32_files_are_taken_so(tmp_path: Path, precision: str) -> None:
    path = write_quantised(tmp_path / "m.onnx") if precision == "int8" else write_model(tmp_path / "m.onnx")
    start = starting()
    assert start.open(saying(path, precision=precision)).provider == "openvino"
    assert precision == "fp16" or start.in_bf16 is None


def test_without_a_contest_nothing_is_timed_or_taken(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTDA_CONTEST", "0")
    start = starting()
    assert start.open(saying(model_path)).provider == "cpu" and len(start.opened) == 1


def test_a_winner_that_does_not_open_any_more_is_replaced(model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start = starting()
    assert start.open(saying(model_path)).provider == "openvino-bf16"
    start.error = EngineError("this processor does not compute in bfloat16")
    assert start.open(model_path).provider == "cpu" and "does not open it any more" in caplog.text


@pytest.mark.parametrize("copied", [False, True])
def test_what_an_earlier_version_kept_is_measured_again(model_path: Path, cache: Path, copied: bool) -> None:
    """``copied``: it stands where this version looks, which it never wrote there."""
    case = {**case_of(saying(model_path), None), "format": 1}
    name = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()[:32]
    earlier = cache / f"{name}.json"
    now = KeptChoice(case_of(model_path, None)).path
    assert now is not None and now != earlier
    if copied:
        earlier, case = now, case_of(model_path, None)
    cache.mkdir(parents=True)
    earlier.write_text(json.dumps({"case": case, "winner": "openvino", "ratio": 2.0, "reason": ""}))
    start = starting()
    assert start.open(model_path) is start.in_bf16 and len(start.opened) == 3
    assert start.open(model_path) is start.in_bf16 and len(start.opened) == 4


@pytest.mark.parametrize(
    "content",
    [
        {"bf16": None, "winner": "openvino-bf16"},
        *({"bf16": {"gain": 2.0, "low": 2.0, "high": 2.0, "agreement": each}} for each in (1.5, "1", None, True)),
        *({"bf16": {"gain": each, "low": 2.0, "high": 2.0, "agreement": 1.0}} for each in (-1.0, "2", float("nan"))),
        *({"bf16": each} for each in ([], {}, "no", {"gain": 2.0})),
    ],
)
def test_a_broken_kept_choice_is_measured_again(content: Any) -> None:
    kept, whole = KeptChoice({"of": "a test"}), Choice("openvino-bf16", 2.0, bf16=Bf16Timed(2.0, 1.9, 2.1, 0.99))
    kept.write(whole)
    assert kept.path is not None and cache_folder() in kept.path.parents and kept.read() == whole
    kept.path.write_text(json.dumps({**json.loads(kept.path.read_text()), **content}))
    assert kept.read() is None


def test_what_an_export_wrote_is_read_back_and_what_is_broken_is_not() -> None:
    for miou in (None, (40.5, 40.25)):
        found = Verified(True, 0.997, 0.98, 8, "2026.4.1", miou)
        facts = json.loads(json.dumps({"precision": "fp32", "bf16": found.to_dict()}))
        assert verified(facts) == found
    for change in (
        {"passed": 1},
        {"agreement": None},
        {"agreement": 2},
        {"limit": "1"},
        {"frames": 1.0},
        {"version": 1},
    ):
        assert verified({**facts, "bf16": {**facts["bf16"], **change}}) is None
    for odd in ({}, {"precision": "int8", "bf16": facts["bf16"]}, {"precision": "fp32", "bf16": 3}):
        assert verified(odd) is None
    assert verified({**facts, "bf16": {**facts["bf16"], "miou": {"before": "x"}}}) == found._replace(miou=None)


# ---- the real library ----


def chosen(path: Path, *, threads: int = 1) -> None:
    """Keep that bfloat16 runs ``path`` here, whatever this machine would measure."""
    case = KeptChoice(case_of(path, threads))
    case.write(Choice("openvino-bf16", 1.5, bf16=Bf16Timed(2.0, 1.9, 2.1, 0.99)))


@needs_bf16
def test_the_real_library_runs_it_in_bfloat16(model_path: Path) -> None:
    chosen(saying(model_path))
    with open_engine(model_path, threads=1) as auto, open_engine(model_path, "openvino-bf16", threads=1) as asked:
        assert auto.provider == asked.provider == "openvino-bf16" and " in bf16, 1 thread (" in auto.description
        auto.input_buffer[...] = asked.input_buffer[...] = np.random.default_rng(0).standard_normal(auto.input_shape)
        np.testing.assert_array_equal(auto.infer(), asked.infer())


@needs_bf16
def test_every_engine_of_a_pool_takes_it(model_path: Path) -> None:
    chosen(saying(model_path))
    with SegmenterPool.open(model_path, in_flight=2, threads=1) as pool:
        assert [each.provider for each in pool._segmenters] == ["openvino-bf16"] * 2


@needs_bf16
def test_the_real_contest_times_it_and_takes_it_only_where_the_file_says_so(model_path: Path, cache: Path) -> None:
    with open_engine(model_path, threads=1) as engine:
        assert engine.provider in ("cpu", "openvino")
    for kept in cache.iterdir():  # where the rounds agreed
        assert json.loads(kept.read_text())["bf16"]["agreement"] > 0.9
        kept.unlink()
    with open_engine(saying(model_path), threads=1) as engine:
        assert engine.provider in ("cpu", "openvino", "openvino-bf16") and engine.advice == ""


def test_bench_and_run_say_what_would_be_faster(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    KeptChoice(case_of(model_path, 1)).write(Choice("openvino", 1.5, bf16=Bf16Timed(2.0, 1.9, 2.1, 0.99)))
    with Segmenter.open(model_path, threads=1) as segmenter:
        assert "2.0 times as fast here" in segmenter.advice
        record = benchmark(segmenter, smooth_pictures((64, 96)), warmup_s=0.0, duration_s=0.05, threads=1)
    assert record.advice[-1] == segmenter.advice
    words = ("run", model_path, "--camera", "test://bars?frames=2", "--threads", 1)
    monkeypatch.setattr(sys, "argv", ["rtda-deploy", *map(str, words)])
    with contextlib.suppress(SystemExit):
        main()
    assert f"faster  {segmenter.advice}\n" in capsys.readouterr().err
