"""Bulk labels through the worst: workers and drivers killed, a poison unit; every mask as a plain loop makes it.

    python benchmarks/fleet.py [--videos 100] [--frames 200] [--size 160x96] [--kills 10] [--drivers 2] [--workers 2]

Small videos are made, 20,000 frames unless said, and labelled four times into tar shards:

- ``plain``: a loop over ``open_footage`` and ``Segmenter``, which packs PNGs into a tar for each video and knows of no
  units, attempts or records; what the overhead is measured against.
- ``local``: ``rtda-deploy label --on local``.
- ``ray``: ``--on ray`` with one worker, undisturbed. All three run on one thread; frames a second are counted from the
  time of the first shard to that of the last, so that start-up (engine, actors) is in none.
- ``killed``: ``--on ray`` on a cluster of its own. A worker is killed with SIGKILL so many times, the driver too and
  started again, and one video kills every worker that begins with it. The object store is looked at all the while.
  Last, the poison is taken away, and ``--retry`` labels what was given up.

Goals: every shard of ``killed`` equals that of ``local``; a unit in ``failed/`` and no other; the object store below
50 MB; ``local`` and ``ray`` at most 10 % slower than ``plain``. Needs the extra ``fleet``; without --model, torch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np
from rounds import recorded
from small_network import write_network
from tables import table

from rtda_deploy.optional import require
from rtda_deploy.sizes import parse_size
from rtda_runtime import Segmenter
from rtda_runtime.sources.footage import open_footage

STORE_GOAL_MB, OVERHEAD_GOAL = 50.0, 0.10
_POISON = "0000.mp4"
_SETTLE_S = 0.2  # between two looks at the object store

# Found by every Python that starts with its folder on the path: the poison, which no decoder is known to have.
_SITE = """
import os, sys
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "rtda_runtime.fleet.worker":
            sys.meta_path.remove(self)
            from rtda_runtime.fleet.frames import FrameReader
            whole = FrameReader.frames
            def frames(self, unit):
                if unit.path.endswith(os.environ["RTDA_POISON"]) and not os.path.exists(os.environ["RTDA_CURE"]):
                    os.kill(os.getpid(), 9)
                return whole(self, unit)
            FrameReader.frames = frames
if os.environ.get("RTDA_POISON"):
    sys.meta_path.insert(0, Hook())
"""


def main() -> int:
    """Measure, print, and fail if a goal was missed."""
    options = _options()
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1")
    require("ray", extra="fleet", purpose="to label on a cluster")
    with tempfile.TemporaryDirectory(prefix="rtda-fleet-", dir=options.folder) as name, recorded() as machine:
        folder = Path(name)
        model = options.model or write_network(folder / "bisenet-r18.onnx", (128, 64))
        drives = make_videos(folder / "drives", options.videos, options.frames, parse_size(options.size))
        found = measure(folder, Path(model).absolute(), drives, options)
    found.update(machine)
    print(json.dumps(found) if options.json else _table(found))
    return int(not found["met"])


def make_videos(folder: Path, count: int, frames: int, size_wh: Tuple[int, int]) -> Path:
    """Videos of moving blocks of 16x16, a different one each."""
    av: Any = require("av", extra="runtime", purpose="to write films")
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 255, (-(-size_wh[1] // 16), -(-size_wh[0] // 16), 3), np.uint8)
        picture = np.kron(blocks, np.ones((16, 16, 1), np.uint8))[: size_wh[1], : size_wh[0]]
        with av.open(str(folder / f"{number:04d}.mp4"), "w") as film:
            stream = film.add_stream("mpeg4", rate=25, options={"g": "25"})
            stream.width, stream.height = size_wh
            for place in range(frames):
                moved = np.ascontiguousarray(np.roll(picture, 2 * place, axis=1))
                film.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="bgr24")))
            film.mux(stream.encode())
    return folder


def measure(folder: Path, model: Path, drives: Path, options: argparse.Namespace) -> Dict[str, Any]:
    """The four ways, and what they came to."""
    plain_loop(model, drives, folder / "plain" / "shards")
    for way, words in (("local", ["--on", "local"]), ("ray", ["--on", "ray", "--workers", "1"])):
        subprocess.run(_command(model, drives, folder / way, *words), capture_output=True, check=True)
    rates = {way: frames_a_second(folder / way, options.frames) for way in ("plain", "local", "ray")}
    story = kill_and_go_on(folder, model, drives, options)
    whole, killed = shards(folder / "local"), shards(folder / "killed")
    overheads = {way: rates["plain"] / rates[way] - 1 for way in ("local", "ray")}
    found: Dict[str, Any] = {
        "frames": options.videos * options.frames,
        "frames_per_s": rates,
        "overhead": overheads,
        "ray_equals_local": shards(folder / "ray") == whole,
        "killed_equals_local": killed == whole,
        **story,
    }
    found["met"] = (
        found["ray_equals_local"]
        and found["killed_equals_local"]
        and found["failed"] == [_POISON]
        and found["object_store_mb"] < STORE_GOAL_MB
        and max(overheads.values()) <= OVERHEAD_GOAL
    )
    return found


def plain_loop(model: Path, drives: Path, out: Path) -> None:
    """The shortest program that does the same."""
    cv2: Any = require("cv2", extra="runtime", purpose="to write masks")
    out.mkdir(parents=True)
    with Segmenter.open(model, "cpu", threads=1, confidence=True) as segmenter:
        for path in sorted(drives.iterdir()):
            (recording,) = open_footage(path)
            with tarfile.open(out / f"{path.stem}.tar", "w") as archive:
                for frame in recording.frames(range(recording.num_frames)):
                    result = segmenter.segment(frame.image)
                    for kind, picture in (("masks", result.mask), ("confidences", result.confidence)):
                        content = cv2.imencode(".png", picture)[1].tobytes()
                        member = tarfile.TarInfo(f"{kind}/{frame.number}.png")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))


def frames_a_second(out: Path, frames: int) -> float:
    """By the times at which shards of so many frames were written last."""
    times_ns = sorted(path.stat().st_mtime_ns for path in (out / "shards").iterdir())
    return frames * (len(times_ns) - 1) / ((times_ns[-1] - times_ns[0]) / 1e9)


def kill_and_go_on(folder: Path, model: Path, drives: Path, options: argparse.Namespace) -> Dict[str, Any]:
    """Label on a cluster while workers and drivers are killed; then without the poison."""
    out, cure = folder / "killed", folder / "cure"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(_SITE)
    env = {**os.environ, "PYTHONPATH": str(folder / "site"), "RTDA_POISON": _POISON, "RTDA_CURE": str(cure)}
    units = options.videos * -(-options.frames // 200)
    command = _command(model, drives, out, "--on", "ray", "--workers", str(options.workers))
    with _cluster(env, options.workers) as (head, address), _StoreWatch(address) as watch:
        env["RAY_ADDRESS"] = address
        kills = drivers = 0
        while True:
            driver = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            last = drivers == options.drivers
            while driver.poll() is None:
                time.sleep(0.05)
                done = len(list((out / "shards").glob("[0-9a-f]*.tar")))
                due = done * (options.kills + 1) / units  # spread over the run
                if kills < options.kills and due > kills + 1:
                    kills += _kill_one(head.pid)
                if not last and done > units * (drivers + 1) / (options.drivers + 1):
                    driver.kill()
            answer = driver.communicate()[0]
            if last or driver.returncode >= 0:
                break
            drivers += 1
        told = json.loads(answer)
        cure.touch()
        subprocess.run([*command, "--retry"], env=env, capture_output=True, check=True)
    return {
        "workers_killed": kills,
        "drivers_killed": drivers,
        "failed": [Path(failed["path"]).name for failed in told["failed"]],
        "object_store_mb": watch.peak_bytes / 1e6,
    }


def shards(out: Path) -> Mapping[str, bytes]:
    """The files of all units."""
    return {path.name: path.read_bytes() for path in (out / "shards").iterdir()}


def _command(model: Path, drives: Path, out: Path, *words: str) -> List[str]:
    head = [sys.executable, "-m", "rtda_deploy", "label", str(model), "--footage", str(drives), "--out", str(out)]
    return [*head, "--as", "tar", "--threads", "1", "--json", *words]


@contextlib.contextmanager
def _cluster(env: Mapping[str, str], workers: int) -> Iterator[Any]:
    """The process that holds a cluster of this machine, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    words = ["start", "--head", "--block", f"--port={port}", f"--num-cpus={workers}", "--include-dashboard=false"]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen([ray, *words, "--object-store-memory=200000000"], env=env, start_new_session=True, **quiet)
    try:
        yield head, f"127.0.0.1:{port}"
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait()


def _kill_one(above: int) -> int:
    """Kill one of the actors below a process; gives how many."""
    shown = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()[1:]]
    below = {above}
    for _ in range(4):
        below |= {int(row[0]) for row in rows if int(row[1]) in below}
    actors = [int(row[0]) for row in rows if int(row[0]) in below and "ray::MapWorker" in row[2]]
    if not actors:
        return 0
    os.kill(random.choice(actors), signal.SIGKILL)
    return 1


class _StoreWatch:
    """Looks at the object store of a cluster, on a thread of its own.

    Attributes:
        peak_bytes: The most that lay there.
    """

    def __init__(self, address: str) -> None:
        self.peak_bytes = 0
        self._address = address
        self._ended = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> _StoreWatch:
        self._ray: Any = require("ray", extra="fleet")
        while True:
            try:
                self._ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
                break
            except (ConnectionError, RuntimeError):  # it is still coming up
                time.sleep(_SETTLE_S)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()
        self._ray.shutdown()

    def _watch(self) -> None:
        from ray._private.internal_api import get_memory_info_reply, get_state_from_address

        state = get_state_from_address(self._address)
        while not self._ended.wait(_SETTLE_S):
            used = get_memory_info_reply(state).store_stats.object_store_bytes_used
            self.peak_bytes = max(self.peak_bytes, int(used))


def _table(found: Mapping[str, Any]) -> str:
    rows = [{"what": f"{way}, frames a second", "value": f"{rate:.1f}"} for way, rate in found["frames_per_s"].items()]
    rows += [
        {"what": f"{way} against plain", "value": f"{100 * cost:+.1f} %"} for way, cost in found["overhead"].items()
    ]
    for key in ("frames", "workers_killed", "drivers_killed", "failed", "object_store_mb"):
        rows.append({"what": key.replace("_", " "), "value": str(found[key])})
    for key in ("ray_equals_local", "killed_equals_local"):
        rows.append({"what": key.replace("_", " "), "value": "every shard" if found[key] else "NO"})
    return table({"": "{what}", ">value": "{value}"}, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help=".onnx (default: BiSeNet-R18 at 128x64 with random weights)")
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--frames", type=int, default=200, help="of each video")
    parser.add_argument("--size", default="160x96", help="of each frame, WIDTHxHEIGHT")
    parser.add_argument("--kills", type=int, default=10, help="of workers")
    parser.add_argument("--drivers", type=int, default=2, help="times that the driver is killed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's folder for temporary files)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
