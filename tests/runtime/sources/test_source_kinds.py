"""A new kind of source is one module and one row: opening, errors, ``cameras`` and the pages find it by themselves."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from runtime.source_contract import OpenSource, SourceContract
from runtime.toy_kinds import THERMAL

from rtda_deploy.errors import CameraError, ConfigError, MissingPackageError
from rtda_deploy.optional import Package
from rtda_runtime.sources import ReconnectingSource, cameras, kinds, open_source
from rtda_runtime.sources.kinds import SOURCE_KINDS, SourceKind, source_files


@pytest.fixture()
def thermal(monkeypatch: pytest.MonkeyPatch) -> SourceKind:
    monkeypatch.setattr(kinds, "SOURCE_KINDS", [*SOURCE_KINDS, THERMAL])
    return THERMAL


class TestNewKind(SourceContract):
    live = True

    @pytest.fixture()
    def open_short(self, thermal: SourceKind) -> OpenSource:
        return lambda: open_source("thermal://0")


@pytest.mark.usefixtures("thermal")
def test_a_new_kind_is_known_wherever_kinds_are_asked_for() -> None:
    with open_source("thermal://0", fps=200.0, reconnect=True) as source:
        assert isinstance(source, ReconnectingSource) and source.fps == 200.0
    with pytest.raises(ConfigError, match="thermal://0 cannot be asked for a size or pixel format") as caught:
        open_source("thermal://0", size_wh=(640, 480), fourcc="MJPG")
    assert caught.value.hint == "its size is fixed"
    with pytest.raises(ConfigError, match="unknown kind of source: thermal://x") as caught:
        open_source("thermal://x")
    assert caught.value.hint.endswith(", thermal://0")
    assert source_files("thermal://0") == [Path("thermal.toml")]
    assert "Heat" in [camera.name for camera in cameras()]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"package": Package("nowhere", "thermal", "heat")}, "nowhere is not installed .needed for heat"),
        ({"package": Package("numpy", "", "heat"), "python": (9, 1)}, r"numpy needs Python 9\.1 or newer"),
    ],
)
@pytest.mark.usefixtures("thermal")
def test_what_a_kind_needs_and_lacks_is_told_before_it_is_opened(
    changes: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = dataclasses.replace(THERMAL, **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(kinds, "SOURCE_KINDS", [*SOURCE_KINDS, row])
    with pytest.raises(MissingPackageError, match=said) as caught:
        open_source("thermal://0")
    assert caught.value.hint in ("pip install 'rtda-deploy[thermal]'", "its size is fixed")


@pytest.mark.parametrize("kind", SOURCE_KINDS, ids=lambda kind: kind.name)
def test_each_kind_is_told_by_its_examples_and_on_its_page(kind: SourceKind) -> None:
    page = (Path(__file__).parents[3] / "docs" / "sources.md").read_text(encoding="utf-8")
    for address in kind.example.split(", "):
        assert next(row for row in SOURCE_KINDS if row.match(address)) is kind
        assert re.search(rf"^\|.*`{re.escape(address.replace('...', ''))}", page, re.MULTILINE), address


def test_what_nobody_can_be_asked_for_says_what_to_do_instead() -> None:
    for kind in SOURCE_KINDS:
        assert kind.instead or len(kind.requests) == 3, kind.name
    with pytest.raises(CameraError, match="names no CSI sensor"):
        open_source("csi://front")
