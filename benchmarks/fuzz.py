"""Broken files and addresses of every kind, by the thousand: each must be read, or be one error with its fix.

    python benchmarks/fuzz.py [--mutations 20000] [--seed 0] [--kinds checkpoint,onnx] [--workers 2] [--json]

A violation is any other exception, an error without a fix or of several lines, code of a file that ran, a process that
died (a crash signal of a library), one that computed for a minute, or one that took more memory than it may. Each is
printed with the number of its case: ``--kinds KIND --only N`` runs that one alone, and ``--keep DIR`` keeps its file.

The cases of a kind run in one process after the other; only one that died is followed by a new one. Each has
6 GB of memory. Nothing is asked of the network.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence

from fuzz_kinds import KINDS, MARKER, Kind

from rtda_deploy.errors import RtdaError

_MEMORY_BYTES = 6 << 30  # beyond what the libraries have taken when they are loaded
_LONGEST_S = 60.0  # of processor time for one case, so that a machine with other work finds nothing more
_DIES = "RTDA_FUZZ_DIES"  # a case at which the process kills itself, to see that this is seen


class Violation(NamedTuple):
    """A case that was not as it must be."""

    kind: str
    case: int
    what: str


def fuzz(mutations: int, seed: int, kinds: Sequence[str], workers: int) -> List[Violation]:
    """Run ``mutations`` cases, shared out among ``kinds`` by their weights; what was wrong."""
    total = sum(KINDS[name].weight for name in kinds)
    found: List[Violation] = []
    jobs: queue.Queue[str] = queue.Queue()
    for name in sorted(kinds, key=lambda name: -KINDS[name].weight):
        jobs.put(name)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                name = jobs.get_nowait()
                found.extend(_kind(name, seed, max(1, round(mutations * KINDS[name].weight / total))))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


def _kind(name: str, seed: int, count: int) -> List[Violation]:
    """All cases of a kind, in as many processes as it takes."""
    found: List[Violation] = []
    case = 0
    while case < count:
        case = _process(name, seed, case, count, found)
    return found


def _process(name: str, seed: int, first: int, count: int, found: List[Violation]) -> int:
    """Cases from ``first`` on until the process ends; the next case to run."""
    words = [sys.executable, __file__, "--worker", name, *f"--seed {seed} --first {first} --until {count}".split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryFile() as said, subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        case = first - 1
        for line in process.stdout:
            event = json.loads(line)
            case = event["case"]
            if "what" in event:
                found.append(Violation(name, case, event["what"]))
        code = process.wait()
        if code == 0 and case == count - 1:
            return count
        said.seek(0)
        last = said.read()[-300:].decode("utf-8", "replace").strip()
        how = f"died of signal {-code}" if code < 0 else f"ended: {code}"
        how = "computed for a minute" if code == -signal.SIGPROF else how
        found.append(Violation(name, max(case, first), f"the process {how}: {last}"))
        return max(case, first) + 1


def _work(name: str, seed: int, first: int, until: int, keep: Optional[Path]) -> None:
    """A process's part: cases ``first`` to ``until``; one line before each, one more where it was wrong."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="rtda-fuzz-") as folder:
        os.chdir(folder)
        good = Path(folder, "good")
        good.mkdir()
        seeds = kind.good(good)
        limited = False
        for case in range(first, until):
            print(json.dumps({"case": case}), flush=True)
            signal.setitimer(signal.ITIMER_PROF, _LONGEST_S)
            if os.environ.get(_DIES) == str(case):
                os.kill(os.getpid(), signal.SIGSEGV)
            what = _case(kind, seeds, random.Random(f"{seed}/{name}/{case}"), Path(folder), keep)
            if what:
                print(json.dumps({"case": case, "what": what}), flush=True)
            if not limited:  # once the libraries are loaded
                limited = True
                _limit_memory()


def _case(kind: Kind, seeds: Sequence[bytes], rng: random.Random, folder: Path, keep: Optional[Path]) -> str:
    """What was wrong with one case; empty: nothing."""
    content = kind.mutate(rng, rng.choice(seeds), seeds)
    given: Any = content.decode("utf-8", "surrogatepass") if not kind.name else folder / "case" / kind.name
    if kind.name:
        given.parent.mkdir(exist_ok=True)
        given.write_bytes(content)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / (kind.name or "typed.txt")).write_bytes(content)
    what = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(given)
    except RtdaError as err:
        if not err.hint:
            what = f"no fix: {type(err).__name__}: {err.message[:200]}"
        elif "\n" in err.message:
            what = f"several lines: {err.message[:200]}"
    except BaseException as err:
        what = f"{type(err).__name__}: {str(err)[:200]} at {_place(err)}"
    if (folder / MARKER).exists():
        (folder / MARKER).unlink()
        what = "code in the file ran"
    return what


def _place(err: BaseException) -> str:
    """The last line of ours that an exception went through."""
    place, trace = "", err.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "rtda_" in name:
            place = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as stream:
        taken = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY_BYTES, resource.RLIM_INFINITY))


def main() -> int:
    """The command line; 0: nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="one case of one kind, in this process")
    parser.add_argument("--keep", type=Path, help="folder for the file of --only")
    parser.add_argument("--json", action="store_true")
    for name, kind in (("--worker", str), ("--first", int), ("--until", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep = None if given.keep is None else given.keep.absolute()
    if given.worker:
        _work(given.worker, given.seed, given.first, given.until, None)
        return 0
    kinds = given.kinds.split(",")
    if given.only is not None:
        _work(kinds[0], given.seed, given.only, given.only + 1, keep)
        return 0
    found = fuzz(given.mutations, given.seed, kinds, given.workers)
    if given.json:
        print(json.dumps([violation._asdict() for violation in found]))
    else:
        for violation in found:
            print(f"{violation.kind} {violation.case}: {violation.what}")
        print(f"{given.mutations} mutations of {len(kinds)} kinds, seed {given.seed}: {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
