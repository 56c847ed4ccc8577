"""Labels on a real Ray: the bytes of a loop; workers and drivers killed, a poison unit, what a cluster lacks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from cli.commandline import Outcome, arguments, assert_refused, environment, run_command
from patience import PATIENCE_S

from rtda_deploy.files import write_text

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


# Loaded by every Python that starts with this folder on its path. What it does stands in a file, because the workers of
# one cluster, which takes seconds to start, serve all tests.
_SITE = """
import json, os, sys

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "now.json")

def now(name):
    with open(FILE) as file:
        return json.load(file).get(name)

def hook():
    from rtda_runtime.fleet.frames import FrameReader
    from rtda_runtime.sources.shown import ShownPictures
    read, image = FrameReader.frames, ShownPictures.image
    def frames(self, unit):
        if unit.path.endswith(now("poison") or "nothing"):
            os.kill(os.getpid(), 9)
        while now("wait") and unit.id:  # not where a machine is looked at
            import time
            time.sleep(0.05)
        return read(self, unit)
    def shown(self, picture):
        found = image(self, picture)
        return found ^ 1 if now("tinted") else found
    FrameReader.frames, ShownPictures.image = frames, shown

class Finder:
    hooked = False
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("rtda_") and now("lacks"):
            raise ModuleNotFoundError(name, name=name)
        if name == "rtda_runtime.fleet.worker" and not Finder.hooked:
            Finder.hooked = True
            hook()

sys.meta_path.insert(0, Finder())
"""


class Site:
    """The folder of ``sitecustomize.py``, and what the workers that load it do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sitecustomize.py").write_text(_SITE)
        self.say()

    def say(self, **what: Any) -> None:
        """From now on; nothing else."""
        write_text(self.folder / "now.json", json.dumps(what))


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture()
def site(module_site: Site) -> Iterator[Site]:
    module_site.say()
    yield module_site
    module_site.say()


@pytest.fixture(scope="module")
def cluster(module_site: Site) -> Iterator[Dict[str, str]]:
    """The environment of drivers on a cluster of one CPU, whose workers do what the site says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    words = (
        RAY,
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=1",
        "--num-gpus=1",
        "--include-dashboard=false",
    )
    process = subprocess.Popen(
        [*words, "--object-store-memory=80000000"],
        env=environment(PYTHONPATH=str(module_site.folder), **quiet),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: _listens(port))
        yield {"RAY_ADDRESS": f"127.0.0.1:{port}", **quiet}
    finally:
        process.send_signal(signal.SIGTERM)  # with --block, it ends the cluster that it started
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


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


def test_a_killed_worker_and_a_killed_driver_lose_nothing(fleet: Path, site: Site, cluster: Dict[str, str]) -> None:
    """The worker waits in its first unit until it was killed; the driver, and with it its own cluster, is killed while
    the next worker waits. The same command goes on, on another cluster."""
    site.say(wait=True)
    command = [*arguments(), *words(fleet, "killed", "--on", "ray", "--workers", "1")]
    env = environment(PYTHONPATH=str(site.folder))
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
    site.say()
    done = on_ray(fleet, "killed", **cluster)
    assert done.code == 0, done.err
    assert tree(fleet / "killed") == tree(fleet / "local")


def test_a_unit_that_kills_its_worker_ends_in_failed_and_the_others_are_done(
    fleet: Path, site: Site, cluster: Dict[str, str]
) -> None:
    site.say(poison="3.mp4")
    done = on_ray(fleet, "poison", **cluster)
    assert done.code == 1, done.err
    assert [Path(failed["path"]).name for failed in done.json["failed"]] == ["3.mp4"]
    assert "its worker died 3 times" in done.json["failed"][0]["why"]
    assert done.json["frames"] == (UNITS - 1) * FRAMES
    assert len(list((fleet / "poison" / "shards").iterdir())) == UNITS - 1
    healed = run_command(*words(fleet, "poison", "--retry"), cwd=fleet)  # by a loop, which goes on as well
    assert healed.code == 0 and tree(fleet / "poison") == tree(fleet / "local")


def test_a_worker_that_decodes_other_pixels_is_refused_by_its_name_unless_that_is_accepted(
    fleet: Path, site: Site, cluster: Dict[str, str]
) -> None:
    """The driver decodes as ever, its workers one grey level beside it."""
    site.say(tinted=True)
    outcome = on_ray(fleet, "tinted", **cluster)
    assert_refused(outcome, 3, f"machine {socket.gethostname()} would make other labels.*h264, mjpeg, mpeg4", "--mixed")
    assert re.search(r"opencv \d.*libjpeg.*av \d.*libavcodec \d", outcome.said["why"])
    assert not list((fleet / "tinted").glob("shards/[0-9a-f]*.tar")) and not os.listdir(fleet / "tinted" / "attempts")
    mixed = on_ray(fleet, "tinted", "--mixed", "decoder", **cluster)
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


_NO_ENGINE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
"""


def test_a_head_on_which_the_network_does_not_open_plans_for_workers_with_a_gpu(
    fleet: Path, site: Site, cluster: Dict[str, str], tmp_path: Path
) -> None:
    """The driver's machine has no engine; the cluster says that it has a GPU, on which a CPU's engine opens here."""
    (tmp_path / "sitecustomize.py").write_text(_NO_ENGINE)
    head = {**cluster, "PYTHONPATH": str(tmp_path)}
    refused = on_ray(fleet, "head", **head)
    assert_refused(refused, 3, "onnxruntime", "pip install")
    assert not (fleet / "head" / "plan.json").exists()
    done = on_ray(fleet, "head", "--gpu", "0.5", "--provider", "cpu", **head)
    assert done.code == 0 and done.json["frames"] == UNITS * FRAMES, done.err
    made, by_a_loop = tree(fleet / "head"), tree(fleet / "local")
    assert {name for name in by_a_loop if made.get(name) != by_a_loop[name]} <= {"plan.json"}
    missing = on_ray(
        fleet, "other", "--gpu", "0.5", **head
    )  # no CUDA there: the worker's error, and nothing is planned
    assert missing.code == 3 and "cuda" in missing.said["error"].lower(), missing.err
    assert not (fleet / "other" / "plan.json").exists()


def test_a_machine_without_the_package_is_named(fleet: Path, site: Site, cluster: Dict[str, str]) -> None:
    site.say(lacks=True)
    outcome = on_ray(fleet, "bare", **cluster)
    assert_refused(outcome, 3, f"machine {socket.gethostname()} of the cluster lacks the package", "pip install")
