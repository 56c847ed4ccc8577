"""Writes docs/results/speed.md and its picture from what the benchmarks of speed printed as JSON.

    python benchmarks/speed_page.py DIR [--out docs/results]

DIR holds any of ``peers.json``, ``preprocess.json``, ``upsample.json``, ``rewrites.json``, ``cpu_threads.json``,
``cameras.json``, ``growth.json`` (each the output of the script of that name with ``--json``) and
``export_precision.json``. What is not there leaves a line behind that says which command makes it. Nothing is measured
here, and the same files give the same page. Its sections are in ``speed_sections.py``, the picture in
``speed_picture.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Optional, Sequence

from speed_sections import SECTIONS, network_name, table

from rtda_deploy.errors import FileAccessError
from rtda_deploy.files import readable_file, writable_folder, write_text

Found = Dict[str, Any]

PICTURE = "speed.svg"
COMMANDS = {
    "peers": "python benchmarks/peers.py --json > DIR/peers.json",
    "preprocess": "python benchmarks/preprocess.py --json > DIR/preprocess.json",
    "upsample": "python benchmarks/upsample.py --json > DIR/upsample.json",
    "rewrites": "python benchmarks/rewrites.py --json > DIR/rewrites.json",
    "cpu_threads": "python benchmarks/cpu_threads.py --json > DIR/cpu_threads.json",
    "cameras": "python benchmarks/cameras.py --json > DIR/cameras.json",
    "growth": "python benchmarks/growth.py --json > DIR/growth.json",
    "export_precision": "python benchmarks/export_precision.py CHECKPOINT --data camvid:DATA/camvid --out DIR",
}


class Goal(NamedTuple):
    """Something that was asked for, and what was reached."""

    text: str
    wanted: str
    value: str
    met: bool


def load(folder: Path) -> Found:
    """The JSON objects of a folder by the names of :data:`COMMANDS`, those that are there.

    Raises:
        SystemExit: If none is there, or one cannot be read.
    """
    found: Found = {}
    for name in COMMANDS:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        try:
            found[name] = json.loads(readable_file(path).read_text(encoding="utf-8"))
        except (FileAccessError, ValueError) as err:  # empty where its script failed
            raise SystemExit(f"{path} cannot be read ({err}); make it again: {COMMANDS[name]}") from err
    if not found:
        raise SystemExit(f"{folder} holds none of {', '.join(f'{name}.json' for name in COMMANDS)}")
    return found


def page(found: Found, *, picture: bool = True) -> str:
    """The Markdown page.

    Args:
        found: As :func:`load` gives it; only what is there is shown.
        picture: Whether :data:`PICTURE` stands beside it.
    """
    lines = [*_head(found)]
    if picture:
        lines += [f"![The whole way from frame to mask, and how cost grows]({PICTURE})", ""]
    goals = list(all_goals(found))
    if goals:
        lines += [*_goal_lines(goals)]
    for name, section in SECTIONS.items():
        lines += [f"## {section.title}", ""]
        if name in found:
            lines += [f"    {COMMANDS[name]}", "", *section.lines(found[name]), *_circumstances(found, name)]
        else:
            lines += [f"Not measured. The command is `{COMMANDS[name]}`.", ""]
    return "\n".join(lines).rstrip() + "\n"


def all_goals(found: Found) -> Iterator[Goal]:
    """The goals of everything that was measured."""
    for network in found.get("peers", {}).get("networks", ()):
        for goal in network["goals"]:
            yield Goal(f"{network_name(network)}: {goal['goal']}", goal["wanted"], f"{goal['value']:.4g}", goal["met"])
    if "preprocess" in found:
        made = found["preprocess"]
        worst = max(row["ratio"] for row in made["rows"] if row["way"] == "ours")
        text = "frame to network input, against `cv2.resize` alone"
        yield Goal(text, f"<= {made['goal']:g}x", f"{worst:.2f}x", made["met"])
    if "upsample" in found:
        made = found["upsample"]
        for row in made["rows"]:
            if row["way"] == "ours":
                text = f"mask of {row['size']}, against `cv2.resize` per class and argmax"
                yield Goal(text, f">= {made['goal']:g}x", f"{row['ratio']:.1f}x", row["ratio"] >= made["goal"])
    for network in found.get("rewrites", {}).get("networks", ()):
        worst = max(row["differs"] for row in network["rows"])
        yield Goal(
            f"{network_name(network)}: rewritten graphs differ, of the range", "<= 1e-4", f"{worst:.0e}", network["met"]
        )
    if "fair" in found.get("cameras", {}):
        made = found["cameras"]
        text = "cameras on one engine: masks of the one that got fewest, of the one that got most"
        yield Goal(text, f">= {made['goal']:g}", f"{made['fair']:.2f}", made["met"])
    for row in found.get("export_precision", {}).get("end_to_end", ()):
        text = f"INT8 in {row['runs_in']}, mIoU lost end to end, points"
        yield Goal(text, f"<= {row['goal']:g}", f"{row['lost']:.2f}", row["met"])


def _head(found: Found) -> Iterator[str]:
    yield "# Speed, measured"
    yield ""
    yield "    make bench"
    yield "    python benchmarks/speed_page.py DIR"
    yield ""
    machine = _machine(found)
    if machine is not None:
        yield f"Machine: {_machine_text(machine)}."
    if any(made.get("quick") for made in found.values()):
        yield "**Short forms (`--quick`): these figures say that the scripts work, and nothing of the speed.**"
    yield (
        "Every comparison is of ways run in turns in one process: a ratio is that of two times of the same round, its"
        " spread the middle half of the rounds. Milliseconds are medians and move with whatever else the machine does;"
        " ratios do not. GPUs: [gpu.md](gpu.md)."
    )
    yield ""


def _goal_lines(goals: Sequence[Goal]) -> Iterator[str]:
    yield f"**{sum(goal.met for goal in goals)} of {len(goals)} goals met.**"
    yield ""
    verdicts = [(goal.text, goal.wanted, goal.value, "met" if goal.met else "**MISSED**") for goal in goals]
    yield from table(("goal", "wanted", "reached", ""), verdicts, "lrrl")


def _circumstances(found: Found, name: str) -> Iterator[str]:
    """Where a file was measured, if not on the page's machine, and what else the machine did."""
    made = found[name]
    words = []
    machines = [
        machine and (machine["cpu"], machine["cores"]) for machine in (made.get("environment"), _machine(found))
    ]
    if made.get("environment") and machines[0] != machines[1]:
        words.append(f"Measured on {_machine_text(made['environment'])}.")
    others = (made.get("conditions") or {}).get("other_cores")
    if others is not None:
        words.append(f"Other programs took {others:g} cores meanwhile.")
    if words:
        yield " ".join(words)
        yield ""


def _machine(found: Found) -> Optional[Found]:
    """The environment of the first file that has one."""
    return next((made["environment"] for made in found.values() if made.get("environment")), None)


def _machine_text(machine: Found) -> str:
    known = (("python", "Python"), ("numpy", "NumPy"), ("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO"))
    versions = [
        f"{title} {str(machine[key]).partition('-')[0]}"
        for key, title in (*known, ("opencv", "OpenCV"))
        if machine.get(key)
    ]
    place = [text for text in (machine.get("os"), *versions) if text]
    return ", ".join([f"{machine['cores']} cores of {machine['cpu']}", *place])


def main() -> int:
    """Read, write the page and the picture, say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="default: docs/results")
    options = parser.parse_args()
    found = load(options.folder)
    folder = writable_folder(options.out)
    from speed_picture import save_picture  # matplotlib is needed from here on only

    drawn = save_picture(found, folder / PICTURE)
    write_text(folder / "speed.md", page(found, picture=drawn))
    missed = [goal.text for goal in all_goals(found) if not goal.met]
    print(f"wrote {folder / 'speed.md'}{f' and {PICTURE}' if drawn else ''}")
    for text in missed:
        print(f"MISSED {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
