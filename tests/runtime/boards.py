"""A Jetson made of files and scripts: recorded output behind the names of JetPack's own tools."""

from __future__ import annotations

import stat
import textwrap
from pathlib import Path
from typing import List

RECORDED = Path(__file__).parent / "recorded"

_TEGRASTATS = """
#!/bin/sh
# tegrastats --interval MS: the recorded lines again and again.
trap 'echo stopped >>"{log}"; exit 0' TERM
echo "started $*" >>"{log}"
while :; do
  while IFS= read -r line; do
    echo "$line" || exit 0
    sleep 0.02
  done <"{lines}"
done
"""

_NVPMODEL = """
#!/bin/sh
# nvpmodel -q, -m N: the mode is a file; mode 1 wants a restart.
echo "$*" >>"{log}"
case "$1" in
  -q) cat "{state}" ;;
  -m)
    if [ "$2" = 1 ]; then
      read -r answer
      echo "answered $answer" >>"{log}"
      cat "{reboot}"
      exit 1
    fi
    name=$(sed -n "s/^< POWER_MODEL ID=$2 NAME=\\\\(.*\\\\) >/\\\\1/p" "{conf}")
    [ -n "$name" ] || {{ echo "NVPM ERROR: invalid power mode id: $2"; exit 1; }}
    printf 'NV Power Mode: %s\\n%s\\n' "$name" "$2" >"{state}"
    ;;
esac
"""

_JETSON_CLOCKS = """
#!/bin/sh
echo "jetson_clocks $*" >>"{log}"
case "$1" in --store) echo clocks >"$2" ;; esac
"""


class FakeJetson:
    """An AGX Xavier of JetPack 5.1.2 in a folder.

    Attributes:
        root: Where its ``/etc``, ``/proc`` and ``/sys`` are.
        bin: Holds ``tegrastats``, ``nvpmodel`` and ``jetson_clocks``; to be put first on PATH.
        log: What was asked of the tools, a line each.
    """

    def __init__(self, folder: Path, *, lines: str = "tegrastats-agx-xavier-jetpack5.txt", tools: bool = True) -> None:
        self.root = folder / "root"
        self.bin = folder / "bin"
        self._log = folder / "log.txt"
        self._state = folder / "mode.txt"
        self.bin.mkdir(parents=True)
        self._log.touch()
        self._state.write_text((RECORDED / "nvpmodel-agx-xavier-jetpack5.txt").read_text())
        self.write("etc/nv_tegra_release", (RECORDED / "nv_tegra_release-35.4.1.txt").read_text())
        self.write("etc/nvpmodel.conf", (RECORDED / "nvpmodel-agx-xavier.conf").read_text())
        self.write("proc/device-tree/model", "Jetson-AGX\0")
        self.write("sys/devices/system/cpu/online", "0-7\n")
        for name, hertz in (("min", 114750000), ("cur", 905250000), ("max", 905250000)):
            self.write(f"sys/class/devfreq/17000000.gv11b/{name}_freq", f"{hertz}\n")
        for name, kilohertz in (("min", 1190400), ("cur", 1190400), ("max", 1190400)):
            self.write(f"sys/devices/system/cpu/cpu0/cpufreq/scaling_{name}_freq", f"{kilohertz}\n")
        if tools:
            names = {
                "log": self._log,
                "state": self._state,
                "lines": RECORDED / lines,
                "reboot": RECORDED / "nvpmodel-reboot.txt",
                "conf": RECORDED / "nvpmodel-agx-xavier.conf",
            }
            for tool, text in (("tegrastats", _TEGRASTATS), ("nvpmodel", _NVPMODEL), ("jetson_clocks", _JETSON_CLOCKS)):
                path = self.bin / tool
                path.write_text(textwrap.dedent(text).lstrip().format(**names))
                path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def write(self, name: str, text: str) -> None:
        """A file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def log(self) -> List[str]:
        return self._log.read_text().splitlines()

    @property
    def mode(self) -> str:
        """What ``nvpmodel -q`` would print."""
        return self._state.read_text()
