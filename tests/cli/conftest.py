from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator

import pytest
from cli.commandline import Outcome, invoke
from narrow import narrow_networks

narrow_networks()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """ToyTown's pictures are rendered into a folder of this test run."""
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path_factory.getbasetemp() / "rtda-cache"))


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


class Journey:
    """One training on tiny pictures and what was made of it, shared by the tests; not to be written to."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = f"folder:{data}"
        self.run = folder / "run"
        self.outcomes: dict[str, Outcome] = {}

    def words(self, recipe: str = "rtda-light-thin", *more: str) -> list[str]:
        """``train`` with what makes it tiny."""
        domains = ["--source", self.data, "--target", self.data, "--val", self.data]
        small = ["steps=4", "size=64x64", "batch_size=2", "save_every=2", "device=cpu", "seed=3"]
        return ["train", recipe, *domains, *(word for text in small for word in ("--set", text)), *more]

    def take(self, name: str, *words: object) -> Outcome:
        outcome = invoke(*map(str, words))
        assert outcome.code == 0, f"{name}: {outcome.err}"
        self.outcomes[name] = outcome
        return outcome


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Journey:
    """train -> export -> verify -> eval of both files -> run, each as typed."""
    pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)").set_num_threads(1)
    trip = Journey(tmp_path_factory.mktemp("journey"), tiny_data)
    with _standing_in(trip.folder):
        trip.take("train", *trip.words(), "--out", "run", "--json")
        trip.take("export", "export", "run/last.pth", "--json")
        trip.take("verify", "verify", "run/last.pth", "run/last.onnx", "--frames", "run/verify", "--json", "--out", "v")
        trip.take("eval-pth", "eval", "run/last.pth", "--data", trip.data, "--out", "eval-pth", "--json")
        trip.take("eval-onnx", "eval", "run/last.onnx", "--data", trip.data, "--out", "eval-onnx", "--json")
        source = "test://bars?fps=0&frames=5&size=96x64"
        trip.take("run", "run", "run/last.onnx", "--camera", source, "--save", "o.mp4", "--masks", "masks", "--json")
    return trip


@contextlib.contextmanager
def _standing_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
