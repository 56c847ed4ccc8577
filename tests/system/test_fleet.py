"""Labels on a real Ray: the bytes of a loop; workers and drivers killed, a poison unit, what a cluster lacks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import pytest
from cli.commandline import Outcome, arguments, assert_refused, environment, run_command
from patience import PATIENCE_S

pytest.importorskip("ray", reason="needs Ray: pip install 'rtda-deploy[fleet]'")
pytest.importorskip("av", reason="films for the tests are written with PyAV")
pytest.importorskip("onnx", reason="the tests' networks are written with onnx")
pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

RAY = str(Path(sys.executable).parent / "ray")
UNITS, FRAMES = 6, 12


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, videos of one unit each, and their labels by a loop; not to be changed."""
    from runtime.models import write_model
    from runtime.sources.footage.videos import write_video

    folder = tmp_path_factory.mktemp("fleet")
    write_model(folder / "model.onnx")
    (folder / "drives").mkdir()
    for number in range(UNITS):
        write_video(folder / "drives" / f"{number}.mp4", count=FRAMES)
    done = run_command(*words(folder, "local"), cwd=folder)
    assert done.code == 0, done.err
    return folder


def words(folder: Path, out: str, *more: str) -> List[str]:
    return ["label", "model.onnx", "--footage", str(folder / "drives"), "--out", out, "--as", "tar", "--json", *more]


def tree(folder: Path) -> Dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def on_ray(folder: Path, out: str, *more: str, **env: str) -> Outcome:
    return run_command(*words(folder, out, "--on", "ray", "--workers", "1", *more), cwd=folder, env=env)


# Loaded by every Python that starts with this folder on its path; what it does is chosen by the environment.
_SITE = """
import os, sys

def _slow_or_deadly():
    from rtda_runtime.fleet.frames import FrameReader
    whole = FrameReader.frames
    def frames(self, unit):
        if unit.path.endswith(os.environ.get("POISON", "nothing")):
            os.kill(os.getpid(), 9)
        if os.environ.get("WAIT") and unit.id:  # not where a machine is looked at
            import time
            while not os.path.exists(os.environ["WAIT"]):
                time.sleep(0.05)
        return whole(self, unit)
    FrameReader.frames = frames

if os.environ.get("LACKS"):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0].startswith("rtda_"):
                raise ModuleNotFoundError(name, name=name)
    sys.meta_path.insert(0, Missing())
elif os.environ.get("TINTED") and "default_worker.py" in " ".join(sys.orig_argv):
    class Other:
        def find_spec(self, name, path=None, target=None):
            if name == "rtda_runtime.fleet.worker":
                sys.meta_path.remove(self)
                from rtda_runtime.sources.shown import ShownPictures
                whole = ShownPictures.image
                ShownPictures.image = lambda self, picture: whole(self, picture) ^ 1
    sys.meta_path.insert(0, Other())
elif os.environ.get("POISON") or os.environ.get("WAIT"):
    class Hook:
        def find_spec(self, name, path=None, target=None):
            if name == "rtda_runtime.fleet.worker":
                sys.meta_path.remove(self)
                _slow_or_deadly()
    sys.meta_path.insert(0, Hook())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(_SITE)
    return str(folder)


def workers_of(process: int) -> List[int]:
    """Ray's actors below a driver that made its own cluster."""
    shown = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()[1:]]
    below = {process}
    for _ in range(4):
        below |= {int(row[0]) for row in rows if int(row[1]) in below}
    return [int(row[0]) for row in rows if int(row[0]) in below and "ray::MapWorker" in row[2]]


def test_ray_and_a_loop_give_the_same_bytes(fleet: Path) -> None:
    done = on_ray(fleet, "ray")
    assert done.code == 0, done.err
    assert (done.json["frames"], done.json["units"], done.json["on"]) == (UNITS * FRAMES, UNITS, "ray")
    assert tree(fleet / "ray") == tree(fleet / "local")


def test_a_killed_worker_and_a_killed_driver_lose_nothing(fleet: Path, site: str) -> None:
    """The worker waits in its first unit until it was killed; the driver is killed while the next waits."""
    gate = fleet / "gate"
    env = environment(PYTHONPATH=site, WAIT=str(gate))
    command = [*arguments(), *words(fleet, "killed", "--on", "ray", "--workers", "1")]
    driver = subprocess.Popen(command, cwd=fleet, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        attempts = fleet / "killed" / "attempts"
        until(lambda: attempts.is_dir() and os.listdir(attempts))
        (worker,) = until(lambda: workers_of(driver.pid))
        os.kill(worker, signal.SIGKILL)
        until(lambda: sum(path.stat().st_size for path in attempts.iterdir()) >= 2)
    finally:
        driver.kill()
        driver.communicate()
    assert not list((fleet / "killed").glob("shards/[0-9a-f]*.tar"))
    gate.touch()
    done = on_ray(fleet, "killed")
    assert done.code == 0, done.err
    assert tree(fleet / "killed") == tree(fleet / "local")


def test_a_unit_that_kills_its_worker_ends_in_failed_and_the_others_are_done(fleet: Path, site: str) -> None:
    done = on_ray(fleet, "poison", PYTHONPATH=site, POISON="3.mp4")
    assert done.code == 1, done.err
    assert [Path(failed["path"]).name for failed in done.json["failed"]] == ["3.mp4"]
    assert "its worker died 3 times" in done.json["failed"][0]["why"]
    assert done.json["frames"] == (UNITS - 1) * FRAMES
    assert len(list((fleet / "poison" / "shards").iterdir())) == UNITS - 1
    healed = on_ray(fleet, "poison", "--retry")
    assert healed.code == 0 and tree(fleet / "poison") == tree(fleet / "local")


def test_a_worker_that_decodes_other_pixels_is_refused_by_its_name_unless_that_is_accepted(
    fleet: Path, site: str
) -> None:
    """The driver decodes as ever, its workers one grey level beside it."""
    outcome = on_ray(fleet, "tinted", PYTHONPATH=site, TINTED="1")
    assert_refused(outcome, 3, f"machine {socket.gethostname()} would make other labels.*h264, mjpeg, mpeg4", "--mixed")
    assert re.search(r"opencv \d.*libjpeg.*av \d.*libavcodec \d", outcome.said["why"])
    assert not list((fleet / "tinted").glob("shards/[0-9a-f]*.tar")) and not os.listdir(fleet / "tinted" / "attempts")
    mixed = on_ray(fleet, "tinted", "--mixed", "decoder", PYTHONPATH=site, TINTED="1")
    assert mixed.code == 0 and list(mixed.json["mixed"]) == [socket.gethostname()], mixed.err
    assert "mixed   machine" in mixed.err


def test_a_cluster_that_is_not_there_is_told_at_once(fleet: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcome = on_ray(fleet, "nowhere", RAY_ADDRESS=f"127.0.0.1:{port}")
    assert_refused(outcome, 3, f"no Ray cluster at 127.0.0.1:{port}", "ray start --head")
    assert not (fleet / "nowhere" / "labelled.json").exists()


def test_a_clients_address_is_refused(fleet: Path) -> None:
    outcome = on_ray(fleet, "client", RAY_ADDRESS="ray://127.0.0.1:10001")
    assert_refused(outcome, 2, "client's address", "ray job submit")


@pytest.fixture()
def bare_cluster(site: str, tmp_path: Path) -> Iterator[str]:
    """A cluster whose workers have Ray and not this package."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = environment(PYTHONPATH=site, LACKS="1", RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    start: Sequence[str] = (
        RAY,
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=1",
        "--include-dashboard=false",
    )
    process = subprocess.Popen(
        [*start, "--object-store-memory=80000000"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: _listens(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)  # with --block, it ends the cluster that it started
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_a_machine_without_the_package_is_named(fleet: Path, bare_cluster: str) -> None:
    outcome = on_ray(fleet, "bare", RAY_ADDRESS=bare_cluster, RAY_AUTH_MODE="disabled")
    assert_refused(outcome, 3, f"machine {socket.gethostname()} of the cluster lacks the package", "pip install")
