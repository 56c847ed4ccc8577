"""One self-contained HTML page: what every run folder ends with.

No network, no script, no template engine: pictures are data URIs, charts are inline SVG drawn here, the figures behind
them are embedded as JSON. The page follows the reader's dark or light setting and stays readable on a phone: charts are
laid out in percent of the width, so that their text keeps its size. Everything given is escaped.
"""

from __future__ import annotations

import base64
import html
import json
import math
from pathlib import Path
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from rtda_deploy.errors import DataError
from rtda_deploy.files import readable_file, write_text

__all__ = ["ReportPage", "short"]

Number = Optional[float]
Point = Tuple[float, float]

_COLOURS = 8  # --c0 .. --c7 of the style sheet: Okabe and Ito's colour-blind-safe set, ordered for contrast
_MAX_POINTS = 800  # of one line; more are thinned to each bucket's extremes, which keeps spikes visible
_LONG_LABEL = 16  # characters; longer bar labels stand above their bar, so that a phone shows them whole

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d0d7de;--card:#f6f8fa;--heat:0,90,160;
--on-heat:#fff;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9;--c6:#6b5b95;--c7:#7f7f7f}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--soft:#9aa4af;--line:#30363d;--card:#161b22;
--heat:86,180,233;--on-heat:#06121c;--c0:#56a8e8;--c1:#f0803c;--c2:#2fc49b;--c3:#e39bc4;--c4:#f2b632;--c5:#8ed0f5;
--c6:#a794d8;--c7:#a8a8a8}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:60rem;background:var(--bg);color:var(--fg);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:0}
h2{font-size:1.15rem;margin:2.4rem 0 .6rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
p{margin:.6rem 0}
.lead{font-size:1.1rem;line-height:1.5;border-left:4px solid var(--c0);padding:.1rem 0 .1rem .9rem;
margin:1rem 0 1.6rem}
.under{color:var(--soft);font-size:.875rem;margin:.3rem 0 0}.subtitle{color:var(--soft);margin:.3rem 0 1.4rem}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem;overflow-x:auto;
font:13px/1.5 ui-monospace,"DejaVu Sans Mono",monospace}
figure{margin:1rem 0 1.4rem}figcaption{color:var(--soft);font-size:.875rem;margin-top:.4rem}
img{display:block;max-width:100%;height:auto;border-radius:6px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
.plain{min-width:50%}.plain th,.plain td{padding:.35rem .8rem;border-bottom:1px solid var(--line);text-align:left}
.plain th{color:var(--soft);font-weight:600}.plain .number{text-align:right;white-space:nowrap}
.plain td+td:not(.number){overflow-wrap:anywhere}
@media (max-width:34rem){.plain{min-width:100%;font-size:.82rem}.plain th,.plain td{padding:.35rem .4rem}}
svg{display:block;width:100%;overflow:visible}
text{fill:var(--fg);font-size:13px;font-variant-numeric:tabular-nums}
text.soft{fill:var(--soft);font-size:12px}
text.value{paint-order:stroke;stroke:var(--bg);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--line);stroke-width:1}.mark{stroke:var(--fg);stroke-width:1.5;stroke-dasharray:4 3}
.curve{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:.5rem 0 0;padding:0;list-style:none;font-size:.875rem}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.45em}
.matrix{font-size:11px;line-height:1.2}.matrix td{width:2.1rem;min-width:2.1rem;height:1.75rem;text-align:center;
border:1px solid var(--bg);background:rgba(var(--heat),var(--a,0))}
.matrix td.hot{color:var(--on-heat)}.matrix td.none{color:var(--soft)}
.matrix th{font-weight:400;font-size:12px;text-align:right;padding-right:.5rem;white-space:nowrap;position:sticky;
left:0;background:var(--bg)}
.matrix thead th{position:static;vertical-align:bottom;padding:0 0 .35rem;text-align:left}
.matrix thead span{writing-mode:vertical-rl;transform:rotate(180deg);display:inline-block}
"""


def short(address: str, most: int = 48) -> str:
    """A path or a set's address for people: of one that is longer than ``most``, what stands at the front is left out.

    The kind before the colon stays and so does the end, in whole names: ``camvid:…/camvid?list=lists/test.txt``.
    """
    if len(address) <= most:
        return address
    kind, colon, path = address.partition(":")
    if not colon or "/" in kind:
        kind, colon, path = "", "", address
    place, mark, query = path.partition("?")
    parts = place.split("/")
    while len(parts) > 1 and len(kind) + len("/".join(parts)) + len(query) + 4 > most:
        parts.pop(0)
    whole = len(parts) == len(place.split("/"))
    return kind + colon + ("" if whole else "…/") + "/".join(parts) + mark + query


class ReportPage:
    """A page that is filled from top to bottom and saved once.

    Args:
        title: The page's heading and the browser tab's name.
        subtitle: One line under it: what was measured, on which device.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._subtitle = subtitle
        self._parts: List[str] = []
        self._data_blocks = 0

    def lead(self, text: str) -> None:
        """What the reader came for, in a sentence; nothing for an empty text."""
        if text:
            self._parts.append(f'<p class="lead">{_escape(text)}</p>')

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{_escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add paragraphs; an empty line starts a new one."""
        for paragraph in text.split("\n\n"):
            self._parts.append(f"<p>{_escape(paragraph)}</p>")

    def code(self, text: str) -> None:
        """Add text as typed, such as a command to copy."""
        self._parts.append(f"<pre>{_escape(text)}</pre>")

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
        """Add a table; a column of numbers is aligned right, ``None`` and NaN read as a dash."""
        body = [list(row) for row in rows]
        numeric = [_is_number_column([row[i] for row in body if i < len(row)]) for i in range(len(headers))]
        numeric += [False] * (max([len(row) for row in body], default=0) - len(numeric))
        lines = ["<tr>" + "".join(_cell("th", name, numeric[i]) for i, name in enumerate(headers)) + "</tr>"]
        lines += ["<tr>" + "".join(_cell("td", v, numeric[i]) for i, v in enumerate(row)) + "</tr>" for row in body]
        content = f"<thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody>"
        self._figure(f'<div class="scroll"><table class="plain">{content}</table></div>', caption)

    def picture(self, picture: Union[str, Path, bytes], caption: str = "") -> None:
        """Add a PNG, JPEG or SVG, from its path or its encoded bytes, inside the page.

        Raises:
            DataError: If it is none of the three.
            FileAccessError: If the path cannot be read.
        """
        where = "the picture" if isinstance(picture, bytes) else str(picture)
        content = picture if isinstance(picture, bytes) else readable_file(picture, what="picture").read_bytes()
        encoded = base64.b64encode(content).decode("ascii")
        kind = _picture_kind(content, where)
        self._figure(f'<img alt="{_escape(caption)}" src="data:{kind};base64,{encoded}">', caption)

    def bars(
        self,
        labels: Sequence[str],
        values: Iterable[Number],
        unit: str = "",
        limit: Optional[float] = None,
        caption: str = "",
    ) -> None:
        """Add horizontal bars, one a label; ``limit`` draws a line across them. NaN and ``None`` have no bar."""
        self._figure(_bars_svg([str(label) for label in labels], _floats(values), unit, limit), caption)

    def lines(
        self, series: Mapping[str, Iterable[Point]], x_label: str = "", y_label: str = "", caption: str = ""
    ) -> None:
        """Add a line chart; a NaN breaks its line."""
        points = {name: [(_float(x), _float(y)) for x, y in values] for name, values in series.items()}
        legend = _legend([(name, "") for name in points]) if len(points) > 1 or not y_label else ""
        self._figure(_lines_svg(list(points.values()), x_label, y_label) + legend, caption)

    def histogram(
        self,
        values: Iterable[Number],
        marks: Optional[Mapping[str, float]] = None,
        unit: str = "ms",
        caption: str = "",
    ) -> None:
        """Add a histogram with vertical marks such as p50 and p95; the rare far tail shares the last bin."""
        self._figure(_histogram_svg(_finite(_floats(values)), dict(marks or {}), unit), caption)

    def stacked(self, labels: Sequence[str], values: Iterable[Number], unit: str = "", caption: str = "") -> None:
        """Add one bar of stacked parts, such as the milliseconds of each stage, with its legend."""
        parts = [value if math.isfinite(value) and value > 0 else 0.0 for value in _floats(values)]
        total = sum(parts)
        shares = [part / total if total else 0.0 for part in parts]
        entries = [
            (str(label), f"{_number(part)}{_unit(unit)} ({100 * share:.0f} %)")
            for label, part, share in zip(labels, parts, shares)
        ]
        whole = f'<p class="under">{_escape(f"total {_number(total)}{_unit(unit)}")}</p>'
        self._figure(_stacked_svg(entries, shares) + _legend(entries) + whole, caption)

    def matrix(
        self,
        row_names: Sequence[str],
        values: Iterable[Iterable[Number]],
        column_names: Optional[Sequence[str]] = None,
        normalise: bool = True,
        caption: str = "",
    ) -> None:
        """Add a heat map, such as a confusion matrix with the truth in its rows.

        Args:
            row_names: One name per row.
            values: Counts or shares, row by row, none negative.
            column_names: One name per column; the rows' names when not given.
            normalise: Divide each row by its sum and show percent; else show the values, coloured up to the largest.
            caption: A line under it.
        """
        rows = [_floats(row) for row in values]
        columns = list(row_names if column_names is None else column_names)
        largest = max([v for row in rows for v in _finite(row)], default=0.0)
        head = "".join(f"<th><span>{_escape(name)}</span></th>" for name in columns)
        body = []
        for name, row in zip(row_names, rows):
            whole = sum(_finite(row)) if normalise else largest
            body.append(f"<tr><th>{_escape(name)}</th>{''.join(_heat(v, whole, normalise) for v in row)}</tr>")
        content = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        self._figure(f'<div class="scroll"><table class="matrix">{content}</table></div>', caption)

    def legend(self, names: Sequence[str], colours: Sequence[Sequence[int]]) -> None:
        """Add what colour, RGB of 0..255, stands for what."""
        entries = [
            f'<li><span class="swatch" style="background:rgb({red},{green},{blue})"></span>{_escape(name)}</li>'
            for name, (red, green, blue) in zip(names, colours)
        ]
        self._parts.append(f'<ul class="legend">{"".join(entries)}</ul>')

    def data(self, values: Any) -> None:
        """Embed the figures behind the page as JSON, in ``<script type="application/json" id="data">``.

        NaN and infinity, which JSON does not know, become ``null``. A second call gets the id ``data-2``.
        """
        self._data_blocks += 1
        name = "data" if self._data_blocks == 1 else f"data-{self._data_blocks}"
        text = json.dumps(_jsonable(values), ensure_ascii=False, allow_nan=False)
        for character in "<>&\u2028\u2029":  # so that no content can end the block or start another
            text = text.replace(character, f"\\u{ord(character):04x}")
        self._parts.append(f'<script type="application/json" id="{name}">{text}</script>')

    def html(self) -> str:
        """The whole page."""
        subtitle = f'<p class="subtitle">{_escape(self._subtitle)}</p>' if self._subtitle else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">\n'
            f"<title>{_escape(self._title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
            f"<h1>{_escape(self._title)}</h1>\n{subtitle}\n" + "\n".join(self._parts) + "\n</body></html>\n"
        )

    def save(self, path: Union[str, Path]) -> Path:
        """Write the page, whole or not at all.

        Raises:
            FileAccessError: If it cannot be written.
        """
        return write_text(path, self.html())

    def _figure(self, content: str, caption: str) -> None:
        under = f"<figcaption>{_escape(caption)}</figcaption>" if caption else ""
        self._parts.append(f"<figure>{content}{under}</figure>")


def _bars_svg(labels: List[str], values: List[float], unit: str, limit: Optional[float]) -> str:
    above = max([len(label) for label in labels], default=0) > _LONG_LABEL
    left, right = (0.5, 82.0) if above else (25.0, 84.0)
    row, top = (44 if above else 26), (22 if limit is not None else 4)
    bottom = top + len(labels) * row
    known = [*_finite(values), 0.0, *_finite([limit])]
    low, high = min(known), max(known)
    scale = (right - left) / ((high - low) or 1.0)
    zero = left - low * scale
    boxes, texts = [], []
    for index, (label, value) in enumerate(zip(labels, values)):
        y = top + index * row
        middle = y + (32 if above else row / 2)
        texts.append(_text(0, y + 18, label) if above else _text(left - 1.2, middle + 4.5, label, anchor="end"))
        end, shown = zero, "–"
        if math.isfinite(value):
            end, shown = left + (value - low) * scale, f"{_number(value, 3)}{_unit(unit)}"
            box = f'x="{min(zero, end):.3f}%" width="{abs(end - zero):.3f}%" y="{middle - 8:.1f}" height="16" rx="2"'
            boxes.append(f'<rect {box} fill="var(--c{0 if value >= 0 else 1})"/>')
        texts.append(_text(max(zero, end), middle + 4.5, shown, kind="value", shift=6))
    if low < 0:
        boxes.append(f'<line class="grid" x1="{zero:.3f}%" x2="{zero:.3f}%" y1="{top}" y2="{bottom}"/>')
    if limit is not None and math.isfinite(limit):
        at = left + (limit - low) * scale
        boxes.append(f'<line class="mark" x1="{at:.3f}%" x2="{at:.3f}%" y1="{top - 4}" y2="{bottom}"/>')
        texts.append(_text(at, 12, f"limit {_number(limit)}{_unit(unit)}", kind="soft", anchor="middle"))
    return f'<svg role="img" height="{bottom + 4}">{"".join(boxes)}{"".join(texts)}</svg>'


def _lines_svg(series: List[List[Point]], x_label: str, y_label: str) -> str:
    left, width, top, height = 9.0, 89.0, 26, 240
    known = [(x, y) for points in series for x, y in points if math.isfinite(x) and math.isfinite(y)]
    x_ticks = _ticks([x for x, _ in known], tight=True)
    y_ticks = _ticks([y for _, y in known])
    x_low, x_high = min([x for x, _ in known], default=0.0), max([x for x, _ in known], default=1.0)
    x_span = (x_high - x_low) or 1.0
    y_low, y_span = y_ticks[0], (y_ticks[-1] - y_ticks[0]) or 1.0
    parts = [_text(0, 12, y_label, kind="soft")]
    for tick in y_ticks:
        y = top + height * (1 - (tick - y_low) / y_span)
        parts.append(f'<line class="grid" x1="{left}%" x2="{left + width}%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 1, y + 4, _tick_text(tick, y_ticks), kind="soft", anchor="end"))
    for tick in x_ticks:
        at = left + width * (tick - x_low) / x_span
        parts.append(_text(at, top + height + 17, _tick_text(tick, x_ticks), kind="soft", anchor="middle"))
    parts.append(_text(left + width, top + height + 35, x_label, kind="soft", anchor="end"))
    curves = []
    for index, points in enumerate(series):
        style = f'stroke="var(--c{index % _COLOURS})"' + (' stroke-dasharray="6 3"' if index >= _COLOURS else "")
        for run in _runs(points):
            placed = [((x - x_low) / x_span * 100, (1 - (y - y_low) / y_span) * 100) for x, y in _thinned(run)]
            if len(placed) == 1:
                dot = f'cx="{left + placed[0][0] * width / 100:.2f}%" cy="{top + placed[0][1] * height / 100:.1f}"'
                parts.append(f'<circle {dot} r="3.5" fill="var(--c{index % _COLOURS})"/>')
            else:
                path = " ".join(f"{x:.2f},{y:.2f}" for x, y in placed)
                curves.append(f'<polyline class="curve" {style} points="{path}"/>')
    box = f'x="{left}%" y="{top}" width="{width}%" height="{height}" viewBox="0 0 100 100" preserveAspectRatio="none"'
    # style: the page's rule for svg (width 100 %) would win over the attribute of this inner one
    inner = f'<svg {box} style="width:{width}%">{"".join(curves)}</svg>'
    return f'<svg role="img" height="{top + height + 42}">{"".join(parts)}{inner}</svg>'


def _histogram_svg(values: List[float], marks: Mapping[str, float], unit: str) -> str:
    if not values:
        return "<p>no values</p>"
    ordered = sorted(values)
    known_marks = {name: float(at) for name, at in marks.items() if math.isfinite(float(at))}
    usual = ordered[min(len(ordered) - 1, math.ceil(0.995 * len(ordered)) - 1)]
    low = min([ordered[0], *known_marks.values()])
    high = max([usual, *known_marks.values()])
    tail = sum(1 for value in ordered if value > high)
    span = (high - low) or max(abs(low) * 0.1, 1e-9)
    count = max(8, min(48, int(2 * math.sqrt(len(ordered)))))
    bins = [0] * count
    for value in ordered:
        bins[min(count - 1, int((value - low) / span * count))] += 1
    height, rise = 150, 16 * len(known_marks) + 8
    floor = rise + height
    parts = []
    for index, amount in enumerate(bins):
        if amount:
            tall = max(1.5, amount / max(bins) * height)
            start, end = (_number(low + span * edge / count) for edge in (index, index + 1))
            place = f'x="{100 * index / count:.3f}%" y="{floor - tall:.1f}"'
            size = f'width="{100 / count - 0.15:.3f}%" height="{tall:.1f}"'
            tip = _escape(f"{start} to {end}{_unit(unit)}: {amount}")
            parts.append(f'<rect {place} {size} fill="var(--c0)"><title>{tip}</title></rect>')
    for index, (name, at) in enumerate(sorted(known_marks.items(), key=lambda item: item[1])):
        x, y = 100 * (at - low) / span, 12 + 16 * index
        parts.append(f'<line class="mark" x1="{x:.3f}%" x2="{x:.3f}%" y1="{y - 10}" y2="{floor}"/>')
        anchor, shift = ("end", -5) if x > 60 else ("start", 5)
        parts.append(_text(x, y, f"{name} {_number(at, 3)}{_unit(unit)}", kind="value", anchor=anchor, shift=shift))
    parts.append(f'<line class="grid" x1="0" x2="100%" y1="{floor}" y2="{floor}"/>')
    for tick in _ticks([low, low + span], tight=True):
        x = 100 * (tick - low) / span
        anchor = "start" if x < 3 else "end" if x > 97 else "middle"
        parts.append(_text(x, floor + 16, _number(tick), kind="soft", anchor=anchor))
    note = f"{len(ordered)} values" + (f" in {unit}" if unit else "")
    if tail:
        note += f"; {tail} beyond {_number(high)} counted in the last bin, largest {_number(ordered[-1])}"
    return f'<svg role="img" height="{floor + 22}">{"".join(parts)}</svg><p class="under">{_escape(note)}</p>'


def _stacked_svg(entries: List[Tuple[str, str]], shares: List[float]) -> str:
    parts, at = [], 0.0
    for index, ((label, shown), share) in enumerate(zip(entries, shares)):
        tip = f"<title>{_escape(f'{label} {shown}')}</title>"
        box = f'x="{100 * at:.3f}%" width="{max(0.0, 100 * share - 0.2):.3f}%" y="2" height="34"'
        parts.append(f'<rect {box} fill="var(--c{index % _COLOURS})">{tip}</rect>')
        at += share
    return f'<svg role="img" height="38">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start", shift: int = 0) -> str:
    """SVG text; ``x`` in percent of the width, ``y`` and ``shift`` in pixels."""
    style = f'class="{kind}" ' if kind else ""
    style += f'dx="{shift}" ' if shift else ""
    return f'<text {style}x="{x:.3f}%" y="{y:.1f}" text-anchor="{anchor}">{_escape(text)}</text>'


def _legend(entries: Sequence[Tuple[str, str]]) -> str:
    items = []
    for index, (name, shown) in enumerate(entries):
        swatch = f'<span class="swatch" style="background:var(--c{index % _COLOURS})"></span>'
        items.append(f"<li>{swatch}{_escape(f'{name} {shown}'.strip())}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _heat(value: float, whole: float, percent: bool) -> str:
    if not math.isfinite(value) or whole <= 0:
        return '<td class="none">–</td>'
    share = min(1.0, max(0.0, value / whole))
    shown = f"{100 * share:.0f}" if percent else _number(value)
    if percent and share < 0.005:
        shown = "" if value == 0 else "·"
    hot = ' class="hot"' if share > 0.55 else ""
    return f'<td{hot} style="--a:{share:.3f}">{_escape(shown)}</td>'


def _cell(tag: str, value: Any, numeric: bool) -> str:
    kind = ' class="number"' if numeric else ""
    return f"<{tag}{kind}>{_escape(_shown(value))}</{tag}>"


def _is_number_column(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None and value != ""]
    return bool(known) and all(_is_number(value) for value in known)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, str):  # "98.3 %", "12.1 ms", "–"
        text = value.split(" ")[0].replace(",", "")
        if text in ("–", "-", "n/a"):
            return True
        value = text
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    try:
        return _number(float(value))
    except (TypeError, ValueError):
        return str(value)


def _number(value: float, digits: int = 4) -> str:
    """At most ``digits`` significant digits, and no exponent where a person would write none."""
    if not math.isfinite(value):
        return "–"
    if 1000 <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e+")


def _tick_text(tick: float, ticks: Sequence[float]) -> str:
    return "0" if abs(tick) < 1e-9 * max(abs(t) for t in ticks) else _number(tick)


def _ticks(values: Sequence[float], tight: bool = False) -> List[float]:
    """About five round numbers around (``tight``: inside) the values."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        low, high = (low, low + 1.0) if not tight else (low, low)
    if low == high:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9) if tight else math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) if tight else math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _runs(points: Sequence[Point]) -> List[List[Point]]:
    """The points cut wherever one is not finite."""
    runs: List[List[Point]] = [[]]
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _thinned(points: List[Point]) -> List[Point]:
    if len(points) <= _MAX_POINTS:
        return points
    size = math.ceil(len(points) / (_MAX_POINTS // 2))
    kept = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        kept += sorted({min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])})
    return kept


def _picture_kind(content: bytes, where: str) -> str:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.lstrip().startswith((b"<svg", b"<?xml")):
        return "image/svg+xml"
    raise DataError(f"{where} is no PNG, JPEG or SVG", hint="encode it first, such as cv2.imencode('.png', picture)")


def _jsonable(values: Any) -> Any:
    if values is None or isinstance(values, (bool, str, int)):
        return values
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {str(key): _jsonable(value) for key, value in values.items()}
    if hasattr(values, "tolist"):  # a numpy array or number, without importing numpy
        return _jsonable(values.tolist())
    if isinstance(values, Iterable):
        return [_jsonable(value) for value in values]
    return str(values)


def _floats(values: Iterable[Any]) -> List[float]:
    return [_float(value) for value in values]


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _finite(values: Iterable[Optional[float]]) -> List[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def _escape(value: Any) -> str:
    return html.escape(str(value), quote=True)
