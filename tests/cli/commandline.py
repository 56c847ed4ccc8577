"""The command line as a user meets it: in a process of its own, or in this one where starting torch would cost more."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union
from unittest import mock

ANSI = re.compile(r"\x1b[\[\]()]")
VERBS = (
    *("demo", "train", "adapt", "eval", "rank", "label", "export", "verify", "bench", "tradeoff"),
    *("run", "inspect", "estimate", "cameras", "doctor"),
)
COMMAND = shutil.which("rtda-deploy", path=str(Path(sys.executable).parent))


class Outcome(NamedTuple):
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as the one JSON object that ``--json`` promises."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))

    @property
    def said(self) -> Dict[str, str]:
        """What stands after ``error``, ``why`` and ``fix``."""
        pairs = (line.split(None, 1) for line in self.err.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0] in ("error", "why", "fix")}


def arguments() -> List[str]:
    """How the command starts; the script that pip made, as a user types it."""
    return [COMMAND] if COMMAND else [sys.executable, "-m", "rtda_deploy"]


def environment(**changes: str) -> Dict[str, str]:
    """This process's environment without what would change the looks; one thread, so that two tests do not fight."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM")
    }
    return {**kept, "OMP_NUM_THREADS": "1", **changes}


def run_command(
    *words: Union[str, Path],
    cwd: Optional[Path] = None,
    env: Optional[Mapping[str, str]] = None,
) -> Outcome:
    """In a process of its own, with pipes."""
    done = subprocess.run(
        [*arguments(), *map(str, words)],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    encoding = (env or {}).get("PYTHONIOENCODING", "utf-8").partition(":")[0]  # "ascii:replace"
    return Outcome(done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding))


def invoke(*words: Union[str, Path]) -> Outcome:
    """In this process and this folder; what main() does, exit code included."""
    from rtda_deploy.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(
        sys, "argv", ["rtda-deploy", *map(str, words)]
    ):
        try:
            main()
        except SystemExit as leave:
            code = leave.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())


def assert_refused(outcome: Outcome, code: int, error: str, fix: Optional[str] = "") -> None:
    """One error in the form that every error has; ``error`` may be found in its first line or in ``why``.

    ``fix`` is None where the error itself says what is right.
    """
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err + outcome.out
    assert outcome.out == "", "results only on stdout"
    assert len(re.findall(r"^error  ", outcome.err, re.MULTILINE)) == 1, outcome.err
    said = outcome.said
    assert re.search(error, said["error"] + " " + said.get("why", "")), outcome.err
    if fix is not None:
        assert said.get("fix"), f"no fix: {outcome.err}"
        assert re.search(fix, said["fix"]), outcome.err
    assert list(said) == [word for word in ("error", "why", "fix") if word in said], "in this order"
    assert not ANSI.search(outcome.err)


def files_below(folder: Path) -> List[str]:
    """Every file, hidden ones included, as a path below ``folder``."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
