"""The ROS 1 node under a real ROS master, started by its launch file, with the system's Python and rospy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.models import PALETTE, tiny_spec, write_model
from runtime.shift.monitored import picture, write_monitored

from rtda_runtime import Segmenter

pytestmark = pytest.mark.system

_ROOT = Path(__file__).parents[2]
_PYTHON = "/usr/bin/python3"  # rospy belongs to it
_CLIENT = Path(__file__).parent / "ros1_client.py"


def _python_path() -> str:
    parts = [_ROOT, _ROOT / "runtime", sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
    return os.pathsep.join(dict.fromkeys(map(str, parts)))


def _missing() -> str:
    for program in ("roscore", "roslaunch", _PYTHON):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install ros-core python3-diagnostic-msgs python3-sensor-msgs"
    code = (
        f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}, 'another Python'; "
        "import rospy, diagnostic_msgs.msg, sensor_msgs.msg, std_msgs.msg, numpy, onnxruntime, cv2"
    )
    done = subprocess.run(
        [_PYTHON, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": _python_path()},
    )
    return done.stderr.strip().rpartition("\n")[2]


@pytest.fixture(scope="module", autouse=True)
def _needs_ros() -> None:
    reason = _missing()
    if reason:
        pytest.skip(reason)


class Ros:
    """A master on a free port, its home in a temporary folder, and the processes that talk to it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder = folder
        self.env: Dict[str, str] = {
            **os.environ,
            "PATH": f"/usr/bin:{os.environ['PATH']}",
            "PYTHONPATH": _python_path(),
            "ROS_MASTER_URI": f"http://127.0.0.1:{port}",
            "ROS_IP": "127.0.0.1",
            "ROS_HOME": str(folder / "home"),
            "ROS_LOG_DIR": str(folder / "log"),
            "ROS_PACKAGE_PATH": f"{_ROOT / 'runtime' / 'ros1'}:/usr/share",
            "PYTHONUNBUFFERED": "1",
        }
        self.processes: List[subprocess.Popen[bytes]] = []
        self.master = self.start("roscore", "-p", str(port))
        self._wait_for_master()

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Its output goes to ``NAME.txt``."""
        with self.output(words[0]).open("ab") as stream:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self.env, stdout=stream, stderr=stream, start_new_session=True
            )
        self.processes.append(process)
        return process

    def output(self, program: str) -> Path:
        return self.folder / f"{Path(program).name}.txt"

    def node(self, model: Path, **arguments: Any) -> subprocess.Popen[bytes]:
        """The launch file."""
        words = [f"{name}:={value}" for name, value in {"model": model, "image": "/cam", **arguments}.items()]
        return self.start("roslaunch", "--wait", "rtda_ros", "segmentation.launch", *words)

    def client(self, command: str) -> None:
        """Run the client to its end."""
        done = subprocess.run(
            [_PYTHON, str(_CLIENT), str(self.folder), command],
            cwd=self.folder,
            env={**self.env, "PYTHONPATH": f"{self.env['PYTHONPATH']}{os.pathsep}{_ROOT / 'tests'}"},
            capture_output=True,
            text=True,
        )
        launched = self.output("roslaunch")
        said = launched.read_text(errors="replace") if launched.exists() else ""
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n--- node:\n{said}"

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait()
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def _wait_for_master(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with xmlrpc.client.ServerProxy(self.env["ROS_MASTER_URI"]) as master:
                    assert master.getPid("test")
                    return
            except OSError:
                said = self.output("roscore").read_text(errors="replace")
                assert self.master.poll() is None and time.monotonic() < deadline, f"no ROS master:\n{said}"
                time.sleep(0.05)


@pytest.fixture()
def ros(tmp_path: Path) -> Iterator[Ros]:
    (tmp_path / "home").mkdir()
    one: Optional[Ros] = None
    try:
        one = Ros(tmp_path)
        yield one
    finally:
        if one is not None:
            one.stop()


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.onnx")


def _picture(folder: Path) -> np.ndarray:
    bgr = np.random.default_rng(3).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    np.save(folder / "picture.npy", bgr)
    assert cv2.imwrite(str(folder / "picture.png"), bgr)
    return bgr


def test_images_of_every_encoding_come_back_segmented_with_their_headers(ros: Ros, model: Path, tmp_path: Path) -> None:
    bgr = _picture(tmp_path)
    node = ros.node(model)
    ros.client("encodings")
    with Segmenter.open(model) as segmenter:
        expected = segmenter.segment(bgr).mask
        grey = segmenter.segment(np.repeat(bgr[..., :1], 3, axis=2)).mask
    for name in ("class_mask", "color_mask", "overlay"):
        fields = json.loads((tmp_path / f"{name}.json").read_text())
        for number, one in enumerate(fields):
            assert one["stamp"] == [1_700_000_000 + number, 123_456_789] and one["frame_id"] == f"front_{number}"
            assert one["encoding"] == ("mono8" if name == "class_mask" else "bgr8") and one["width"] == 90
        assert len(fields) == 5
    for number in range(5):
        mask = np.load(tmp_path / f"class_mask_{number}.npy")
        assert np.array_equal(mask, grey if number == 4 else expected)
        colours = np.load(tmp_path / f"color_mask_{number}.npy").reshape(60, 90, 3)
        assert np.array_equal(colours, np.array(PALETTE, np.uint8)[mask][..., ::-1])
        assert np.load(tmp_path / f"overlay_{number}.npy").shape == (60, 270)
    labels = json.loads((tmp_path / "label_info.json").read_text())
    assert [one["class_name"] for one in labels["class_map"]] == list(tiny_spec().class_names)
    said = ros.output("roslaunch").read_text()
    assert said.count("'16UC1'") == 1 and "bgr8, rgb8, mono8" in said
    node.send_signal(signal.SIGINT)
    assert node.wait(PATIENCE_S) == 0 and "Traceback" not in ros.output("roslaunch").read_text()


def test_compressed_images_are_taken_too(ros: Ros, model: Path, tmp_path: Path) -> None:
    bgr = _picture(tmp_path)
    ros.node(model, compressed="true")
    ros.client("compressed")
    with Segmenter.open(model) as segmenter:
        assert np.array_equal(np.load(tmp_path / "class_mask_0.npy"), segmenter.segment(bgr).mask)
    assert json.loads((tmp_path / "class_mask.json").read_text())[0]["stamp"] == [7, 8]


def test_dusk_is_a_warning_on_diagnostics_and_a_candidate_is_told_of_beside_it(ros: Ros, tmp_path: Path) -> None:
    drive = [picture(second, 1, 0.0 if second < 45 else 90.0) for second in range(120)]
    np.save(tmp_path / "drive.npy", np.stack(drive))
    shadow = write_model(tmp_path / "new.onnx", seed=1)
    ros.node(write_monitored(tmp_path / "monitored.onnx", blocks=60), shift="10m", shadow=shadow)
    ros.client("shift")
    health = json.loads((tmp_path / "health.json").read_text())
    assert health["shift_state"] == "unfamiliar" and health["message"].startswith("unfamiliar for ")
    assert health["first"] == 0 and health["shift_alarms"] == "1" and "ONNX Runtime" in health["engine"]
    assert "shift: unfamiliar" in ros.output("roslaunch").read_text()
    assert health["shadow_model"] == str(shadow) and health["shadow_error"] == ""
    assert int(health["shadow_compared"]) + int(health["shadow_dropped"]) > 0


def test_groups_region_and_confidence_are_launch_arguments(ros: Ros, model: Path, tmp_path: Path) -> None:
    bgr = _picture(tmp_path)
    ros.node(model, groups="['drivable=road','stop=car,sky']", region="0,0.5,1,1", confidence="true")
    ros.client("groups")
    labels = json.loads((tmp_path / "label_info.json").read_text())
    assert [one["class_name"] for one in labels["class_map"]] == ["drivable", "stop", "other"]
    asked = {"groups": ["drivable=road", "stop=car,sky"], "region": "0,0.5,1,1", "confidence": True}
    with Segmenter.open(model, **asked) as segmenter:
        expected = segmenter.segment(bgr)
    assert np.array_equal(np.load(tmp_path / "class_mask_0.npy"), expected.mask)
    assert np.array_equal(np.load(tmp_path / "confidence_0.npy"), expected.confidence)
    (fields,) = json.loads((tmp_path / "confidence.json").read_text())
    assert fields["encoding"] == "mono8" and fields["stamp"] == [1_700_000_000, 123_456_789]


def test_a_flood_of_images_ends_with_the_newest_and_in_order(ros: Ros, model: Path, tmp_path: Path) -> None:
    ros.node(model)
    ros.client("flood")
    stamps = json.loads((tmp_path / "stamps.json").read_text())
    assert stamps == sorted(set(stamps)) and stamps[-1] == 60


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "parameter ~model is not set"),
        (["_model:=/missing/model.onnx"], 1, "/missing/model.onnx"),
    ],
)
def test_a_node_that_cannot_start_says_why(ros: Ros, words: List[str], code: int, said: str) -> None:
    script = str(_ROOT / "runtime" / "ros1" / "scripts" / "segmentation_node")
    node = ros.start(_PYTHON, script, *words)
    assert node.wait(PATIENCE_S) == code
    output = ros.output(_PYTHON).read_text()
    assert said in output and "FATAL" in output and "Traceback" not in output


def test_the_node_ends_in_order_when_it_is_told_to(ros: Ros, model: Path) -> None:
    script = str(_ROOT / "runtime" / "ros1" / "scripts" / "segmentation_node")
    for number in (signal.SIGINT, signal.SIGTERM):
        node = ros.start(_PYTHON, script, f"_model:={model}", "_report_every:=0.05")
        before = ros.output(_PYTHON).read_text().count("received 0")
        wait_for(lambda before=before: ros.output(_PYTHON).read_text().count("received 0") > before, "report")
        node.send_signal(number)
        assert node.wait(PATIENCE_S) == 0
    assert "Traceback" not in ros.output(_PYTHON).read_text()


def test_the_catkin_package_builds_and_installs_a_node_that_starts(ros: Ros, tmp_path: Path) -> None:
    catkin = "/usr/share/catkin/cmake"
    if shutil.which("cmake") is None or not Path(catkin, "catkinConfig.cmake").exists():
        pytest.skip("catkin is not installed: apt-get install catkin")
    build, install = tmp_path / "build", tmp_path / "install"
    package = str(_ROOT / "runtime" / "ros1")
    chosen = [f"-Dcatkin_DIR={catkin}", f"-DCMAKE_INSTALL_PREFIX={install}", f"-DPYTHON_EXECUTABLE={_PYTHON}"]
    environment = {**os.environ, "PATH": f"/usr/bin:{os.environ['PATH']}"}
    for command in (["cmake", "-S", package, "-B", str(build), *chosen], ["cmake", "--install", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (install / "share" / "rtda_ros" / "launch" / "segmentation.launch").exists()
    node = ros.start(str(install / "lib" / "rtda_ros" / "segmentation_node"))  # where rosrun looks
    assert node.wait(PATIENCE_S) == 2 and "parameter ~model is not set" in ros.output("segmentation_node").read_text()
