"""fuzz: a case is judged rightly, and the same seed breaks a file the same way."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path
from typing import Any, Callable

import pytest

from rtda_deploy.errors import DataError


@pytest.fixture(scope="module")
def fuzz(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("fuzz")


def raising(error: Exception) -> Callable[[Any], None]:
    def read(given: Any) -> None:
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda given: None, ""),
        (raising(DataError("a", hint="do")), ""),
        (raising(DataError("a")), "no fix"),
        (raising(DataError("a\nb", hint="do")), "several lines"),
        (raising(KeyError("names")), "KeyError"),
        (raising(MemoryError()), "MemoryError"),
        (lambda given: Path("code-ran").touch(), "code in the file ran"),
    ],
)
def test_a_case_is_judged_rightly(
    fuzz: Any, read: Callable[[Any], None], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = fuzz.Kind(1, "a.bin", lambda folder: [], lambda rng, content, others: content, read)
    found = fuzz._case(kind, [b"abc"], random.Random(0), tmp_path, None)
    assert found.startswith(what) if what else found == ""


@pytest.mark.parametrize("name", ["mutated_bytes", "mutated_text", "mutated_json", "mutated_address"])
def test_a_seed_breaks_a_file_the_same_way_and_others_other_ways(fuzz: Any, name: str) -> None:
    mutate = getattr(importlib.import_module("fuzz_mutations"), name)
    content = json.dumps({"names": ["road", "sky"], "n": [1, 2.5]}).encode()
    made = [mutate(random.Random(seed), content, [b"other"]) for seed in range(30)]
    assert made == [mutate(random.Random(seed), content, [b"other"]) for seed in range(30)]
    assert len(set(made)) > 15


def test_every_kind_of_the_product_is_fuzzed(fuzz: Any) -> None:
    assert set(fuzz.KINDS) == {
        *("picture", "label", "checkpoint", "onnx", "metadata", "engine json", "toml", "setting", "classes.json"),
        *("bench json", "data address", "source address", "mjpeg", "video"),
    }
