"""Where a model comes from, step by step."""

from __future__ import annotations

from rtda_deploy.card import Card
from rtda_deploy.cli.lineage import drawn_lineage
from rtda_training.ancestry import ADAPTED, EXPORTED, TRAINED, descended

A, B, C = "a" * 64, "b" * 64, "c" * 64
CARD = Card("toytown:source", 5, True, 1.0, (1.0,), (1.0,), (0.0,) * 19 + (1.0,), (None,) * 19 + (0.75,))


def test_each_file_keeps_the_steps_of_its_parent_and_the_parents_card() -> None:
    first = descended(TRAINED, recipe="fda", source="toytown:source", footage="")
    second = descended(ADAPTED, {"ancestry": first}, parent_sha256=A, card=CARD.to_json(), footage="video:drive.mp4")
    third = descended(EXPORTED, {"ancestry": second}, parent_sha256=B)
    assert first == [{"made": "trained", "recipe": "fda", "source": "toytown:source"}]
    assert third == [
        {**first[0], "card": {"data": "toytown:source", "pictures": 5, "right": 0.75}},
        {"made": "adapted", "parent_sha256": A, "footage": "video:drive.mp4"},
        {"made": "exported", "parent_sha256": B},
    ]
    assert "card" not in first[0], "what was given is not changed"
    assert drawn_lineage(third, C) == [
        f"{A[:12]}  trained by fda of toytown:source (card: 5 pictures of toytown:source, 75.0 % right)",
        f"└─ {B[:12]}  adapted on video:drive.mp4",
        f"   └─ {C[:12]}  exported",
    ]


def test_of_older_files_and_of_others_what_they_say_is_kept() -> None:
    older = {"recipe": "fda", "domains": {"source": "gta5:x", "target": "video:y"}, "parent_sha256": A}
    assert descended(EXPORTED, older, parent_sha256=B)[0] == {
        "made": "trained",
        "recipe": "fda",
        "source": "gta5:x",
        "footage": "video:y",
        "parent_sha256": A,
    }
    lines = drawn_lineage(descended(EXPORTED, {"lineage": "CoinCheung", "parent_sha256": A}, parent_sha256=B), C)
    assert lines == [
        f"{A[:12]}  a file of others",
        f"└─ {B[:12]}  elsewhere by CoinCheung",
        f"   └─ {C[:12]}  exported",
    ]
    assert descended(TRAINED, {"ancestry": "broken", "domains": 7}, parent_sha256=B)[0] == {"made": "elsewhere"}


def test_what_is_no_ancestry_draws_nothing() -> None:
    for broken in (None, "text", 7, [1, 2], {}):
        assert drawn_lineage(broken, A) == []
