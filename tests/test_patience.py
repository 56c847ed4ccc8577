"""No test has a limit of its own that a busy machine could miss."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
_OWN_LIMIT = re.compile(
    r"\btimeout=\d|\.(?:wait|join|communicate)\(\d{2}"
    r"|assert (?:time\.)?(?:monotonic|perf_counter)\(\) - \w+ <"
)


def test_every_wait_is_the_one_of_patience() -> None:
    runs_elsewhere = TESTS / "jetson" / "run.py"
    found = [
        f"{path.relative_to(TESTS)}:{number}: {line.strip()}"
        for path in sorted(TESTS.rglob("*.py"))
        if path not in (runs_elsewhere, Path(__file__))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if _OWN_LIMIT.search(line)
    ]
    assert found == [], "take PATIENCE_S of tests/patience.py, or wait for the event itself"
