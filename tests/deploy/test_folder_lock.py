"""One process at a time writes into a folder, and a killed one locks nobody out."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rtda_deploy.errors import FileAccessError
from rtda_deploy.run_folders import FolderBusyError, folder_lock, is_locked

HOLDER = """
import sys, time
from rtda_deploy.run_folders import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_process_is_told_which_one_is_first_and_a_kill_frees_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        assert is_locked(folder)
        with pytest.raises(FolderBusyError, match="another process writes") as caught, folder_lock(folder):
            pass
        assert f"process {other.pid}: -c {folder}" == caught.value.why
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (folder / ".lock").exists() and not is_locked(folder)
    with folder_lock(folder):
        assert is_locked(folder)
    assert list(folder.iterdir()) == [], "the file goes with the lock"


def test_other_work_in_the_same_folder_has_a_lock_of_its_own(tmp_path: Path) -> None:
    with folder_lock(tmp_path), folder_lock(tmp_path, name=".last.export.lock"):
        assert is_locked(tmp_path) and is_locked(tmp_path, name=".last.export.lock")


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(FileAccessError, match="taken"), folder_lock(tmp_path / "taken"):
        pass
