"""Power modes and clocks: set for the measurement, and put back as they were found, whatever happens between."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, List, Optional, Sequence, Type

from rtda_deploy.errors import ConfigError, DeviceError, RtdaError
from rtda_runtime.machine.jetson import Board, PowerMode, read_board, set_power_mode

_TIMEOUT_S = 30.0


def wanted_modes(text: Optional[str], board: Board) -> List[Optional[PowerMode]]:
    """The modes to measure in: the one found, ``all``, or numbers with commas between them.

    Raises:
        ConfigError: If modes are to be set without root, or one is unknown to the board.
    """
    if text is None:
        return [board.power_mode]
    if not board.is_jetson:
        raise ConfigError("--power-modes is for a Jetson; this is none", hint="leave it out")
    if os.geteuid() != 0:
        raise ConfigError("--power-modes sets them, which needs root", hint="sudo -E env PATH=$PATH python3 ...")
    if text == "all":
        return list(board.power_modes)
    known = {mode.number: mode for mode in board.power_modes}
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if not word.isdigit() or int(word) not in known]
    if unknown or not words:
        names = ", ".join(f"{mode.number} {mode.name}" for mode in board.power_modes)
        raise ConfigError(f"unknown power mode {', '.join(unknown) or '(nothing)'}", hint=f"this board has: {names}")
    return [known[int(word)] for word in words]


class PowerControl:
    """Sets modes and clocks and restores both when it is left; a Ctrl-C waits until they are.

    Args:
        board: As found.
        root: Where ``/sys`` begins.
        clocks_file: Where ``jetson_clocks`` keeps the clocks it found.
        lock: Lock all clocks at their mode's highest with ``jetson_clocks``, which needs root.
        say: Told of every change.
    """

    def __init__(self, board: Board, root: Path, clocks_file: Path, *, lock: bool, say: Callable[[str], None]) -> None:
        if lock and os.geteuid() != 0:
            raise ConfigError("--lock-clocks needs root", hint="sudo -E env PATH=$PATH python3 ...")
        if lock and not board.is_jetson:
            raise ConfigError("--lock-clocks is for a Jetson; this is none", hint="leave it out")
        self._found = board
        self._root = root
        self._clocks_file = clocks_file
        self._lock = lock
        self._say = say
        self._changed_mode = False
        self._stored_clocks = False

    def use(self, mode: Optional[PowerMode]) -> Board:
        """Switch to a mode, where it is not in force already, and lock the clocks if that was asked for.

        Raises:
            DeviceError: If the mode or the clocks cannot be set.
        """
        now = read_board(self._root)
        if self._lock and not self._stored_clocks:
            self._store_clocks()
        if mode is not None and mode.number is not None and mode != now.power_mode:
            self._changed_mode = True
            set_power_mode(mode.number)
            self._say(f"mode    {mode.name} ({mode.number}) set")
        if self._lock:
            _run(["jetson_clocks"])
            self._say("clocks  locked at the mode's highest")
        return read_board(self._root)

    def __enter__(self) -> PowerControl:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        with _no_interrupts():
            found = self._found.power_mode
            if self._changed_mode and found is not None and found.number is not None:
                self._restore(f"mode    {found.name} ({found.number})", lambda: set_power_mode(found.number or 0))
            if self._stored_clocks:
                self._restore("clocks  as found", lambda: _run(["jetson_clocks", "--restore", str(self._clocks_file)]))

    def _store_clocks(self) -> None:
        if self._clocks_file.exists():
            self._clocks_file.unlink()  # jetson_clocks refuses to write over a file
        _run(["jetson_clocks", "--store", str(self._clocks_file)])
        self._stored_clocks = True

    def _restore(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except RtdaError as err:
            self._say(f"! not restored: {what}: {err.message}; {err.hint}")
        else:
            self._say(f"{what} restored")


class _no_interrupts:
    """Ctrl-C and SIGTERM are passed over while it lasts; in the main thread only, where they arrive."""

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
        self._before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_S,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        hint = "it is part of JetPack; leave --lock-clocks out"
        raise DeviceError(f"{command[0]} does not run: {err}", hint=hint) from err
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["it gave no reason"])[-1]
        raise DeviceError(f"{' '.join(command)} failed", why=last, hint="it needs root; or leave --lock-clocks out")
