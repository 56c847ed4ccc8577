"""Which network is best on footage without labels (docs/results/ranking.md)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import List, Tuple

import numpy as np
import pytest
from training.judge.networks import CLASSES, NAMES, Streets, constant, footage, labelled, network, of_cells

from rtda_deploy.errors import ConfigError, DataError, EngineError, FileAccessError
from rtda_training.data.address import DataAddress
from rtda_training.judge import Candidate, rank
from rtda_training.judge.check import refuse_other_classes
from rtda_training.judge.ranking import Ranking
from rtda_training.labels import CITYSCAPES, ClassList
from rtda_training.readers import LabelledSet, open_labelled


def names(ranking: Ranking) -> List[str]:
    return [entry.name for entry in ranking.entries]


def test_networks_stand_in_the_order_of_how_often_they_are_right() -> None:
    wrong = {"first": 0.5, "a": 0.1, "b": 0.3, "c": 0.7}
    ranking = rank([network(name, share) for name, share in wrong.items()], footage())
    assert names(ranking) == sorted(wrong, key=lambda name: wrong[name])
    assert ranking.better and ranking.chosen == "a"
    assert ranking.entries[0].first_share > 0.95
    assert ranking.verdict().startswith("a is best: it beats first in 100 %")


def test_a_constant_mask_does_not_win_though_it_never_changes_and_is_sure() -> None:
    ranking = rank([network("first", 0.6), constant(), network("other", 0.65)], footage())
    assert names(ranking)[-1] == "constant"
    assert ranking.entries[-1].warnings[0] == f"{NAMES[1]} nearly everywhere"


def test_constant_masks_do_not_win_where_they_are_the_many_nor_where_one_is_the_first() -> None:
    crowd = [constant(f"constant {value}", 1) for value in range(5)]
    assert rank([network("first", 0.6), *crowd], footage()).entries[0].name == "first"
    reversed_ = rank([constant("first"), network("other", 0.6), network("third", 0.7)], footage())
    assert reversed_.chosen == "other" and names(reversed_)[-1] == "first"


def test_without_the_correction_for_collapse_the_views_would_prefer_the_constant_mask() -> None:
    ranking = rank([network("first", 0.3), constant()], footage())
    scores = {entry.name: entry.scores for entry in ranking.entries}
    assert scores["constant"]["views"] < scores["first"]["views"]  # type: ignore[operator]
    assert scores["constant"]["certainty"] > scores["first"]["certainty"]  # type: ignore[operator]


def test_a_class_that_vanishes_is_named_and_decides_nothing() -> None:
    first = network("first", 0.3)

    def without(frame: np.ndarray) -> np.ndarray:
        found = first.answer(frame).argmax(axis=0)
        return np.where(found == 2, 3, found)

    ranking = rank([first, of_cells("blind", without, 4.0, NAMES), network("worse", 0.8)], footage())
    told = {entry.name: (entry.warnings, entry.remarks) for entry in ranking.entries}
    assert told["blind"] == ((), (f"{NAMES[2]} vanished",))
    assert told["worse"] == ((), ()) and names(ranking)[-1] == "worse"


def test_a_network_that_keeps_few_of_the_classes_comes_last() -> None:
    first = network("first", 0.3)

    def two(frame: np.ndarray) -> np.ndarray:
        return np.minimum(first.answer(frame).argmax(axis=0), 1)

    ranking = rank([first, of_cells("two", two, 4.0, NAMES), network("worse", 0.8)], footage())
    assert names(ranking)[-1] == "two" and "few classes" in ranking.entries[-1].warnings[0]


def test_a_network_that_became_sure_is_not_warned_and_one_that_says_few_classes_is() -> None:
    """What wins decides: most of the pictures is one class, so that the mean softmax of a sure network is skewed."""
    first = network("first", 0.3)

    def skewed(frame: np.ndarray) -> np.ndarray:
        return np.maximum(first.answer(frame).argmax(axis=0) - 2, 0)

    def two(frame: np.ndarray) -> np.ndarray:
        return np.minimum(skewed(frame), 1)

    unsure = of_cells("unsure", skewed, 0.5, NAMES)
    ranking = rank([unsure, of_cells("sure", skewed, 20.0, NAMES), of_cells("few", two, 0.5, NAMES)], footage())
    told = {entry.name: entry.warnings for entry in ranking.entries}
    assert told["sure"] == told["unsure"] == ()
    assert len(told["few"]) == 1 and "few classes" in told["few"][0] and names(ranking)[-1] == "few"


def test_equals_are_no_better_than_the_first() -> None:
    ranking = rank([network(f"n{salt}", 0.4, salt=salt) for salt in range(6)], footage())
    assert not ranking.better and ranking.chosen == "n0"
    if names(ranking)[0] != "n0":
        assert ranking.verdict().startswith("no better than the first, n0")


def test_the_first_may_be_the_best() -> None:
    ranking = rank([network("first", 0.1), network("a", 0.5), network("b", 0.6)], footage())
    assert not ranking.better and ranking.chosen == "first"
    assert ranking.verdict() == "first is best: none of the others ranks before it"


def test_labels_of_a_few_frames_decide() -> None:
    given = [network("first", 0.5), network("a", 0.1), network("b", 0.3)]
    ranking = rank(given, footage(), labelled=labelled(6))
    check = ranking.check
    assert check is not None and check.frames == 6 and 0 < check.low < check.difference < check.high
    assert check.error < check.difference - check.low, "the interval is of Student's t"
    assert names(ranking) == ["a", "b", "first"] and ranking.chosen == "a"
    assert [round(entry.check_miou or 0) for entry in ranking.entries] == sorted(
        [round(entry.check_miou or 0) for entry in ranking.entries], reverse=True
    )
    assert ranking.verdict().startswith("a is best on 6 labelled frames: +") and " over first" in ranking.verdict()
    assert [note for note in ranking.notes if "chose among 3" in note]
    two = rank(given[:2], footage(), labelled=labelled(6))
    assert two.better and not [note for note in two.notes if "chose among" in note]


def test_labels_find_the_one_that_all_others_disagree_with() -> None:
    """Among many that share a mistake the right one ranks last without labels, and first with them."""

    def shifted(name: str, wrong: float) -> Candidate:
        inner = network(name, wrong)
        return of_cells(name, lambda frame: (inner.answer(frame).argmax(axis=0) + 1) % CLASSES, 4.0, NAMES)

    given = [shifted("first", 0.3), *(shifted(f"s{n}", 0.1) for n in range(4)), network("right", 0.2)]
    assert rank(given, footage()).chosen != "right"
    ranking = rank(given, footage(), labelled=labelled())
    assert names(ranking)[0] == "right" and ranking.chosen == "right"


def test_of_equals_on_the_labels_the_first_stays_first_whatever_the_measures_say() -> None:
    first = network("first", 0.5)
    given = [first, first._replace(name="again"), network("a", 0.1)._replace(mask=first.mask)]
    assert rank(given, footage()).chosen == "a"
    ranking = rank(given, footage(), labelled=labelled())
    assert ranking.entries[0].name == ranking.chosen == "first" and not ranking.better and ranking.check is None
    assert ranking.verdict() == "first is best: none of the others has more mIoU on the labelled frames"


def test_where_a_single_frame_decided_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """One labelled frame alone shows a class, and the other network finds it there."""
    pictures, inner, right = labelled(5), network("first", 0.3), network("right", 0.0)
    whole, rare = pictures.pair, CLASSES - 1
    shown = whole(2)[0]

    def pair(index: int) -> Tuple[np.ndarray, np.ndarray]:
        frame, label = whole(index)
        return frame, label if index == 2 else np.where(label == rare, 255, label).astype(np.uint8)

    def blind(frame: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
        assert inner.mask is not None
        return np.minimum(inner.mask(frame, shape), rare - 1).astype(np.uint8)

    def seeing(frame: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
        assert right.mask is not None
        there = (right.mask(frame, shape) == rare) & (frame == shown).all()
        return np.where(there, rare, blind(frame, shape)).astype(np.uint8)

    monkeypatch.setattr(pictures, "pair", pair)
    first, other = inner._replace(mask=blind), inner._replace(name="other", mask=seeing)
    ranking = rank([first, other], footage(), labelled=pictures)
    assert ranking.chosen == "other" and ranking.check is not None and ranking.check.low < 0
    assert [note for note in ranking.notes if "a single frame decided, label more" in note]
    sure = rank([first, network("a", 0.1)], footage(), labelled=pictures)
    assert sure.better and sure.notes == ()


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("where", ["answer", "mask"])
def test_labels_stay_with_their_network_where_one_is_dropped(place: int, where: str) -> None:
    """A network may give NaN for footage alone, or for a labelled frame alone."""

    def broken(*_: object) -> np.ndarray:
        raise EngineError("broken gives NaN")

    bad = network("broken", 0.2)._replace(**{where: broken})  # type: ignore[arg-type]
    given = [network("first", 0.5), network("a", 0.1), network("b", 0.3)]
    alone = {entry.name: entry.check_miou for entry in rank(given, footage(), labelled=labelled()).entries}
    ranking = rank([*given[:place], bad, *given[place:]], footage(), labelled=labelled())
    assert {entry.name: entry.check_miou for entry in ranking.entries} == alone and ranking.chosen == "a"
    assert [found.name for found in ranking.dropped] == ["broken"]


def test_a_network_that_has_no_mask_for_labelled_frames_is_refused_and_takes_no_other_s_figures() -> None:
    given = [network("first", 0.5), network("a", 0.3)._replace(mask=None), network("b", 0.1)]
    with pytest.raises(ConfigError, match="a gives no mask for labelled frames"):
        rank(given, footage(), labelled=labelled())


def test_what_is_said_of_judging_without_labels_is_not_said_where_labels_decide() -> None:
    given = [network("first", 0.5), network("a", 0.1)._replace(norm_distance=lambda frames: 0.5)]
    without, ranking = rank(given, footage()), rank(given, footage(), labelled=labelled())
    assert any("--check" in note for note in without.notes) and without.left_out and not without.by_labels
    assert ranking.notes == () and ranking.left_out == {} and ranking.to_dict()["by_labels"] is True


def test_bad_labels_are_told_before_the_footage_is_looked_at() -> None:
    def too_early(frame: np.ndarray) -> np.ndarray:
        raise AssertionError("the footage was looked at first")

    with pytest.raises(DataError, match="has 2 labelled frames"):
        rank([network("first", 0.5)._replace(answer=too_early)], footage(), labelled=labelled(2))


def test_within_chance_the_labels_keep_the_first() -> None:
    given = [network(f"n{salt}", 0.4, salt=salt) for salt in range(3)]
    found = [rank([given[a], given[b]], footage(), labelled=labelled(3)) for a in range(3) for b in range(3) if a != b]
    checks = [(ranking, ranking.check) for ranking in found if ranking.check is not None]
    assert len(checks) >= 3 and all(check.difference > 0 for _, check in checks)
    assert all(ranking.better == (check.difference > check.error) for ranking, check in checks)
    kept = [ranking for ranking, _ in checks if not ranking.better]
    assert kept and all("within chance" in ranking.verdict() and ranking.chosen == ranking.first for ranking in kept)
    three = [rank([given[n], given[n - 1], given[n - 2]], footage(), labelled=labelled(3)) for n in range(3)]
    told = [(ranking.better, any("chose among" in note for note in ranking.notes)) for ranking in three]
    assert all(better == said for better, said in told) and (False, False) in told, "nothing was chosen: no gain"


def test_labelled_frames_that_say_the_contrary_keep_the_first() -> None:
    """All but the first agree on the same nonsense, which no look at footage can tell."""

    def shifted(name: str, wrong: float) -> Candidate:
        inner = network(name, wrong)
        return of_cells(name, lambda frame: (inner.answer(frame).argmax(axis=0) + 1) % CLASSES, 4.0, NAMES)

    given = [network("first", 0.3), *(shifted(f"s{n}", 0.1) for n in range(4))]
    assert rank(given, footage()).better
    ranking = rank(given, footage(), labelled=labelled())
    assert ranking.entries[0].name == "first" and not ranking.better and ranking.chosen == "first"
    assert ranking.check is None and ranking.verdict() == (
        "first is best: none of the others has more mIoU on the labelled frames"
    )


def labelled_elsewhere(folder: Path, **said: object) -> LabelledSet:
    """Labels 0 to 6 of a simulator's seven classes, of which Cityscapes has other names for the same numbers."""
    import cv2

    known = ("sky", "building", "vegetation", "ground", "pole", "fence", "car")
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(4):
        label = (np.indices((24, 70))[1] // 10).astype(np.uint8)
        assert cv2.imwrite(str(folder / "labels" / f"{number}.png"), label)
        assert cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((24, 70, 3), number, np.uint8))
    if said:
        (folder / "classes.json").write_text(json.dumps(said))
    return open_labelled(f"folder:{folder}", classes=ClassList(known, CITYSCAPES.palette[: len(known)]))


def test_labels_of_other_classes_do_not_decide(tmp_path: Path) -> None:
    """Without classes.json they are Cityscapes' first seven, of which the models have three."""
    with pytest.raises(DataError, match="only 43 % of the labelled pixels") as caught:
        rank([network("first", 0.1)], footage(), labelled=labelled_elsewhere(tmp_path / "silent"))
    told = f"{caught.value.why} {caught.value.hint}"
    assert "Cityscapes" in told and str(tmp_path / "silent" / "classes.json") in told
    assert '"names": ["sky", "building"' in told


def test_labels_of_which_the_models_know_a_part_are_told(tmp_path: Path) -> None:
    whole = ["sky", "building", "vegetation", "ground", "pole", "fence", "car"]
    assert refuse_other_classes(labelled_elsewhere(tmp_path / "whole", names=whole)) == ()
    part = ["sky", "building", "lawn", "soil", "mast", "fence", "car"]
    (told,) = refuse_other_classes(labelled_elsewhere(tmp_path / "part", names=part))
    assert told.startswith("only 57 % of the labelled pixels")


def test_a_network_that_gives_nan_is_dropped_and_named() -> None:
    broken = Candidate("broken", NAMES, lambda frame: np.full((CLASSES, 8, 12), np.nan, np.float32))
    ranking = rank([network("first", 0.3), broken, network("a", 0.2)], footage())
    assert [found.name for found in ranking.dropped] == ["broken"] and "NaN" in ranking.dropped[0].why
    assert sorted(names(ranking)) == ["a", "first"]
    with pytest.raises(DataError, match="first model cannot be judged"):
        rank([broken, network("a", 0.2)], footage())


def test_other_classes_and_doubles_are_refused() -> None:
    other = network("other", 0.1, names=("a", "b", "c", "d", "e"))
    with pytest.raises(ConfigError, match="other has other classes than the first model"):
        rank([network("first", 0.1), other], footage())
    with pytest.raises(ConfigError, match="first was given twice"):
        rank([network("first", 0.1), network("first", 0.2)], footage())


def test_short_footage_is_refused_and_a_still_one_is_said() -> None:
    with pytest.raises(DataError, match="has 5 frames"):
        rank([network("first", 0.1)], footage(5))
    ranking = rank([network("first", 0.1), network("a", 0.3)], footage(10, still=True))
    assert any("one scene" in note for note in ranking.notes)
    assert any("agreement among 2 models" in note for note in ranking.notes)
    with pytest.raises(ConfigError, match="3 frames of the footage are too few"):
        rank([network("first", 0.1)], footage(20), max_frames=3)


def test_masks_and_other_grids_are_judged_too() -> None:
    inner = network("x", 0.1)

    def finer(frame: np.ndarray) -> np.ndarray:
        return inner.answer(frame).repeat(2, axis=1).repeat(2, axis=2)

    def finished(frame: np.ndarray) -> np.ndarray:
        return np.kron(inner.answer(frame).argmax(axis=0), np.ones((8, 8))).astype(np.uint8)

    given = [
        network("first", 0.6),
        Candidate("finer", NAMES, finer),
        Candidate("mask", NAMES, finished),
        network("b", 0.5),
    ]
    ranking = rank(given, footage())
    scores = {entry.name: entry.scores["ensemble-pixels"] for entry in ranking.entries}
    assert scores["finer"] == pytest.approx(scores["mask"], abs=1e-6)
    assert set(names(ranking)[:2]) == {"finer", "mask"}


def test_each_candidate_is_run_once_over_frame_and_views_before_the_next_is_opened() -> None:
    calls: List[str] = []

    def counted(name: str) -> Candidate:
        calls.append(f"open {name}")
        inner = network(name, 0.2)

        def answer(frame: np.ndarray) -> np.ndarray:
            calls.append(name)
            return inner.answer(frame)

        return inner._replace(answer=answer)

    rank((counted(name) for name in ("a", "b")), footage(20), max_frames=10)
    assert calls == ["open a", *["a"] * 30, "open b", *["b"] * 30]


def test_the_same_question_has_the_same_answer_and_is_json() -> None:
    def asked() -> str:
        given = [network("first", 0.5), network("a", 0.1), network("b", 0.3)]
        return json.dumps(rank(given, footage(), labelled=labelled()).to_dict())

    assert asked() == asked()
    values = json.loads(asked())
    assert values["chosen"] == "a" and values["entries"][0]["scores"]["norms"] is None
    assert values["check"]["low"] <= values["check"]["difference"] <= values["check"]["high"]


def test_batch_norms_have_a_say_where_all_networks_have_some() -> None:
    """Of equals, the one whose statistics are the footage's is first; where one is silent, nobody's count, and why."""
    given = [
        network(f"n{salt}", 0.4, salt=salt)._replace(norm_distance=lambda frames, salt=salt: 0.5 - 0.1 * salt)
        for salt in range(5)
    ]
    told = rank(given, footage())
    assert set(told.entries[0].beats_first) == {"ensemble-miou", "views", "infomax", "norms"}
    assert [entry.scores["norms"] for entry in told.entries if entry.name == "n4"] == [pytest.approx(-0.1)]
    assert told.left_out == {}
    silent = rank([*given, network("n5", 0.4)], footage())
    assert set(silent.entries[0].beats_first) == {"ensemble-miou", "views", "infomax"}
    assert silent.left_out == {"norms": "no batch norms can be looked at in n5"}


def test_batch_norms_that_stood_still_in_training_have_no_say() -> None:
    """The best is far from the footage, and the worst near to it, as one whose norms were replaced is."""
    given = [
        network(f"n{wrong}", wrong / 10)._replace(
            norm_distance=lambda frames, wrong=wrong: 1 - wrong / 10, norms_kept=kept
        )
        for wrong, kept in ((3, True), (4, True), (5, False), (6, True))
    ]
    told = rank(given, footage())
    assert names(told) == ["n3", "n4", "n5", "n6"] and "norms" not in told.entries[0].beats_first
    assert told.left_out == {"norms": 'batch norms stood still in training (batch_norm = "fixed"): n3 and 2 more'}
    assert json.loads(json.dumps(told.to_dict()))["left_out"] == told.left_out
    trained = rank([one._replace(norms_kept=False) for one in given], footage())
    assert "norms" in trained.entries[0].beats_first and trained.left_out == {}


def test_a_full_disk_for_what_is_kept_of_the_answers_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing past it through a map would kill the process."""

    def full(*args: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FileAccessError, match="No space left"):
        rank([network("first", 0.5), network("other", 0.4)], footage())


def test_labelled_frames_of_one_scene_are_told_to_count_once() -> None:
    networks = [network("first", 0.6), network("other", 0.1)]
    still = LabelledSet(Streets(4, still=True), DataAddress.parse("list:still"))
    (told,) = [text for text in rank(networks, footage(), labelled=still).notes if "scene" in text]
    assert told.startswith("the 4 labelled frames of list:still show 1 different scene: a scene counts once")
    assert not any("scene" in text for text in rank(networks, footage(), labelled=labelled()).notes)
