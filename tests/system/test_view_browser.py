"""The view in a real browser: the picture moves, the figures are right, and an old picture never looks live."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import cv2
import numpy as np
import pytest
from runtime.models import PALETTE
from runtime.views import SPEC, View
from system.chromium import Browser

from rtda_runtime import Result
from rtda_runtime.sinks.view import address
from rtda_runtime.sinks.view.address import ViewAddress

pytestmark = pytest.mark.system

WIDE, PHONE = (1280, 800), (390, 844)


def street(number: int) -> Result:
    """Road, its right quarter car, its upper half sky; a bright bar that wanders."""
    frame = np.full((180, 320, 3), 90, np.uint8)
    frame[:, number * 4 % 300 :][:, :20] = 230
    mask = np.zeros((180, 320), np.uint8)
    mask[:, 240:] = 3
    mask[:90] = 2
    return Result(
        frame=frame,
        mask=mask,
        captured_ns=time.perf_counter_ns() - 20_000_000,
        sequence=number,
        dropped=number // 10,
        timing={"age": 20.0 + number % 5},
        spec=SPEC,
    )


def two_models(number: int) -> Result:
    return dataclasses.replace(street(number), compared=np.full((180, 320), 4, np.uint8))


@pytest.fixture()
def view() -> Iterator[View]:
    made = View()
    made.make = street
    made.stats = {"state": "live", "source": "test://street", "provider": "cpu", "stages": {"infer": {"p50": 9.8}}}
    yield made
    made.sink.close()


@pytest.fixture()
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path, WIDE) as made:
        yield made


def state(name: str) -> str:
    return f"document.body.dataset.state === '{name}'"


def shows(mode: str) -> str:
    return f"document.getElementById('picture').dataset.mode === '{mode}'"


def colour_at(browser: Browser, x: float, y: float) -> List[int]:
    """RGB of the picture's canvas, at a share of its width and height."""
    return list(
        browser.value(
            "(() => { const c = document.getElementById('picture');"
            f" return [...c.getContext('2d').getImageData({x} * c.width, {y} * c.height, 1, 1).data].slice(0, 3) }})()"
        )
    )


def shares(browser: Browser) -> Dict[str, str]:
    rows = "[...document.querySelectorAll('#legend li')]"
    texts = f"{rows}.map(r => [r.querySelector('.name').textContent, r.querySelector('.share').textContent])"
    return dict(browser.value(texts))


def test_the_picture_moves_and_the_figures_are_those_of_the_run(view: View, browser: Browser) -> None:
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(state("live"))
        first = int(browser.value("document.getElementById('picture').dataset.sequence"))
        browser.until(f"Number(document.getElementById('picture').dataset.sequence) > {first + 10}", "newer pictures")
        browser.until("Number.parseFloat(document.getElementById('fps').textContent) > 3", "a rate")
        assert shares(browser) == {
            "road": "38 %",
            "building": "0 %",
            "sky": "50 %",
            "car": "13 %",
            "vegetation": "0 %",
        }
        swatches = browser.value(
            "[...document.querySelectorAll('#legend .swatch')].map(s => getComputedStyle(s).backgroundColor)"
        )
        assert swatches == [f"rgb({r}, {g}, {b})" for r, g, b in PALETTE]
        assert browser.value("document.getElementById('source').textContent") == "test://street · 320×180 · cpu"
        age = "Number.parseFloat(document.getElementById('age').firstChild.textContent)"
        browser.until(f"{age} >= 20 && {age} <= 24.5", "the age of the results")  # none while the machine lags behind
        browser.until("Number(document.getElementById('dropped').firstChild.textContent) > 0", "a count of drops")
        browser.until(
            "document.getElementById('spark-line').getAttribute('d').split('L').length > 10", "a line of ages"
        )
        assert "infer 9.8" in browser.value("document.getElementById('stages').textContent")
    assert browser.complaints() == []
    assert {link.partition("?")[0] for link in browser.addresses() if not link.startswith("data:")} == {
        f"{view.sink.url}{name}" for name in ("", "style.css", "script.js", "stream.mjpg", "stats.json")
    }


def test_what_has_no_class_is_told_beside_the_shares(view: View, browser: Browser) -> None:
    def lower_half(number: int) -> Result:
        given = street(number)
        given.mask[:90] = 255
        return given

    view.make = lower_half
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(state("live"))
        browser.until("document.querySelectorAll('#legend li').length === 6", "a row for what has no class")
        told = shares(browser)
        assert (told["road"], told["car"], told["unlabelled (of the picture)"]) == ("75 %", "25 %", "50 %")
        assert browser.value("document.getElementById('legend-note').textContent") == "share of the labelled pixels"


def test_buttons_and_keys_change_what_is_shown(view: View, browser: Browser) -> None:
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(shows("overlay"))
        assert browser.value("document.querySelector('[data-mode=compare]').hidden")
        browser.click("button[data-mode=mask]")
        browser.until(shows("mask"))
        assert colour_at(browser, 0.2, 0.8) == pytest.approx(PALETTE[0], abs=12)  # JPEG
        assert colour_at(browser, 0.9, 0.8) == pytest.approx(PALETTE[3], abs=12)
        assert colour_at(browser, 0.5, 0.2) == pytest.approx(PALETTE[2], abs=12)
        browser.press("3")
        browser.until(shows("side"))
        assert browser.value("document.getElementById('picture').width") == 640
        assert browser.value("document.getElementById('pane-b').dataset.label") == "mask"
        assert colour_at(browser, 0.95, 0.8) == pytest.approx(PALETTE[3], abs=12)
        browser.press("1")
        browser.until(shows("overlay"))
        pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(b => b.dataset.mode).join()"
        assert browser.value(pressed) == "overlay"
        browser.press("4")
        assert browser.value(pressed) == "overlay", "there is no second model"


def test_a_second_model_is_shown_beside_the_first(view: View, browser: Browser) -> None:
    view.make = two_models
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until("!document.querySelector('button[data-mode=compare]').hidden")
        browser.press("4")
        browser.until(shows("compare"))
        assert browser.value("document.getElementById('picture').width") == 640
        assert browser.value("document.getElementById('pane-b').dataset.label") == "model B"
        green = colour_at(browser, 0.75, 0.75)
        assert green[1] > green[0] > green[2], "vegetation everywhere, says model B"
        both = "[...document.querySelectorAll('#legend li:last-child .share')].map(s => s.textContent)"
        assert browser.value(both) == ["0 %", "100 %"]


def test_on_a_phone_both_halves_stand_above_each_other(view: View, browser: Browser) -> None:
    browser.resize(*PHONE, phone=True)
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(shows("overlay"))
        browser.click("button[data-mode=side]")
        browser.until(shows("side"))
        size = browser.value("(c => [c.width, c.height])(document.getElementById('picture'))")
        assert size == [320, 360]
        assert colour_at(browser, 0.9, 0.95) == pytest.approx(PALETTE[3], abs=12)


@pytest.mark.parametrize(("name", "words"), [("lost", "Camera lost"), ("stale", "No new frame")])
def test_an_old_picture_never_looks_live(view: View, browser: Browser, name: str, words: str) -> None:
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(state("live"))
        assert browser.value("document.getElementById('alarm').hidden")
    view.stats = {**view.stats, "state": name}
    browser.until(state(name))
    browser.until("document.getElementById('alarm-text').textContent.includes(' for ')")
    assert words in browser.value("document.getElementById('alarm-text').textContent")
    assert browser.value("document.getElementById('alarm').getBoundingClientRect().height") > 40
    assert "grayscale(1)" in browser.value("getComputedStyle(document.getElementById('picture')).filter")
    assert browser.value("document.getElementById('fps').textContent") == "–"
    assert browser.value("document.title").startswith("camera lost" if name == "lost" else "stale")
    view.stats = {**view.stats, "state": "live", "losses": 1}
    with view.moving(every_s=0.03):
        browser.until(state("live"), "recovery")
        browser.until("document.getElementById('losses').firstChild.textContent === '1'")
        assert browser.value("getComputedStyle(document.getElementById('picture')).filter") == "none"
        assert browser.value("document.getElementById('alarm').hidden")


def test_a_page_opened_while_the_camera_is_lost_says_so(view: View, browser: Browser) -> None:
    view.write(3)
    view.stats = {**view.stats, "state": "lost"}
    time.sleep(0.6)  # the last frame is older than the look at the source
    browser.open(view.sink.url)
    browser.until(state("lost"))
    assert "Camera lost" in browser.value("document.getElementById('alarm-text').textContent")


def test_before_the_first_frame_it_waits(view: View, browser: Browser) -> None:
    browser.open(view.sink.url)
    browser.until(state("waiting"))
    assert browser.value("document.getElementById('alarm-text').textContent") == "Waiting for the first frame"
    with view.moving(every_s=0.03):
        browser.until(state("live"))


def test_the_end_of_the_run_is_told(view: View, browser: Browser) -> None:
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(state("live"))
    view.sink.close()
    browser.until(state("gone"))
    assert "No connection" in browser.value("document.getElementById('alarm-text').textContent")


def finished(folder: Path) -> List[Path]:
    """What was downloaded; nothing as long as a file of another ending is seen, which Chromium is still renaming."""
    found = list(folder.iterdir())
    return found if all(path.suffix == ".png" for path in found) else []


def test_the_snapshot_is_saved_under_a_telling_name(view: View, browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(state("live"))
        browser.press("2")
        browser.press("s")
        view.until(lambda: len(finished(folder)) == 1, "snapshot")
    (saved,) = finished(folder)
    assert saved.name.startswith("rtda-mask-")
    picture = cv2.imread(str(saved))
    assert picture.shape == (180, 320, 3)
    assert picture[150, 300].tolist() == list(reversed(PALETTE[3]))


def test_the_link_with_the_token_opens_everything(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtda_runtime.sinks.view.sink.parse_address", lambda _: ViewAddress("0.0.0.0", 0))
    monkeypatch.setattr("rtda_runtime.sinks.view.sink.listen", lambda _: address.listen(ViewAddress("127.0.0.1", 0)))
    view = View()
    view.make = street
    try:
        base = f"http://127.0.0.1:{view.port}/"
        with view.moving(every_s=0.03):
            browser.open(base)
            browser.until("document.body.textContent.includes('the token is missing or wrong')")
            browser.open(f"{base}?{view.sink.url.partition('?')[2]}")
            browser.until(state("live"))
            assert browser.value("document.cookie") == "", "scripts do not see it"
            browser.open(base)
            browser.until(state("live"), "the cookie opens it too")
    finally:
        view.sink.close()


_NAMELESS = """[...document.querySelectorAll('button, a, canvas, svg[role], [role=group], section')]
  .filter(e => !e.closest('[hidden]'))
  .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()))
  .map(e => e.outerHTML)"""

# WCAG's contrast of every text against the nearest background colour that is not transparent.
_POOR_CONTRAST = """(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > .9) return c;
  } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest('svg, noscript')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.push([e.textContent.trim().slice(0, 30), (a + .05) / (b + .05)]);
  }
  return poor;
})()"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_everybody_can_read_it(view: View, browser: Browser, scheme: str, size: Any) -> None:
    view.make = two_models
    browser.resize(*size, phone=size == PHONE)
    browser.scheme(scheme)
    with view.moving(every_s=0.03):
        browser.open(view.sink.url)
        browser.until(state("live"))
        browser.until("document.querySelectorAll('#legend li').length === 5")
        assert browser.value("getComputedStyle(document.documentElement).colorScheme") == scheme
        assert browser.value(_NAMELESS) == []
        assert browser.value(_POOR_CONTRAST) == []
        assert browser.value("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off on the right"
        assert browser.value("document.getElementById('picture').getBoundingClientRect().width") > 0.6 * size[0]
        if size == WIDE:
            assert browser.value("document.documentElement.scrollHeight <= innerHeight"), "all at one look"
        else:
            heights = "[...document.querySelectorAll('.bar button, .bar a')].filter(b => b.checkVisibility())"
            assert browser.value(f"Math.min(...{heights}.map(b => b.getBoundingClientRect().height))") >= 44
        label = browser.value("document.getElementById('picture').getAttribute('aria-label')")
        assert label == "overlay, live: sky 50 %, road 38 %, car 13 %"


def test_dark_and_light_can_be_chosen_and_are_remembered(view: View, browser: Browser) -> None:
    browser.scheme("dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(view.sink.url)
    browser.until(state("waiting"))
    assert browser.value(ground) == "rgb(13, 17, 23)"
    browser.press("d")
    assert browser.value(ground) == "rgb(255, 255, 255)"
    browser.open(view.sink.url)
    browser.until(state("waiting"))
    assert browser.value(ground) == "rgb(255, 255, 255)"
    browser.click("#theme")
    assert browser.value(ground) == "rgb(13, 17, 23)"
