"""The sections of ``speed_page.py``, and what each benchmark of speed prints: one for each JSON object.

A benchmark's figures become text here only: :func:`report` prints them, :mod:`speed_page` puts them on the page.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

from tables import ms, spread, table, wide

__all__ = ["SECTIONS", "Goal", "goal_table", "machine_text", "network_name", "report"]

Found = Dict[str, Any]
_GROUPS = ("ours", "peer, tuned", "peer", "bare")


class Goal(NamedTuple):
    """Something that was asked for, and what was reached."""

    text: str
    wanted: str
    value: str
    met: bool


class Section(NamedTuple):
    """A heading, the paragraphs of a record, the goals in it, and the command where it is not that of all."""

    title: str
    paragraphs: Callable[[Found], Iterator[str]]
    goals: Callable[[Found], Iterator[Goal]] = lambda made: iter(())
    command: str = "python benchmarks/{name}.py --json > DIR/{name}.json"


def report(name: str, made: Found, *, as_json: bool) -> int:
    """Print a record, and give the exit code: 1 where a goal was missed."""
    section = SECTIONS[name]
    goals = list(section.goals(made))
    if as_json:
        print(json.dumps(made))
    else:
        parts = [*section.paragraphs(made), *([goal_table(goals)] if goals else []), machine_text(made["environment"])]
        print(wide("\n\n".join(parts)))
        print(f"Other programs took {made['conditions']['other_cores']} cores meanwhile.")
    return int(not all(goal.met for goal in goals))


def goal_table(goals: List[Goal]) -> str:
    """Goals beside what was reached."""
    columns = {"goal": "{text}", ">wanted": "{wanted}", ">reached": "{value}", "": "{word}"}
    return table(columns, [{**goal._asdict(), "word": "met" if goal.met else "**MISSED**"} for goal in goals])


def machine_text(machine: Found) -> str:
    """``2 cores of AMD EPYC, Debian 12, Python 3.11.7, ...`` of an environment."""
    known = {"python": "Python", "numpy": "NumPy", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    titles = {**known, "opencv": "OpenCV"}
    versions = [f"{title} {str(machine[key]).partition('-')[0]}" for key, title in titles.items() if machine.get(key)]
    return ", ".join([f"{machine['cores']} cores of {machine['cpu']}", *filter(None, [machine.get("os")]), *versions])


def network_name(network: Found) -> str:
    """``BiSeNet-R18 `rtda```."""
    return f"BiSeNet-{network['backbone'].replace('resnet', 'R')} `{network['variant']}`"


def _rows(text: str, columns: Dict[str, str], key: str = "rows") -> Callable[[Found], Iterator[str]]:
    """A sentence with fields of the record, and a table of its rows."""

    def paragraphs(made: Found) -> Iterator[str]:
        yield text.format(**made)
        yield table(columns, made.get(key, ()))

    return paragraphs


def _peers(made: Found) -> Iterator[str]:
    threads = f", {made['threads']} threads" if made.get("threads") else ""
    kinds = ", ".join(f"{kind} for `{variant}`" for variant, kind in made.get("weights", {}).items())
    yield (
        f"Frames of {made['frame']}, networks at {made['size']}, {made['rounds']} rounds{threads}"
        f"{', weights: ' if kinds else ''}{kinds}. *Ratio*: times as fast as the best tuned float32 peer. *Of the"
        " floor*: the network's time over that of the published network's operations at the highest speed at which a"
        " large convolution ran here in the same precision; below 1 where the export leaves operations out."
        " *Agreement*: share of the pixels with the class of a float64 computation. *Bare*: our network alone."
    )
    columns = {"way": "{way}", "kind": "{group}", "precision": "{precision}", "library": "{library}", ">ms": "{total}"}
    columns.update({f">{stage}": f"{{{stage}_ms:ms}}" for stage in ("preprocess", "network", "postprocess")})
    columns.update({">ratio": "{times}", ">of the floor": "{floor}", ">agreement": "{agreement:%2}"})
    for network in made["networks"]:
        yield f"### {network_name(network)}"
        peaks = ", ".join(f"{precision} {peak:.0f}" for precision, peak in network["peak_gflops"].items())
        floor = f"floor in fp32 {network['floor_ms']:.0f} ms"
        yield f"{network['gflop']:.1f} GFLOP; measured peaks in GFLOP/s: {peaks}; {floor}."
        ways = sorted(network["ways"], key=lambda way: (_GROUPS.index(way["group"]), way["ms"]))
        yield table(columns, [_way(way, network) for way in ways])


def _way(way: Found, network: Found) -> Found:
    """The row with what the table says of it; ours are bold."""
    mark = "**" if way["group"] == "ours" else ""
    peak, spent = network["peak_gflops"].get(way["precision"]), way.get("network_ms")
    alone = {"preprocess_ms": None, "postprocess_ms": None} if way["group"] == "bare" else {}
    return {
        **way,
        **alone,
        "way": f"{mark}{way['way']}{mark}",
        "library": re.sub(r"^\S+\.(onnx|engine), ", "", way["library"]),  # an engine's description begins with its file
        "total": f"{mark}{ms(way['ms'])}{mark}",
        "times": re.sub(r"^\S+x", lambda found: f"{mark}{found.group()}{mark}", spread(way)),
        "floor": f"{spent * peak / network['gflop'] / 1e3:.2f}x" if peak and spent else "–",
    }


def _peer_goals(made: Found) -> Iterator[Goal]:
    for network in made["networks"]:
        for goal in network["goals"]:
            text = f"{network_name(network)}: {goal['goal']}"
            yield Goal(text, goal["wanted"], f"{goal['value']:.4g}", goal["met"])


def _preprocess_goals(made: Found) -> Iterator[Goal]:
    worst = max(row["ratio"] for row in made["rows"] if row["way"] == "ours")
    text = "frame to network input, against `cv2.resize` alone"
    yield Goal(text, f"<= {made['goal']:g}x", f"{worst:.2f}x", worst <= made["goal"])


def _upsample_goals(made: Found) -> Iterator[Goal]:
    for row in made["rows"]:
        if row["way"] == "ours":
            text = f"mask of {row['size']}, against `cv2.resize` per class and argmax"
            yield Goal(text, f">= {made['goal']:g}x", f"{row['ratio']:.1f}x", row["ratio"] >= made["goal"])


def _rewrites(made: Found) -> Iterator[str]:
    yield (
        f"Graphs of the same weights at {made['size']}, {made['threads']} threads, {made['rounds']} rounds."
        " *Published*: logits at full size. *Head first*: the last 1x1 convolution before the last enlargement."
        " *Deployed*: logits at 1/8. *Rewritten*: and the fusion convolved before its maps are enlarged, which is what"
        " `export` writes. *Ratio*: times as fast as the published graph. *Differs*: of the logits of the graph it was"
        " made from, as a share of their range."
    )
    columns = {"network": "{network}", "library": "{library}", "graph": "{graph}", ">G MAC": "{gmacs:.2f}"}
    columns.update({">ms": "{ms:ms}", ">ratio": "{row:x2}", ">differs": "{differs:.0e}"})
    yield table(
        columns,
        [{**row, "network": network_name(network)} for network in made["networks"] for row in network["rows"]],
    )


def _rewrite_goals(made: Found) -> Iterator[Goal]:
    for network in made["networks"]:
        worst = max(row["differs"] for row in network["rows"])
        text = f"{network_name(network)}: rewritten graphs differ, of the range"
        yield Goal(text, "<= 1e-4", f"{worst:.0e}", worst <= 1e-4)


def _int8_goals(made: Found) -> Iterator[Goal]:
    for row in made.get("end_to_end", ()):
        text = f"INT8 in {row['runs_in']}, mIoU lost end to end, points"
        yield Goal(text, f"<= {row['goal']:g}", f"{row['lost']:.2f}", row["met"])


def _int8(made: Found) -> Iterator[str]:
    kind = made["data"].partition(":")[0]  # the rest is a path of the machine it was measured on
    columns = {"runs in": "{runs_in}", ">frames": "{pictures}", "of": "{size}", ">mIoU fp32": "{miou_fp32:.2f}"}
    columns.update({">mIoU INT8": "{miou_int8:.2f}", ">lost": "{lost:.2f}", ">same pixels": "{agreement:%2}"})
    text = (
        "`{kind}`, network at {size}, calibrated on {calibration_frames} frames of the train split, scored on the test"
        " split: frames through `Segmenter`, masks at the frames' own size, against the labels. {threads} thread(s)."
        " All precisions: [export.md](export.md)."
    )
    columns[">times as fast, frame to mask"] = "{row:x2}"
    return _rows(text, columns, "end_to_end")({**made, "kind": kind})


def _cameras(made: Found) -> Iterator[str]:
    if made.get("model"):
        yield f"{made['model']}; frames of 1280x720 in memory."
    rate = f" of {made['camera_fps']:g} frames a second, newest frame first" if made.get("camera_fps") else ""
    free = "A frame is there whenever one is wanted, from as many sources:"
    columns = {">cameras": "{cameras}", ">masks a second": "{total_fps:.1f}"}
    columns[">of one camera, least to most"] = "{least_fps:.1f} to {most_fps:.1f}"
    columns[">age of a mask, p95"] = "{age_p95_ms:.0f} ms"
    for name, title in {"cameras": f"As many cameras{rate}:", "free": free}.items():
        if made.get(name):
            yield title
            yield table(columns, made[name])
    if made.get("in_flight"):
        columns = {"provider": "{provider}", ">in flight": "{in_flight}", ">frames a second": "{fps:.1f}"}
        yield "Frames in flight, of a file; *ratio* to one at a time:"
        yield table({**columns, ">ratio": "{row:x2}"}, made["in_flight"])


def _camera_goals(made: Found) -> Iterator[Goal]:
    if made.get("fair") is not None:
        text = "cameras on one engine: masks of the one that got fewest, of the one that got most"
        yield Goal(text, f">= {made['goal']:g}", f"{made['fair']:.2f}", made["fair"] >= made["goal"])


_PREPROCESS = {"frame": "{frame}", "way": "{way}", ">threads": "{threads}", ">ms": "{ms:ms}", ">ratio": "{row:x2}"}
_UPSAMPLE = {"mask": "{size}", "way": "{way}", ">ms": "{ms:ms}", ">ratio": "{row:x1}", ">other pixels": "{differs:.1e}"}
_THREADS = {
    ">beside": "{busy}",
    "library": "{library}",
    "option": "{option}",
    ">ms": "{ms:ms}",
    ">processor time, ms": "{cpu_ms:ms}",
    ">ratio": "{row:x2}",
}
_FIRST_MASK = {
    "library": "{library}",
    "start": "{start}",
    ">Python, ms": "{python_ms:.0f}",
    ">import": "{import_ms:.0f}",
    ">open": "{open_ms:.0f}",
    ">first mask": "{mask_ms:.0f}",
    ">total": "**{total_ms:.0f}** ({low:.0f} to {high:.0f})",
    ">1 mask": "{peak_1_mb:.0f} MB",
    ">50 masks": "{peak_mb:.0f} MB",
}

# By the name of the JSON file, in the order of the page.
SECTIONS: Dict[str, Section] = {
    "peers": Section("From frame to mask, beside what a user would do otherwise", _peers, _peer_goals),
    "preprocess": Section(
        "Frame to network input",
        _rows("*Ratio*: to `cv2.resize` alone (goal: at most {goal:g}).", _PREPROCESS),
        _preprocess_goals,
    ),
    "upsample": Section(
        "Logits to mask",
        _rows(
            "Logits of {logits[0]} classes at {logits[2]}x{logits[1]}, one thread, {rounds} rounds. *Ratio*: times as"
            " fast as `cv2.resize` of each class and argmax (goal: {goal:g}).",
            _UPSAMPLE,
        ),
        _upsample_goals,
    ),
    "rewrites": Section("The network: fewer operations, the same answer", _rewrites, _rewrite_goals),
    "export_precision": Section(
        "INT8 end to end",
        _int8,
        _int8_goals,
        "python benchmarks/export_precision.py CHECKPOINT --data camvid:DATA/camvid --out DIR",
    ),
    "cpu_threads": Section(
        "Threads",
        _rows(
            "The same network in sessions that differ in one option, at {size}, {rounds} rounds; *beside*: so many"
            " endless loops of other processes. *Ratio*: times as fast as the library's own default.",
            _THREADS,
        ),
    ),
    "cameras": Section("Several cameras on one engine", _cameras, _camera_goals),
    "first_mask": Section(
        "A new process: time to the first mask, and memory",
        _rows(
            "From the start of the process to the first mask. *First*: nothing is kept from an earlier start, so numba"
            " compiles the code of the mask and `auto` measures which library is quickest. Memory: the most that was"
            " resident, Python and libraries included.",
            _FIRST_MASK,
        ),
    ),
}
SECTIONS = {name: section._replace(command=section.command.format(name=name)) for name, section in SECTIONS.items()}
