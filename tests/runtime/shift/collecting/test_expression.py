"""The language of ``--collect-when``: what holds of a frame, and where an expression that does not parse is marked."""

from __future__ import annotations

from typing import Dict

import pytest

from rtda_deploy.errors import ConfigError
from rtda_runtime.shift.collecting.expression import VALUES, Expression

CLASSES = ("road", "person", "car", "traffic light", "sky")
SHARES = (0.5, 0.03, 0.2, 0.01, 0.26)
SEEN: Dict[str, float] = {
    "brightness": 0.4,
    "confidence": 0.55,
    "disagreement": 0.1,
    "novelty": 0.7,
    "unlabelled": 0.0,
}


def holds(text: str) -> bool:
    return Expression(text, CLASSES).holds(SEEN, SHARES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("share(person)>0.02 and confidence<0.6", True),
        ("share(person)>0.02 and confidence<0.5", False),
        ("share(person) > 2%", True),
        ("share(person) > 3.1%", False),
        ("share(traffic light) > 0", True),
        ('share("Traffic-Light") >= 1%', True),
        ("share( 'traffic_light' ) > 1%", False),
        ("SHARE(CAR) > .1 AND NOVELTY > 0.5", True),
        ("confidence < 0.5 or novelty > 0.5", True),
        ("confidence < 0.5 or novelty > 0.5 and brightness > 0.9", False),
        ("(confidence < 0.5 or novelty > 0.5) and brightness < 0.9", True),
        ("not confidence < 0.5", True),
        ("not (confidence < 0.6 or novelty < 0.1)", False),
        ("not not novelty > 0.5", True),
        ("share(car) + share(person) == 0.23", True),
        ("share(car) - 2 * share(person) / 3 > 0.17", True),
        ("share(car) - share(person) - share(road) < 0", True),
        ("8 / 4 / 2 == 1", True),
        ("-novelty < -0.5 and 1e-3 < 2", True),
        ("2 - -1 == 3", True),
        ("unlabelled != 0", False),
        ("disagreement >= 10%", True),
        ("novelty / unlabelled > 0", False),
        ("novelty / unlabelled != 0", False),
        ("novelty != 0.7 or 1e308 * 1e308 < 1", False),
        ("1" + " + 1" * 240 + " == 241", True),
        ("not novelty / unlabelled > 0", True),
    ],
)
def test_a_condition_holds_of_a_frame(text: str, expected: bool) -> None:
    assert holds(text) is expected


def test_an_expression_says_which_values_it_needs() -> None:
    assert Expression("share(car) > 1%", CLASSES).names == frozenset()
    assert Expression("confidence < 0.5 or 1 - novelty > 0.5", CLASSES).names == {"confidence", "novelty"}
    for name in VALUES:
        assert Expression(f"{name} > 0", CLASSES).names == {name}


@pytest.mark.parametrize(
    ("text", "marked", "what", "hint"),
    [
        ("", "^", "it is empty", "share(person)"),
        ("   ", "^", "it is empty", ""),
        ("share(persn) > 0.02", "^^^^^^^^^^^^", "no class 'persn'", "did you mean person?"),
        ("share() > 0.02", "^^^^^^^", "share of which class?", "there are road, person"),
        ("share > 0.02", "^^^^^", "share of which class?", "share(CLASS)"),
        ("confidence < ", "             ^", "expected a number, a name or share(CLASS), found the end", ""),
        ("confidence = 0.6", "           ^", "'=' means nothing here", "=="),
        ("novelty > 1 && confidence < 1", "            ^", "'&' means nothing", "write: and"),
        (
            "confidence < 0.6 share(car) > 1",
            " " * 17 + "^" * 10,
            "expected and, or, or the end, found 'share(car)'",
            "",
        ),
        ("(confidence < 0.6", " " * 17 + "^", "expected ), found the end", ""),
        ("confidence < 0.6)", " " * 16 + "^", "found ')'", ""),
        ("confdence < 0.6", "^" * 9, "confdence is unknown", "known: brightness, confidence"),
        ("person > 0.02", "^" * 6, "person is unknown", "share(person)"),
        ("area(car) > 0.02", "^" * 9, "area( ) is unknown", "share(CLASS)"),
        ("share(car)", "^" * 10, "this is a number, and a condition is wanted", "compare it"),
        ("share(car) and novelty > 0", "^" * 10, "this is a number", "compare it"),
        ("novelty > 0 and not share(car)", " " * 20 + "^" * 10, "this is a number", "compare it"),
        ("(novelty > 0) + 1 > 0", "^" * 13, "this is no number", "and, or, not"),
        ("(novelty > 0) > 0", "^" * 13, "this is no number", "and, or, not"),
        ("0.1 < novelty < 0.5", " " * 14 + "^", "a second comparison", "a < b and b < c"),
        ("novelty > 1e999", " " * 10 + "^" * 5, "too large", ""),
        ("novelty > and", " " * 10 + "^^^", "found 'and'", ""),
        ("share(car) > 0; import os", " " * 14 + "^", "';' means nothing here", ""),
        ("__import__('os')", "^" * 16, "__import__( ) is unknown", ""),
        ("novelty.real > 0", " " * 7 + "^", "'.' means nothing here", ""),
    ],
)
def test_what_does_not_parse_is_marked_at_its_place(text: str, marked: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Expression(text, CLASSES)
    assert what in caught.value.message
    assert caught.value.why == f"{text}\n{marked}"
    assert hint in caught.value.hint and caught.value.hint
    assert f"at character {len(marked) - len(marked.lstrip()) + 1}:" in caught.value.message


def test_of_a_long_expression_the_part_around_the_place_is_shown() -> None:
    text = " and ".join(["novelty > 0.1"] * 20) + " and confidnce < 0.5 and " + " and ".join(["novelty > 0.1"] * 20)
    with pytest.raises(ConfigError) as caught:
        Expression(text, CLASSES)
    shown, marks = caught.value.why.split("\n")
    assert len(shown) < 80 and shown.startswith("...") and shown.endswith("...")
    assert shown[marks.index("^") : len(marks)] == "confidnce"


@pytest.mark.parametrize("text", ["(" * 300 + "1 > 0" + ")" * 300, "-" * 500 + "1 < 0", "not " * 200 + "1 > 0"])
def test_deep_nesting_is_an_error_and_no_crash(text: str) -> None:
    with pytest.raises(ConfigError, match="nested too deep"):
        Expression(text, CLASSES)


def test_a_text_of_megabytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        Expression("1 > 0 and " * 1_000_000, CLASSES)
    assert Expression(" and ".join(["1 > 0"] * 100), CLASSES).holds({}, ())
