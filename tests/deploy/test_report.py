"""ReportPage: one file, nothing fetched, everything escaped, the figures readable by a program."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, List, Optional, Tuple

import pytest

from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.report import ReportPage

EVIL = '</script><script>alert("x")</script><img src=http://evil.example/x>&amp;'
VOID = {"meta", "link", "img", "br"}


def png(width: int = 2, height: int = 2) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Outline(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: List[str] = []
        self.seen: List[Tuple[str, Any]] = []
        self.words: List[str] = []
        self.json: List[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.json if self.open and self.open[-1] == "script" else self.words).append(data)

    def attributes(self, tag: str) -> List[Any]:
        return [attributes for name, attributes in self.seen if name == tag]


def full_page(word: str = "plain") -> ReportPage:
    page = ReportPage(word, subtitle=word)
    page.heading(word)
    page.text(word)
    page.code(word)
    page.table([word, "n"], [[word, 1], [word, math.nan], [None, True]], caption=word)
    page.picture(png(), caption=word)
    page.bars([word, "b", "c"], [1.0, math.nan, None], unit=word, limit=0.5, caption=word)
    page.lines({word: [(0, 1.0), (1, math.nan), (2, 2.0), (3, 1.0)]}, word, word, caption=word)
    page.histogram([1.0, 2.0, math.nan, 3.0], {word: 2.0}, unit=word, caption=word)
    page.stacked([word, "b"], [1.0, math.nan], word, caption=word)
    page.matrix([word, "b"], [[3, 1], [0, 0]], caption=word)
    page.data({word: word})
    return page


def test_a_page_is_well_formed_and_fetches_nothing() -> None:
    page = full_page().html()
    outline = Outline(page)
    assert "://" not in page
    assert "@import" not in page and "url(" not in page
    for _, attributes in outline.seen:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "prefers-color-scheme:dark" in page and 'name="viewport"' in page


def test_everything_given_is_escaped() -> None:
    outline = Outline(full_page(EVIL).html())
    assert [attributes.get("type") for attributes in outline.attributes("script")] == ["application/json"]
    assert all(attributes["src"].startswith("data:image/png") for attributes in outline.attributes("img"))
    assert len(outline.attributes("img")) == 1
    assert outline.attributes("img")[0]["alt"] == EVIL
    assert json.loads(outline.json[0]) == {EVIL: EVIL}
    assert "<" not in outline.json[0]  # nothing in it can end the block, not even "</script " without its bracket
    assert sum(EVIL in word for word in outline.words) >= 12  # shown as typed, wherever it was given


def test_embedded_json_round_trips_and_turns_nan_into_null() -> None:
    page = ReportPage("t")
    values = {"a": [1, 2.5, "x</script>", None, True], "nan": math.nan, "inf": [math.inf], "p": Path("x"), 3: (1, 2)}
    page.data(values)
    page.data("<!-- & \u2028")
    first, second = (json.loads(text) for text in Outline(page.html()).json)
    assert first == {
        "a": [1, 2.5, "x</script>", None, True],
        "nan": None,
        "inf": [None],
        "p": "x",
        "3": [1, 2],
    }
    assert second == "<!-- & \u2028"
    assert 'id="data"' in page.html() and 'id="data-2"' in page.html()


def test_numpy_values_are_embedded_and_drawn() -> None:
    np = pytest.importorskip("numpy")
    page = ReportPage("t")
    page.data({"m": np.eye(2), "n": np.float32(np.nan), "k": np.int64(3)})
    page.bars(["a", "b"], np.array([1.0, np.nan]))
    page.matrix(["a", "b"], np.array([[1, 1], [0, 4]]))
    page.table(["a"], [[np.float32(1.5)], [np.int64(7)]])
    outline = Outline(page.html())
    assert json.loads(outline.json[0]) == {"m": [[1.0, 0.0], [0.0, 1.0]], "n": None, "k": 3}
    assert {"1.5", "7", "50", "100"} <= set(outline.words)


def test_no_chart_writes_nan_into_its_geometry() -> None:
    nan = math.nan
    page = ReportPage("t")
    for values in ([], [nan], [None], [0.0], [0.0, 0.0], [-1.0], [5.0, nan, -5.0], [1e-12, 1e12]):
        page.bars([str(i) for i in range(len(values))], values, limit=nan if values == [nan] else None)
        page.lines({"a": [(i, v if v is not None else nan) for i, v in enumerate(values)]}, "x", "y")
        page.histogram(values, {"p50": nan})
        page.stacked([str(i) for i in range(len(values))], values)
        page.matrix([str(i) for i in range(len(values))], [values] * len(values))
        page.table(["x"], [[v] for v in values])
    page.lines({}, "x", "y")
    for _, attributes in Outline(page.html()).seen:
        for value in attributes.values():
            assert not re.search(r"\b(nan|inf)\b", value or "", re.IGNORECASE)


def test_a_confusion_matrix_is_shown_in_percent_of_each_row() -> None:
    page = ReportPage("t")
    page.matrix(["road", "car", "never seen"], [[9, 1, 0], [1, 3, 0], [0, 0, 0]])
    outline = Outline(page.html())
    shares = [attributes.get("style") for attributes in outline.attributes("td")]
    assert shares[:6] == ["--a:0.900", "--a:0.100", "--a:0.000", "--a:0.250", "--a:0.750", "--a:0.000"]
    assert shares[6:] == [None, None, None]  # no truth of this class: no share to show
    assert {"90", "10", "25", "75", "–"} <= set(outline.words)


def test_numbers_are_aligned_right_and_words_left() -> None:
    page = ReportPage("t")
    page.table(["name", "ms", "share"], [["a", 1.23456, "98.3 %"], ["b", None, "–"]])
    classes = [attributes.get("class") for attributes in Outline(page.html()).attributes("td")]
    assert classes == [None, "number", "number"] * 2
    assert "1.235" in page.html()


def test_a_long_line_is_thinned_but_keeps_its_spike() -> None:
    page = ReportPage("t")
    page.lines({"a": [(i, 100.0 if i == 31_415 else 1.0) for i in range(100_000)]}, "x", "y")
    (curve,) = Outline(page.html()).attributes("polyline")
    heights = [float(point.split(",")[1]) for point in curve["points"].split()]
    assert len(heights) < 1000
    assert min(heights) == 0.0  # the top of the chart


def test_the_far_tail_does_not_flatten_a_histogram() -> None:
    page = ReportPage("t")
    page.histogram([10.0 + i / 1000 for i in range(1000)] + [5000.0], {"p50": 10.5})
    assert "5 beyond 10.99" in page.html() and "largest 5000" in page.html()
    assert len(Outline(page.html()).attributes("rect")) > 20


@pytest.mark.parametrize(
    ("content", "kind"),
    [(png(), "image/png"), (b"\xff\xd8\xff\xe0rest", "image/jpeg"), (b"<svg></svg>", "image/svg+xml")],
)
def test_pictures_are_inline(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)
    page = ReportPage("t")
    page.picture(path)
    page.picture(content)
    sources = {attributes["src"] for attributes in Outline(page.html()).attributes("img")}
    assert sources == {f"data:{kind};base64,{base64.b64encode(content).decode()}"}


def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(DataError, match=r"x\.txt is no PNG, JPEG or SVG"):
        ReportPage("t").picture(tmp_path / "x.txt")
    with pytest.raises(FileAccessError, match="No such file"):
        ReportPage("t").picture(tmp_path / "missing.png")


def test_save_is_whole_or_nothing(tmp_path: Path) -> None:
    saved = full_page().save(tmp_path / "deep" / "report.html")
    assert saved.read_text(encoding="utf-8") == full_page().html()
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileAccessError):
        full_page().save(tmp_path / "file" / "report.html")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]
