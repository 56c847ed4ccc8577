"""Files of one JSON object a line: whole lines after kills and on full disks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rtda_deploy.errors import FileAccessError
from rtda_deploy.json_lines import append_line, json_line


def test_a_line_after_half_a_line_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_line(path, {"n": 1, "say": "ünï"})
    with open(path, "a", encoding="utf-8") as stream:
        stream.write('{"n": 2, "sa')  # of a process that was killed
    append_line(path, {"n": 3})
    append_line(path, {"n": 4})
    assert path.read_text(encoding="utf-8").splitlines() == [
        '{"n": 1, "say": "ünï"}',
        '{"n": 2, "sa',
        '{"n": 3}',
        '{"n": 4}',
    ]


def test_what_is_no_text_is_spelled_out_and_a_line_break_makes_no_line() -> None:
    line = json_line({"name": "bad\udcff", "say": "a\nb\u2028c"})
    assert line.count("\n") == 1 and json.loads(line) == {"name": "bad\udcff", "say": "a\nb\u2028c"}
    line.encode("utf-8")


def test_a_file_that_may_not_grow_keeps_its_whole_lines(tmp_path: Path) -> None:
    """The limit of a file's size stands for the full disk."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from rtda_deploy.errors import FileAccessError\n"
        "from rtda_deploy.json_lines import append_line\n"
        "path = Path(sys.argv[1])\n"
        "append_line(path, {'n': 1})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))\n"
        "try:\n"
        "    append_line(path, {'say': 'x' * 100})\n"
        "except FileAccessError as err:\n"
        "    print(err.message)\n"
        "append_line(path, {'n': 2})\n"
    )
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and "cannot write" in done.stdout, done.stderr
    assert path.read_text(encoding="utf-8") == '{"n": 1}\n{"n": 2}\n'


def test_a_folder_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"a\.jsonl"):
        append_line(tmp_path / "nowhere" / "a.jsonl", {})
