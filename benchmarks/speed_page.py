"""Writes docs/results/speed.md and its picture from what the benchmarks of speed printed as JSON.

    python benchmarks/speed_page.py DIR [--out docs/results]

DIR holds any of ``peers.json``, ``preprocess.json``, ``upsample.json``, ``rewrites.json``, ``cpu_threads.json``,
``cameras.json`` (each the output of the script of that name with ``--json``) and ``export_precision.json``. What is not
there leaves a line that says which command makes it. Nothing is measured here, and the same files give the same page.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

from speed_picture import save_picture
from speed_sections import SECTIONS, Goal, goal_table, machine_text

from rtda_deploy.errors import FileAccessError
from rtda_deploy.files import readable_file, writable_folder, write_text

Found = Dict[str, Any]


def load(folder: Path) -> Found:
    """The JSON objects of a folder by the names of :data:`SECTIONS`, those that are there.

    Raises:
        SystemExit: If none is there, or one cannot be read.
    """
    found: Found = {}
    for name, section in SECTIONS.items():
        path = folder / f"{name}.json"
        if path.exists():
            try:
                found[name] = json.loads(readable_file(path).read_text(encoding="utf-8"))
            except (FileAccessError, ValueError) as err:  # empty where its script failed
                raise SystemExit(f"{path} cannot be read ({err}); make it again: {section.command}") from err
    if not found:
        raise SystemExit(f"{folder} holds none of {', '.join(f'{name}.json' for name in SECTIONS)}")
    return found


def goals(found: Found) -> List[Goal]:
    """The goals of everything that was measured."""
    return [goal for name, section in SECTIONS.items() if name in found for goal in section.goals(found[name])]


def page(found: Found, *, picture: bool = True) -> str:
    """The Markdown page of what there is; ``picture``: whether ``speed.svg`` stands beside it."""
    asked = goals(found)
    parts = ["# Speed, measured", "    make bench\n    python benchmarks/speed_page.py DIR", "\n".join(_head(found))]
    parts += ["![The whole way from frame to mask](speed.svg)"] if picture else []
    if asked:
        parts += [f"**{sum(goal.met for goal in asked)} of {len(asked)} goals met.**", goal_table(asked)]
    for name, section in SECTIONS.items():
        parts.append(f"## {section.title}")
        if name in found:
            parts += [f"    {section.command}", *section.paragraphs(found[name]), *_circumstances(found, name)]
        else:
            parts.append(f"Not measured. The command is `{section.command}`.")
    return "\n\n".join(parts) + "\n"


def _head(found: Found) -> Iterator[str]:
    machine = _machine(found)
    if machine:
        yield f"Machine: {machine_text(machine)}."
    if any(made.get("quick") for made in found.values()):
        yield "**Short forms (`--quick`): these figures say that the scripts work, and nothing of the speed.**"
    yield (
        "Every comparison is of ways run in turns in one process: a ratio is that of two times of the same round, its"
        " spread the middle half of the rounds. Milliseconds are medians and move with whatever else the machine does;"
        " ratios do not. GPUs: [gpu.md](gpu.md)."
    )


def _circumstances(found: Found, name: str) -> Iterator[str]:
    """Where a file was measured, if not on the page's machine, and what else the machine did."""
    own, first = found[name].get("environment"), _machine(found)
    others = (found[name].get("conditions") or {}).get("other_cores")
    words = []
    if own and (own["cpu"], own["cores"]) != (first["cpu"], first["cores"]):
        words.append(f"Measured on {machine_text(own)}.")
    if others is not None:
        words.append(f"Other programs took {others:g} cores meanwhile.")
    if words:
        yield " ".join(words)


def _machine(found: Found) -> Found:
    """The environment of the first file that has one; else nothing."""
    return next((made["environment"] for made in found.values() if made.get("environment")), {})


def main() -> int:
    """Read, write the page and the picture, say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="default: docs/results")
    options = parser.parse_args()
    found = load(options.folder)
    folder = writable_folder(options.out)
    drawn = save_picture(found, folder / "speed.svg")
    write_text(folder / "speed.md", page(found, picture=drawn))
    print(f"wrote {folder / 'speed.md'}{' and speed.svg' if drawn else ''}")
    for goal in goals(found):
        if not goal.met:
            print(f"MISSED {goal.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
