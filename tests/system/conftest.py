"""Mounts, and processes that are watched, stopped and killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Union

import pytest
from cli.commandline import Outcome, arguments, environment
from patience import PATIENCE_S

_SLACK_B = 8 << 10  # what a nearly full disk still takes: a folder entry, a few small files


class Process:
    """A command in the background; its output goes to files, so that no pipe fills up."""

    def __init__(self, words: List[Union[str, Path]], folder: Path) -> None:
        self._out, self._err = folder / ".stdout", folder / ".stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*arguments(), *map(str, words)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(PYTHONUNBUFFERED="1"),
                start_new_session=True,
            )

    @property
    def err(self) -> str:
        """What it wrote to stderr so far."""
        return self._err.read_text(errors="replace")

    def wait_until(self, happened: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Look every 5 ms; a process that ends before is a failure."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert self._process.poll() is None, f"ended before {what}:\n{self.err}"
            assert time.monotonic() < deadline, f"no {what} within {timeout_s} s:\n{self.err}"
            time.sleep(0.005)

    def send(self, number: int) -> None:
        """A signal to the process alone, as ``kill`` sends it."""
        self._process.send_signal(number)

    def end(self, timeout_s: float = PATIENCE_S) -> Outcome:
        """Wait for its end."""
        code = self._process.wait(timeout_s)
        return Outcome(code, self._out.read_text(errors="replace"), self.err)

    def stop(self) -> None:
        """Make sure that it and what it started is gone."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture()
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a command in ``tmp_path``; it is gone after the test."""
    started: List[Process] = []

    def start_one(*words: Union[str, Path]) -> Process:
        started.append(Process(list(words), tmp_path))
        return started[-1]

    yield start_one
    for process in started:
        process.stop()


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, empty."""
    yield from _mounted(tmp_path / "disk", "size=1m")


@pytest.fixture()
def full_disk(small_disk: Path) -> Path:
    """The same with 8 KiB left."""
    state = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"\0" * (state.f_bavail * state.f_frsize - _SLACK_B))
    return small_disk


@pytest.fixture()
def closed_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that is mounted for reading only."""
    yield from _mounted(tmp_path / "disk", "size=1m,ro")


def _mounted(folder: Path, options: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if shutil.which("mount") is None:
        pytest.skip("no mount command here")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine does not allow mounts: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def tiny_training(data: Path, out: Union[str, Path], *more: str, recipe: str = "source-only") -> List[str]:
    """``train`` on tiny pictures, saving after each step."""
    settings = ("size=64x64", "batch_size=2", "save_every=1", "device=cpu", *more)
    words = [
        "train",
        recipe,
        *(word for kind in ("source", "target", "val") for word in (f"--{kind}", f"folder:{data}")),
    ]
    return [*words, "--out", str(out), *(word for text in settings for word in ("--set", text))]


def python38() -> Optional[Path]:
    """A Python 3.8 that really runs."""
    candidates = [*sorted(Path.home().glob(".pyenv/versions/3.8*/bin/python")), *_on_path("python3.8")]
    for candidate in candidates:
        code = "import sys, venv, ensurepip; print(sys.version_info[:2] == (3, 8))"
        try:
            done = subprocess.run([str(candidate), "-c", code], capture_output=True, text=True)
        except OSError:
            continue
        if done.stdout == "True\n":
            return candidate
    return None


def _on_path(name: str) -> List[Path]:
    found = shutil.which(name)
    return [Path(found)] if found else []
