"""Every benchmark of speed in turn, then docs/results/speed.md and its picture: what ``make bench`` begins with.

    python benchmarks/speed.py [--out runs/speed] [--checkpoint rtda=A.pth] [--checkpoint paper=B.pth] [--frames PATH]
        [--scored CKPT --data camvid:DATA/camvid] [--only peers,cameras]

Each prints JSON into ``--out``, where the page writer reads it; one that is not run leaves the figures of last time. A
missed goal does not stop the others: it is on the page, and the exit code is 1 at the end; 2 where a benchmark failed,
which is then not on the page. Nothing else should compute on the machine meanwhile; it takes about half an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

FOLDER = Path(__file__).resolve().parent


def commands(options: argparse.Namespace) -> Dict[str, List[str]]:
    """Words after the interpreter, by name; the JSON of each goes into ``NAME.json``."""
    found = {
        name: [f"{name}.py", "--json"]
        for name in ("upsample", "preprocess", "rewrites", "cpu_threads", "cameras", "first_mask")
    }
    trained = [word for text in options.checkpoint for word in ("--checkpoint", text)]
    found["peers"] = ["peers.py", "--json", *trained, *(["--frames", options.frames] if options.frames else [])]
    if options.scored:  # writes its JSON itself
        found["export_precision"] = ["export_precision.py", options.scored, "--data", options.data]
        found["export_precision"] += ["--out", options.out]
    return found


def main() -> int:
    """Run them, write the page, and say what failed or was missed."""
    options = _options()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    chosen = {name: words for name, words in commands(options).items() if name in (options.only or name)}
    ended: Dict[str, List[str]] = {"done": [], "a goal was missed": [], "FAILED": []}
    for number, (name, words) in enumerate(chosen.items(), 1):
        started = time.monotonic()
        print(f"{number}/{len(chosen)} {name}", file=sys.stderr, flush=True)
        word = _run(words, out / f"{name}.json")
        ended[word].append(name)
        print(f"    {word}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    words = [str(FOLDER / "speed_page.py"), str(out), "--out", str(options.page)]
    page = subprocess.run([sys.executable, *words], check=False)
    missed, failed = ended["a goal was missed"], ended["FAILED"]
    if missed:
        print(f"not all goals were met: {', '.join(missed)}", file=sys.stderr)
    if failed:
        print(f"failed, and not on the page: {', '.join(failed)}", file=sys.stderr)
    return 2 if failed or page.returncode not in (0, 1) else int(bool(missed))


def _run(words: List[str], result: Path) -> str:
    """How one ended; its JSON is in ``result`` unless it failed: figures of another time would pass for these."""
    if result.exists():
        result.unlink()
    command = [sys.executable, str(FOLDER / words[0]), *words[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.stdout.lstrip().startswith("{"):
        result.write_text(done.stdout, encoding="utf-8")
    if not result.exists():
        return "FAILED"
    return "a goal was missed" if done.returncode else "done"


def _options() -> argparse.Namespace:
    page = FOLDER.parent / "docs" / "results"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="runs/speed", help="where the JSON goes (default: runs/speed)")
    parser.add_argument("--page", type=Path, default=page, help="where the page goes (default: docs/results)")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="VARIANT=PATH", help="for peers.py")
    parser.add_argument("--frames", help="for peers.py: a video or a folder of pictures")
    parser.add_argument("--scored", help="a checkpoint to score in INT8 end to end")
    parser.add_argument("--data", default="camvid:data/camvid", help="labelled pictures to score it on")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names with a comma (default: all)")
    options = parser.parse_args()
    unknown = set(options.only or ()) - set(commands(options))
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: known are {', '.join(commands(options))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
