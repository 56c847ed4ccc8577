"""Names out of a user's file lead to no other folder."""

from __future__ import annotations

import pytest

from rtda_deploy.errors import ConfigError
from rtda_deploy.files import check_file_name


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "...", "../x", "/etc", "a/b", "a\\b", "..\\x", "a\0b", "a\nb", " a", "é" * 51]
)
def test_a_name_that_is_no_part_of_a_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a stage's name") as caught:
        check_file_name(name, "a stage's name")
    assert repr(name) in caught.value.message and "letters" in caught.value.hint


@pytest.mark.parametrize("name", ["adapted", "..hidden", "Straße 2", "v1.2-rc_3", "é" * 50])
def test_any_other_name_is_kept(name: str) -> None:
    assert check_file_name(name, "a stage's name") == name
