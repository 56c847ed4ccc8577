"""Broken files and addresses of every kind: each is read, or is one error with its fix; nothing dies, no code runs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

pytestmark = pytest.mark.system
pytest.importorskip("torch", reason="checkpoints need torch (Python >= 3.10)")
pytest.importorskip("onnx", reason="the networks are written with onnx")
pytest.importorskip("av", reason="films are made with PyAV")

FOLDER = Path(__file__).parents[2] / "benchmarks"
MUTATIONS, SEED = 2000, 11


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("fuzz")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("fuzz", "fuzz_kinds", "fuzz_mutations"):
            sys.modules.pop(name, None)


def test_two_thousand_broken_inputs_of_all_kinds_are_read_or_refused_with_a_fix(fuzz: Any) -> None:
    found = fuzz.fuzz(MUTATIONS, SEED, list(fuzz.KINDS), workers=2)
    assert not found, "\n".join(f"{kind} {case}: {what}" for kind, case, what in found)


def test_a_kind_that_kills_its_process_is_seen_and_the_next_case_runs(
    fuzz: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTDA_FUZZ_DIES", "2")
    found = fuzz.fuzz(4, SEED, ["setting"], workers=1)
    assert [(violation.case, "signal 11" in violation.what) for violation in found] == [(2, True)]
