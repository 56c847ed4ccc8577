"""The sections of ``speed_page.py``: each makes the lines below a heading from one JSON object."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

__all__ = ["SECTIONS", "network_name", "sorted_ways", "table"]

Found = Dict[str, Any]


class Section(NamedTuple):
    """A heading, and what makes the lines below it."""

    title: str
    lines: Callable[[Found], Iterator[str]]


_GROUPS = ("ours", "peer, tuned", "peer", "bare")
_GROWTH_PARTS = ("size", "batch", "backbone", "start")
_NETWORKS = {"resnet18": "R18", "resnet101": "R101"}
_STAGES = ("preprocess", "network", "postprocess")


def _peers(made: Found) -> Iterator[str]:
    yield (
        f"Frames of {made['frame']}, networks at {made['size']}, {made['rounds']} rounds{_words(made)}. *Ratio*: times"
        " as fast as the best tuned float32 peer. *Of the floor*: the network's time over that of the published"
        " network's operations at the highest speed at which a large convolution ran here in the same precision; below"
        " 1 where the export leaves operations out. *Agreement*: share of the pixels with the class of a float64"
        " computation. *Bare*: our network alone."
    )
    yield ""
    for network in made["networks"]:
        yield f"### {network_name(network)}"
        yield ""
        peaks = ", ".join(f"{precision} {peak:.0f}" for precision, peak in network["peak_gflops"].items())
        yield (
            f"{network['gflop']:.1f} GFLOP; measured peaks in GFLOP/s: {peaks}; floor in fp32 {network['floor_ms']:.0f}"
            " ms."
        )
        yield ""
        heads = ("way", "kind", "precision", "library", "ms", *_STAGES, "ratio", "of the floor", "agreement")
        yield from table(heads, [_way(way, network) for way in sorted_ways(network)], "llllrrrrrrr")


def _words(made: Found) -> str:
    """Threads and weights, where the file tells them."""
    threads = f", {made['threads']} threads" if made.get("threads") else ""
    kinds = [f"{kind} for `{variant}`" for variant, kind in made.get("weights", {}).items()]
    return threads + (f", weights: {', '.join(kinds)}" if kinds else "")


def sorted_ways(network: Found) -> List[Found]:
    """Ours first, then tuned peers, peers, bare networks; the fastest first in each."""
    return sorted(network["ways"], key=lambda way: (_GROUPS.index(way["group"]), way["ms"]))


def _way(way: Found, network: Found) -> List[str]:
    peak = network["peak_gflops"].get(way["precision"])
    spent = way.get("network_ms")
    floor = f"{spent * peak / network['gflop'] / 1e3:.2f}x" if peak and spent else "–"
    mark = "**" if way["group"] == "ours" else ""
    agreement = "–" if way.get("agreement") is None else f"{100 * way['agreement']:.2f} %"
    ratio = "–" if way.get("ratio") is None else f"{mark}{way['ratio']:.2f}x{mark} ({_spread(way)})"
    alone = way["group"] == "bare"
    stages = ["–" if alone and stage != "network" else _ms(way.get(f"{stage}_ms")) for stage in _STAGES]
    total = f"{mark}{_ms(way['ms'])}{mark}"
    library = re.sub(r"^\S+\.(onnx|engine), ", "", way["library"])  # an engine's description begins with its file
    cells = [f"{mark}{way['way']}{mark}", way["group"], way["precision"], library]
    return [*cells, total, *stages, ratio, floor, agreement]


def _preprocess(made: Found) -> Iterator[str]:
    yield f"*Ratio*: to `cv2.resize` alone (goal: at most {made['goal']:g})."
    yield ""
    rows = [
        (
            row["frame"],
            row["way"],
            str(row.get("threads", "–")),
            _ms(row["ms"]),
            f"{row['ratio']:.2f}x ({_spread(row)})",
        )
        for row in made["rows"]
    ]
    yield from table(("frame", "way", "threads", "ms", "ratio"), rows, "llrrr")


def _upsample(made: Found) -> Iterator[str]:
    classes, height, width = made["logits"]
    yield (
        f"Logits of {classes} classes at {width}x{height}, one thread, {made['rounds']} rounds. *Ratio*: times as fast"
        f" as `cv2.resize` of each class and argmax (goal: {made['goal']:g})."
    )
    yield ""
    rows = [
        (row["size"], row["way"], _ms(row["ms"]), f"{row['ratio']:.1f}x ({_spread(row, 1)})", f"{row['differs']:.1e}")
        for row in made["rows"]
    ]
    yield from table(("mask", "way", "ms", "ratio", "other pixels"), rows, "llrrr")


def _int8(made: Found) -> Iterator[str]:
    kind = made["data"].partition(":")[0]  # the rest is a path of the machine it was measured on
    yield (
        f"`{kind}`, network at {made['size']}, calibrated on {made['calibration_frames']} frames of the train"
        " split, scored on the test split: frames through `Segmenter`, masks at the frames' own size, against the"
        f" labels. {made['threads']} thread(s). All precisions: [export.md](export.md)."
    )
    yield ""
    cells = [
        (
            row["runs_in"], str(row["pictures"]), row["size"], f"{row['miou_fp32']:.2f}", f"{row['miou_int8']:.2f}",
            f"{row['lost']:.2f}", f"{100 * row['agreement']:.2f} %", f"{row['ratio']:.2f}x ({_spread(row)})",
        )
        for row in made.get("end_to_end", ())
    ]  # fmt: skip
    heads = ("runs in", "frames", "of", "mIoU fp32", "mIoU INT8", "lost", "same pixels", "times as fast, frame to mask")
    yield from table(heads, cells, "lrlrrrrr")


def _cameras(made: Found) -> Iterator[str]:
    if made.get("model"):
        yield f"{made['model']}; frames of 1280x720 in memory."
        yield ""
    limits = {"cameras": "As many cameras", "free": "A frame is there whenever one is wanted, from as many sources"}
    if made.get("camera_fps"):
        limits["cameras"] = f"As many cameras of {made['camera_fps']:g} frames a second, newest frame first"
    for name, title in limits.items():
        if made.get(name):
            yield f"{title}:"
            yield ""
            heads = ("cameras", "masks a second", "of one camera, least to most", "age of a mask, p95")
            yield from table(heads, [_camera(row) for row in made[name]], "rrrr")
    if made.get("in_flight"):
        rows = [
            (
                str(row.get("provider", "–")),
                str(row["in_flight"]),
                f"{row['fps']:.1f}",
                f"{row['ratio']:.2f}x ({_spread(row)})",
            )
            for row in made["in_flight"]
        ]
        yield "Frames in flight, of a file; *ratio* to one at a time:"
        yield ""
        yield from table(("provider", "in flight", "frames a second", "ratio"), rows, "lrrr")


def _camera(row: Found) -> List[str]:
    one = f"{row['least_fps']:.1f} to {row['most_fps']:.1f}"
    return [str(row["cameras"]), f"{row['total_fps']:.1f}", one, f"{row['age_p95_ms']:.0f} ms"]


def _growth(made: Found) -> Iterator[str]:
    yield (
        f"float32, {made['threads']} thread(s), {made['rounds']} rounds; {made['starts']} starts. Networks at"
        f" {made['network']} where no size is given."
    )
    yield ""
    parts: Dict[str, Callable[[Any], Iterator[str]]] = {
        "size": _size,
        "batch": _batch,
        "backbone": _backbone,
        "start": _start,
    }
    for name in _GROWTH_PARTS:
        if name in made:
            yield from parts[name](made[name])
        else:
            yield f"Not measured: {name}. The command is `python benchmarks/growth.py --part {name}`."
            yield ""


def _size(made: Found) -> Iterator[str]:
    fits = "; ".join(
        f"{fit['library']} {fit['network_exponent']:.2f} for the network, {fit['frame_exponent']:.2f} for the whole way"
        for fit in made["fits"]
    )
    yield "### Input size"
    yield ""
    yield f"Milliseconds grow with the pixels to the power of: {fits}. Frames of {made['frame']}."
    yield ""
    rows = [
        (
            row["library"], row["size"], f"{row['pixels']:.2f}x", _ms(row["network_ms"]), _ms(row["frame_ms"]),
            f"{row['ratio']:.2f}x ({_spread(row)})",
        )
        for row in made["rows"]
    ]  # fmt: skip
    heads = ("library", "input", "pixels", "network, ms", "whole way, ms", f"network, of {made['base']}")
    yield from table(heads, rows, "llrrrr")


def _batch(made: Sequence[Found]) -> Iterator[str]:
    yield "### Batch"
    yield ""
    yield "Pictures at a time in bare sessions; the runtime itself takes one frame at a time."
    yield ""
    rows = [
        (row["library"], str(row["batch"]), _ms(row["ms"]), f"{row['ratio']:.2f}x ({_spread(row)})") for row in made
    ]
    yield from table(("library", "batch", "ms a picture", "of one at a time"), rows, "lrrr")


def _backbone(made: Sequence[Found]) -> Iterator[str]:
    yield "### Network"
    yield ""
    rows = [
        (
            row["library"],
            f"{_NETWORKS[row['backbone']]} `{row['variant']}`",
            "–" if row["gflop"] is None else f"{row['gflop']:.1f}",
            "–" if row["gflop_ratio"] is None else f"{row['gflop_ratio']:.2f}x",
            _ms(row["ms"]),
            f"{row['ratio']:.2f}x ({_spread(row)})",
        )
        for row in made
    ]
    heads = ("library", "network", "GFLOP of the export", "of R18 `rtda`", "ms", "of R18 `rtda`")
    yield from table(heads, rows, "llrrrr")


def _start(made: Sequence[Found]) -> Iterator[str]:
    masks = made[0]["masks"]
    yield "### A new process: time to the first mask, and memory"
    yield ""
    yield (
        "From the start of the process to the first mask. *First*: nothing is kept from an earlier start, so numba"
        " compiles the code of the mask and `auto` measures which library is quickest. Memory: the most that was"
        " resident, Python and libraries included."
    )
    yield ""
    rows = [
        (
            row["library"], row["start"],
            *(f"{row[phase]:.0f}" for phase in ("python_ms", "import_ms", "open_ms", "mask_ms")),
            f"**{row['total_ms']:.0f}** ({row['low']:.0f} to {row['high']:.0f})",
            f"{row['peak_1_mb']:.0f} MB", f"{row['peak_mb']:.0f} MB",
        )
        for row in made
    ]  # fmt: skip
    heads = ("library", "start", "Python, ms", "import", "open", "first mask", "total", "1 mask", f"{masks} masks")
    yield from table(heads, rows, "llrrrrrrr")


def _rewrites(made: Found) -> Iterator[str]:
    yield (
        f"Graphs of the same weights at {made['size']}, {made['threads']} threads, {made['rounds']} rounds."
        " *Published*: logits at full size. *Head first*: the last 1x1 convolution before the last enlargement."
        " *Deployed*: logits at 1/8. *Rewritten*: and the fusion convolved before its maps are enlarged, which is what"
        " `export` writes. *Ratio*: times as fast as the published graph. *Differs*: of the logits of the graph it was"
        " made from, as a share of their range."
    )
    yield ""
    rows = [
        (
            network_name(network), row["library"], row["graph"], f"{row['gmacs']:.2f}", _ms(row["ms"]),
            f"{row['ratio']:.2f}x ({_spread(row)})", f"{row['differs']:.0e}",
        )
        for network in made["networks"]
        for row in network["rows"]
    ]  # fmt: skip
    yield from table(("network", "library", "graph", "G MAC", "ms", "ratio", "differs"), rows, "lllrrrr")


def _threads(made: Found) -> Iterator[str]:
    yield (
        f"The same network in sessions that differ in one option, at {made['size']}, {made['rounds']} rounds; *beside*:"
        " so many endless loops of other processes. *Ratio*: times as fast as the library's own default."
    )
    yield ""
    rows = [
        (
            str(row["busy"]), row["library"], row["option"], _ms(row["ms"]), _ms(row["cpu_ms"]),
            f"{row['ratio']:.2f}x ({_spread(row)})",
        )
        for row in made["rows"]
    ]  # fmt: skip
    yield from table(("beside", "library", "option", "ms", "processor time, ms", "ratio"), rows, "rllrrr")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> List[str]:
    """Lines of a Markdown table; ``align``: ``l`` or ``r`` per column."""
    lines = [heads, ["---" if side == "l" else "---:" for side in align], *rows]
    return [*(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines), ""]


def network_name(network: Found) -> str:
    backbone = _NETWORKS.get(network["backbone"], network["backbone"])
    return f"BiSeNet-{backbone} `{network['variant']}`"


def _ms(value: Optional[float]) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread(row: Found, digits: int = 2) -> str:
    return f"{row['low']:.{digits}f} to {row['high']:.{digits}f}"


# By the name of the JSON file, in the order of the page: heading, and what makes its lines.
SECTIONS: Dict[str, Section] = {
    "peers": Section("From frame to mask, beside what a user would do otherwise", _peers),
    "preprocess": Section("Frame to network input", _preprocess),
    "upsample": Section("Logits to mask", _upsample),
    "rewrites": Section("The network: fewer operations, the same answer", _rewrites),
    "export_precision": Section("INT8 end to end", _int8),
    "cpu_threads": Section("Threads", _threads),
    "cameras": Section("Several cameras on one engine", _cameras),
    "growth": Section("How cost grows", _growth),
}
