"""Deployed models: folders that never change, links that change at once, and a candidate tried beside what runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import pytest
from runtime.models import NAMES, tiny_spec, write_model

from rtda_deploy.errors import ConfigError, DataError, FileAccessError
from rtda_runtime.discovery import newest_model
from rtda_runtime.fleet.deployed import deployed_model
from rtda_runtime.fleet.links import has_links
from rtda_runtime.fleet.store import ModelStore
from rtda_runtime.fleet.trial import Limits, Trial, TrialFrame, try_models
from rtda_runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Tuple[Path, Path]:
    """Two networks of the same classes; not to be changed."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder / "old.onnx"), write_model(folder / "new.onnx", seed=3)


def promoted(store: ModelStore, *files: Path) -> List[str]:
    digests = []
    for file in files:
        digests.append(store.add(file).digest)
        store.promote(digests[-1], {"frames": 3})
    return digests


def test_the_current_and_the_previous_model_are_links_to_folders_that_cannot_be_written(
    models: Tuple[Path, Path], tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "models" / "robot")
    old, new = promoted(store, *models)
    current, previous = store.current, store.previous
    assert current is not None and previous is not None
    assert (current.digest, previous.digest) == (new, old)
    assert (store.folder / "current" / "new.onnx").read_bytes() == models[1].read_bytes()
    assert os.path.realpath(store.folder / "previous") == str(store.folder.resolve() / old)
    assert current.file.stat().st_mode & 0o222 == 0
    assert [(model.digest, model.role) for model in store.models()] == [(new, "current"), (old, "previous")]
    assert [entry["what"] for entry in store.history()] == ["promoted", "promoted"]


def test_a_copied_model_and_its_name_are_on_the_disk_before_its_folder_is_named(
    models: Tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that after a power cut there is no folder of a model without the model."""
    events: List[str] = []
    flush, rename = os.fsync, os.rename

    def watched_flush(descriptor: int) -> None:
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        flush(descriptor)

    def watched_rename(source: str, target: str) -> None:
        events.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_flush)
    monkeypatch.setattr(os, "rename", watched_rename)
    digest = ModelStore(tmp_path / "robot").add(models[0]).digest
    assert [re.sub(r"\.[0-9a-f]{8}$", "", name) for name in events] == [
        models[0].name,
        f".{digest}",
        "renamed",
        "robot",
    ]


def test_rollback_changes_both_and_back(models: Tuple[Path, Path], tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "robot")
    old, new = promoted(store, *models)
    assert store.rollback().digest == old
    assert store.previous is not None and store.previous.digest == new
    assert store.rollback().digest == new
    assert store.history()[-1]["what"] == "rolled back" and store.history()[-1]["from"] == old


def test_without_a_previous_model_rollback_is_refused(models: Tuple[Path, Path], tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "robot")
    with pytest.raises(ConfigError, match="no previous model"):
        store.rollback()
    promoted(store, models[0], models[0])  # the same again is no change
    with pytest.raises(ConfigError, match="no previous model"):
        store.rollback()


def test_a_removed_current_model_stops_neither_the_list_nor_a_rollback_nor_a_promotion(
    models: Tuple[Path, Path], tmp_path: Path
) -> None:
    import shutil

    store = ModelStore(tmp_path / "robot")
    old, new = promoted(store, *models)
    shutil.rmtree(store.folder / new)
    assert store.lost() == {"current": new} and [model.digest for model in store.models()] == [old]
    with pytest.raises(FileAccessError, match=f"means {new}, which is not there"):
        deployed_model(store.folder)
    assert store.rollback().digest == old and store.lost() == {} and store.previous is None
    promoted(store, models[1])
    shutil.rmtree(store.folder / new)
    (third,) = promoted(store, write_model(tmp_path / "third.onnx", seed=5))
    assert (store.current.digest, store.previous.digest) == (third, old)  # type: ignore[union-attr]
    shutil.rmtree(store.folder / old)
    assert store.lost() == {"previous": old}
    with pytest.raises(FileAccessError, match=f"means {old}, which is not there"):
        store.rollback()


def test_what_a_killed_promotion_left_is_taken_away_by_the_next(models: Tuple[Path, Path], tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "robot")
    old, new = promoted(store, *models)
    half = store.folder / f".{'a' * 12}.0a1b2c3d"
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half")
    (store.folder / ".links-0a1b2c3d").mkdir()
    (store.folder / ".links-0a1b2c3d.new").symlink_to(".links-0a1b2c3d")
    (store.folder / ".mine").mkdir()
    with open(store.folder / "history.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"time": ')
    assert store.rollback().digest == old
    left = sorted(path.name for path in store.folder.iterdir() if path.name.startswith("."))
    assert [name for name in left if not name.startswith(".links-")] == [".mine"] and len(left) == 3
    assert store.history()[-1]["what"] == "rolled back" and (store.folder / new).is_dir()


def test_a_store_that_is_not_there_is_not_made_by_asking(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no previous model"):
        ModelStore(tmp_path / "models" / "robt").rollback()
    assert not (tmp_path / "models").exists()


def test_a_candidate_whose_trial_fails_does_not_stay(models: Tuple[Path, Path], tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "robot")
    with pytest.raises(ConfigError), store.candidate(models[0]) as model:
        assert model.file.read_bytes() == models[0].read_bytes()
        raise ConfigError("other classes")
    assert store.models() == []
    promoted(store, models[0])
    with pytest.raises(ConfigError), store.candidate(models[0]):
        raise ConfigError("no frame")
    assert len(store.models()) == 1, "it was there before"


_CHANGER = """
import sys
from pathlib import Path
from rtda_runtime.fleet.store import ModelStore
store = ModelStore(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    store.rollback()
"""


def test_whoever_looks_sees_both_models_and_a_kill_leaves_them(models: Tuple[Path, Path], tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "robot")
    both = set(promoted(store, *models))
    changer = subprocess.Popen([sys.executable, "-c", _CHANGER, str(store.folder)], stdout=subprocess.PIPE)
    try:
        assert changer.stdout is not None and changer.stdout.readline() == b"ready\n"
        seen = set()
        while len(seen) < 2:
            link = os.readlink(store.folder / "links")
            try:
                pair = [os.path.basename(os.readlink(store.folder / link / role)) for role in ("current", "previous")]
            except FileNotFoundError:  # it was changed twice between two words of this test
                assert os.readlink(store.folder / "links") != link
                continue
            assert set(pair) == both
            seen.add(pair[0])
    finally:
        changer.send_signal(signal.SIGKILL)
        changer.communicate()
    assert {store.current.digest, store.previous.digest} == both  # type: ignore[union-attr]
    assert store.rollback().digest in both


def test_run_opens_the_current_model_by_a_path_that_a_later_promotion_leaves(
    models: Tuple[Path, Path], tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "robot")
    promoted(store, models[0])
    opened = deployed_model(store.folder)
    promoted(store, models[1])
    assert opened.read_bytes() == models[0].read_bytes()
    assert deployed_model(store.folder).read_bytes() == models[1].read_bytes()
    assert deployed_model(models[0]) == models[0]
    assert has_links(store.folder) and not has_links(tmp_path)


def test_a_folder_without_a_model_and_a_name_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a current model"):
        deployed_model(tmp_path)
    with pytest.raises(ConfigError, match="no name for models"):
        ModelStore(tmp_path / ".hidden")


def test_a_model_that_was_changed_or_removed_is_named(models: Tuple[Path, Path], tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "robot")
    (digest,) = promoted(store, models[0])
    kept = store.folder / digest / "old.onnx"
    kept.chmod(0o644)
    kept.write_bytes(b"another")
    with pytest.raises(DataError, match="is not what its folder's name says"):
        store.add(models[0])
    kept.unlink()
    with pytest.raises(FileAccessError, match=f"means {digest}, which is not there"):
        deployed_model(store.folder)


def test_an_engines_description_is_kept_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(b"engine")
    (tmp_path / "a.engine.json").write_text("{}")
    kept = ModelStore(tmp_path / "robot").add(tmp_path / "a.engine").file
    assert kept.name == "a.engine" and kept.with_name("a.engine.json").read_text() == "{}"


def test_the_newest_model_here_is_the_deployed_one_and_not_one_that_was_rolled_back(
    models: Tuple[Path, Path], tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "models" / "robot")
    promoted(store, *models)
    store.rollback()
    found = newest_model([tmp_path], loads=lambda path: True)
    assert found is not None and found.name == "old.onnx"


# the trial


@pytest.fixture(scope="module")
def pictures() -> List[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(3)]


def tried(models: Tuple[Path, Path], pictures: List[np.ndarray]) -> Trial:
    """Labels are what the new model answers, so that its mIoU is 100 %."""
    with Segmenter.open(models[1], "cpu") as segmenter:
        frames = [TrialFrame(picture, segmenter.segment(picture).mask.copy()) for picture in pictures]
    return try_models(models[0], models[1], frames, provider="cpu")


def test_a_trial_says_what_segmenters_say(models: Tuple[Path, Path], pictures: List[np.ndarray]) -> None:
    seen = tried(models, pictures)
    with Segmenter.open(models[0], "cpu") as old, Segmenter.open(models[1], "cpu") as new:
        pairs = [(old.segment(p).mask.copy(), new.segment(p).mask.copy()) for p in pictures]
    a, b = (np.concatenate([pair[place].ravel() for pair in pairs]) for place in (0, 1))
    assert seen.agreement == pytest.approx((a == b).mean())
    expected = {
        name: ((a == place) & (b == place)).sum() / ((a == place) | (b == place)).sum()
        for place, name in enumerate(NAMES)
        if ((a == place) | (b == place)).any()
    }
    assert seen.by_class == pytest.approx(expected)
    there = [place for place in range(len(NAMES)) if (b == place).any()]
    assert seen.miou[0] == pytest.approx(100 * np.mean([expected[NAMES[place]] for place in there]))
    assert seen.miou[1] == pytest.approx(100.0)
    assert (seen.frames, seen.labelled) == (3, 3) and min(seen.p95_ms) > 0  # type: ignore[type-var]


def test_limits_that_are_missed_are_told(models: Tuple[Path, Path], pictures: List[np.ndarray]) -> None:
    seen = tried(models, pictures)
    assert seen.missed(Limits(agreement=0.0, slower=1e9)) == []
    assert "pixels agree" in seen.missed(Limits(agreement=1.0, slower=1e9))[0]
    worse = Trial(3, 3, (1.0, 3.0), 1.0, {}, (60.0, 50.0))
    assert [text.partition(" ")[0] for text in worse.missed(Limits(p95_ms=2.0))] == ["mIoU", "p95", "p95"]


def test_few_frames_are_timed_several_times(models: Tuple[Path, Path], pictures: List[np.ndarray]) -> None:
    frames = [TrialFrame(picture) for picture in pictures]
    once, often = (try_models(*models, frames, provider="cpu", repeats=count) for count in (1, 5))
    assert (once.runs, often.runs) == (3, 15) and (once.frames, often.frames) == (3, 3)
    assert once.agreement == often.agreement and once.by_class == often.by_class


@pytest.mark.parametrize("values", [{"slower": float("nan")}, {"miou_loss": -1.0}, {"p95_ms": float("nan")}])
def test_limits_that_nothing_could_miss_are_refused(values: Dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="a limit of a promotion is"):
        Limits(**values)


def test_the_first_model_is_tried_alone(models: Tuple[Path, Path], pictures: List[np.ndarray]) -> None:
    seen = try_models(None, models[0], [TrialFrame(picture) for picture in pictures], provider="cpu")
    assert (seen.agreement, seen.by_class, seen.miou, seen.labelled) == (None, {}, (None, None), 0)
    assert seen.missed(Limits()) == []


def test_other_classes_and_no_frames_are_refused(models: Tuple[Path, Path], tmp_path: Path) -> None:
    names = (*NAMES[:-1], "water")
    other = write_model(tmp_path / "other.onnx", tiny_spec(class_names=names))
    with pytest.raises(ConfigError, match=r"other classes.*without vegetation; with water"):
        try_models(models[0], other, [], provider="cpu")
    with pytest.raises(ConfigError, match="no frame"):
        try_models(None, models[0], [], provider="cpu")
