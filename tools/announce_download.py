"""Say before set-up what it is about to download; torch's usual Linux build brings gigabytes of CUDA libraries along.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys


def has_cpu_build() -> bool:
    """Whether a local folder that pip looks into (PIP_FIND_LINKS) holds a CPU build of torch for this Python."""
    tag = "cp%d%d" % sys.version_info[:2]
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        folder = folder.replace("file://", "")
        if os.path.isdir(folder) and any(
            name.startswith("torch-") and "cpu" in name and tag in name for name in os.listdir(folder)
        ):
            return True
    return False


def main() -> None:
    free = shutil.disk_usage(".").free / 1e9
    if has_cpu_build():
        text, needed = "about 0.5 GB (torch as a CPU build)", 3
    elif platform.machine() == "x86_64":
        text, needed = "about 3 GB: torch's usual Linux build brings NVIDIA's CUDA libraries along", 10
    else:
        text, needed = "about 0.5 GB", 3
    sys.stderr.write("setup  downloads %s; needs %d GB of disk, %.0f GB are free\n" % (text, needed, free))
    if needed > 3:
        sys.stderr.write(
            "       without a GPU, let pip find the CPU build instead: PIP_EXTRA_INDEX_URL=<the CPU index that"
            " pytorch's own install page names> make setup\n"
        )
    if free < needed:
        sys.exit("error  not enough disk space here\nfix    free some, or clone onto another disk")


main()
