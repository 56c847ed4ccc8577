"""TOML of recipes and configs: odd numbers are refused where they stand, what is written is read again as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.sizes import parse_size
from rtda_training.data.address import DataAddress
from rtda_training.grids.grid import load_grid
from rtda_training.plan import load_plan
from rtda_training.toml_file import read_toml, toml_text, typed_value

DOMAINS = {"source": "toytown:source", "target": "toytown:target"}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + "0" * 400, "[0.5, nan]", "{a = inf}", "1e999"])
@pytest.mark.parametrize("key", ["max_corrupt", "optimizer.learning_rate", "steps"])
def test_a_number_that_is_none_is_refused_in_set_and_in_a_recipe(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_plan("source-only", [f"{key}={value}"], **DOMAINS)
    assert key in caught.value.message and caught.value.hint
    (tmp_path / "r.toml").write_text(f'base = "source-only"\n{key} = {value}\n')
    with pytest.raises(ConfigError) as caught:
        load_plan(str(tmp_path / "r.toml"), **DOMAINS)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a" + ".a" * 3000 + " = 1", "a = {a = " * 3000, "a = 1979-05-27", "\0", "= 1"]
)
@pytest.mark.parametrize("load", [load_plan, load_grid])
def test_a_recipe_that_cannot_be_read_is_one_error(tmp_path: Path, text: str, load) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RtdaError, match=r"r\.toml|\ba\b") as caught:
        load(str(tmp_path / "r.toml"))
    assert caught.value.hint


def test_a_key_of_thousands_of_parts_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("s" + "a." * 100_000 + 'ource = "toytown:source"\n')  # tomllib: half a minute
    with pytest.raises(ConfigError, match="a line with more than 5000 dots"):
        load_plan(str(tmp_path / "mine.toml"))


def test_a_setting_nested_too_deep_is_one_error() -> None:
    for text in ("steps=" + "[" * 100_000, ".".join("a" * 100_000) + "=1"):
        with pytest.raises(ConfigError) as caught:
            load_plan("source-only", [text], **DOMAINS)
        assert caught.value.hint


@pytest.mark.parametrize("odd", ["a\nname = 'x'", "😀 straße", 'quote " and \\', "tab\t del\x7f", "#"])
def test_what_is_written_into_a_config_is_read_again(tmp_path: Path, odd: str) -> None:
    plan = load_plan("rtda-light-thin", source=f"folder:/data/{odd}", target="toytown:target")
    (tmp_path / "config.toml").write_text(toml_text(plan.to_dict()), encoding="utf-8")
    assert load_plan(str(tmp_path / "config.toml")) == plan
    assert read_toml(tmp_path / "config.toml", "config", hint="")["source"] == f"folder:/data/{odd}"


def test_a_value_may_not_bring_a_second_one() -> None:
    assert typed_value("1\nsteps = 2", "name") == "1\nsteps = 2"
    assert typed_value("0.5", "name") == 0.5


@pytest.mark.parametrize("text", ["²x²", "2²x64", "1x³", "-1x2", "x", "1" * 5000 + "x1"])
def test_digits_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not WIDTHxHEIGHT") as caught:
        parse_size(text)
    assert caught.value.hint
    with pytest.raises(ConfigError):
        DataAddress.parse(f"toytown:source?count={text}").whole_number("count", 3)
