"""The ROS 2 node on a stand-in for rclpy; its messages field by field, after CDR serialisation by rosbags."""

from __future__ import annotations

import array
import json
import os
import runpy
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Iterator

import cv2
import numpy as np
import pytest
import yaml
from patience import wait_for
from runtime.models import NAMES, PALETTE, write_model
from runtime.ros2_standin import (
    DurabilityPolicy,
    ExternalShutdownException,
    HistoryPolicy,
    ReliabilityPolicy,
    Ros2,
    loaded,
    type_store,
)
from runtime.shift.monitored import picture as shift_picture
from runtime.shift.monitored import write_monitored

from rtda_deploy.errors import ConfigError
from rtda_runtime import Segmenter

pytest.importorskip("rosbags", reason="ROS 2 types come from rosbags")

_PACKAGE = Path(__file__).parents[3] / "runtime" / "ros2"
_RELEASES = ["HUMBLE", "JAZZY"]


@pytest.fixture()
def picture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(params=_RELEASES)
def ros(request: Any, model_path: Path) -> Ros2:
    return Ros2(type_store(request.param), {"model": str(model_path)})


@pytest.fixture()
def node(ros: Ros2) -> Iterator[Any]:
    with loaded(ros) as module:
        one = module.SegmentationNode()
        yield one
        one.destroy_node()


def _image(ros: Ros2, pixels: np.ndarray, encoding: str) -> Any:
    message = ros.types["sensor_msgs/msg/Image"]()
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, 987_654_321
    message.header.frame_id = "front_optical"
    message.height, message.width, message.step = pixels.shape[0], pixels.shape[1], pixels[0].size
    message.encoding = encoding
    message.data = array.array("B", pixels.tobytes())
    return message


def test_every_field_of_every_output_survives_serialisation(
    ros: Ros2, node: Any, picture: np.ndarray, model_path: Path
) -> None:
    for publisher in ros.publishers.values():
        publisher.subscribers = 1
    ros.subscriptions["image_in"].callback(_image(ros, picture[..., ::-1], "rgb8"))
    wait_for(lambda: all(ros.publishers[name].published for name in ("class_mask", "color_mask", "overlay")))
    with Segmenter.open(model_path) as segmenter:
        expected = segmenter.segment(picture).mask
    got = {
        name: ros.types.to_cdr_and_back(ros.publishers[name].published[0])
        for name in ("class_mask", "color_mask", "overlay")
    }
    for one in got.values():
        assert (one.header.stamp.sec, one.header.stamp.nanosec) == (1_700_000_000, 987_654_321)
        assert one.header.frame_id == "front_optical"
        assert (one.height, one.width, one.is_bigendian) == (60, 90, 0)
    assert (got["class_mask"].encoding, got["class_mask"].step) == ("mono8", 90)
    assert np.array_equal(got["class_mask"].data.reshape(60, 90), expected)
    assert (got["color_mask"].encoding, got["color_mask"].step) == ("bgr8", 270)
    assert np.array_equal(got["color_mask"].data.reshape(60, 90, 3), np.array(PALETTE, np.uint8)[expected][..., ::-1])
    assert (got["overlay"].encoding, got["overlay"].step, got["overlay"].data.size) == ("bgr8", 270, 60 * 270)


def test_health_goes_to_diagnostics_once_a_second(ros: Ros2, node: Any) -> None:
    ros.timers[1.0]()
    array_ = ros.types.to_cdr_and_back(ros.publishers["/diagnostics"].published[0])
    (status,) = array_.status
    assert array_.header.stamp.sec == 50 and (status.level, status.message) == (0, "segmenting")
    values = {one.key: one.value for one in status.values}
    assert values["received"] == "0" and "ONNX Runtime" in values["engine"] and "shift_state" not in values


def test_an_unfamiliar_world_is_a_warning(tmp_path: Path) -> None:
    model = write_monitored(tmp_path / "tiny.onnx", blocks=60)
    ros = Ros2(type_store("HUMBLE"), {"model": str(model), "shift": "10m", "only_when_subscribed": False})
    with loaded(ros) as module:
        node = module.SegmentationNode()
        for second in range(120):
            message = _image(ros, shift_picture(second, 1, 0.0 if second < 45 else 90.0), "bgr8")
            message.header.stamp.sec += second
            masks = ros.publishers["class_mask"].published
            ros.subscriptions["image_in"].callback(message)
            wait_for(lambda count=second, masks=masks: len(masks) > count)
        wait_for(lambda: node.worker.diagnostic.level == 1)
        ros.timers[1.0]()
        status = ros.types.to_cdr_and_back(ros.publishers["/diagnostics"].published[-1]).status[0]
        node.destroy_node()
    values = {one.key: one.value for one in status.values}
    assert status.level == 1 and status.message.startswith("unfamiliar for ") and values["shift_state"] == "unfamiliar"
    assert values["shift_alarms"] == "1" and float(values[f"shift_evidence_{values['shift_signal']}"]) >= 0.5
    assert [text for level, text in ros.log if level == "warning" and text.startswith("shift: unfamiliar")]


def test_a_shadow_is_a_parameter_and_told_of_on_diagnostics(tmp_path: Path, model_path: Path) -> None:
    shadow = write_model(tmp_path / "new.onnx", seed=1)
    parameters = {"model": str(model_path), "shadow": str(shadow), "only_when_subscribed": False}
    ros = Ros2(type_store("HUMBLE"), parameters)
    with loaded(ros) as module:
        node = module.SegmentationNode()
        ros.subscriptions["image_in"].callback(_image(ros, np.full((64, 96, 3), 90, np.uint8), "bgr8"))
        wait_for(lambda: dict(node.worker.diagnostic.values)["shadow_compared"] == "1")
        ros.timers[1.0]()
        status = ros.types.to_cdr_and_back(ros.publishers["/diagnostics"].published[-1]).status[0]
        node.destroy_node()
    values = {one.key: one.value for one in status.values}
    assert values["shadow_model"] == str(shadow) and 0.0 <= float(values["shadow_agreement"]) <= 1.0


def test_labels_are_latched_as_label_info(ros: Ros2, node: Any) -> None:
    publisher = ros.publishers["label_info"]
    assert publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE and publisher.qos_profile.depth == 1
    (message,) = publisher.published
    info = ros.types.to_cdr_and_back(message)
    assert info.header.stamp.sec == 50 and info.header.frame_id == "" and info.threshold == 0.0
    assert [(one.class_id, one.class_name) for one in info.class_map] == list(enumerate(NAMES))


def test_where_vision_msgs_lacks_it_labels_are_json(model_path: Path) -> None:
    ros = Ros2(type_store("FOXY", vision=False), {"model": str(model_path)})
    with loaded(ros) as module:
        node = module.SegmentationNode()
        publisher = ros.publishers["label_info"]
        text = ros.types.to_cdr_and_back(publisher.published[0])
        node.destroy_node()
    assert publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert [one["class_name"] for one in json.loads(text.data)["class_map"]] == list(NAMES)


def test_groups_region_and_confidence_are_parameters(ros: Ros2, picture: np.ndarray, model_path: Path) -> None:
    ros.parameters.update(groups=["drivable=road"], region="0,0.5,1,1", confidence=True, only_when_subscribed=False)
    with loaded(ros) as module:
        node = module.SegmentationNode()
        ros.subscriptions["image_in"].callback(_image(ros, picture, "bgr8"))
        wait_for(lambda: ros.publishers["confidence"].published)
        node.destroy_node()
    names = ("class_mask", "confidence", "label_info")
    mask, sure, info = (ros.types.to_cdr_and_back(ros.publishers[name].published[0]) for name in names)
    assert [one.class_name for one in info.class_map] == ["drivable", "other"]
    with Segmenter.open(model_path, groups=["drivable=road"], region="0,0.5,1,1", confidence=True) as segmenter:
        expected = segmenter.segment(picture)
    assert np.array_equal(mask.data.reshape(60, 90), expected.mask)
    assert (sure.encoding, sure.step, sure.header.frame_id) == ("mono8", 90, "front_optical")
    assert np.array_equal(sure.data.reshape(60, 90), expected.confidence)


def test_without_confidence_there_is_no_such_topic(ros: Ros2, node: Any) -> None:
    assert set(ros.publishers) == {"class_mask", "color_mask", "overlay", "label_info", "/diagnostics"}


def test_only_topics_with_subscribers_are_published(ros: Ros2, node: Any, picture: np.ndarray) -> None:
    give = ros.subscriptions["image_in"].callback
    give(_image(ros, picture, "bgr8"))
    wait_for(lambda: node.worker.stats["unwanted"] == 1)
    ros.publishers["class_mask"].subscribers = 1
    give(_image(ros, picture, "bgr8"))
    wait_for(lambda: ros.publishers["class_mask"].published)
    assert not ros.publishers["overlay"].published and not ros.publishers["color_mask"].published


def test_everything_is_published_where_that_is_asked_for(ros: Ros2, picture: np.ndarray) -> None:
    ros.parameters["only_when_subscribed"] = False
    with loaded(ros) as module:
        node = module.SegmentationNode()
        ros.subscriptions["image_in"].callback(_image(ros, picture, "bgr8"))
        wait_for(lambda: ros.publishers["overlay"].published)
        node.destroy_node()


def test_input_is_sensor_data_and_outputs_serve_everybody(ros: Ros2, node: Any) -> None:
    qos = ros.subscriptions["image_in"].qos_profile
    assert (qos.reliability, qos.depth) == (ReliabilityPolicy.BEST_EFFORT, 1)
    assert (qos.history, qos.durability) == (HistoryPolicy.KEEP_LAST, DurabilityPolicy.VOLATILE)
    assert ros.publishers["overlay"].qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_quality_of_service_is_a_parameter(ros: Ros2) -> None:
    ros.parameters.update(reliability="reliable", depth=3)
    with loaded(ros) as module:
        module.SegmentationNode().destroy_node()
        qos = ros.subscriptions["image_in"].qos_profile
        assert (qos.reliability, qos.depth) == (ReliabilityPolicy.RELIABLE, 3)
        ros.parameters["reliability"] = "fast"
        with pytest.raises(ConfigError, match="parameter reliability is 'fast'"):
            module.SegmentationNode()
        ros.parameters.update(reliability="reliable", depth=0)
        with pytest.raises(ConfigError, match="parameter depth is 0"):
            module.SegmentationNode()


def test_compressed_images_are_taken_from_their_topic(ros: Ros2, picture: np.ndarray, model_path: Path) -> None:
    ros.parameters["compressed"] = True
    with loaded(ros) as module:
        node = module.SegmentationNode()
        assert list(ros.subscriptions) == ["image_in/compressed"]
        ros.publishers["class_mask"].subscribers = 1
        message = ros.types["sensor_msgs/msg/CompressedImage"](format="bgr8; png compressed bgr8")
        message.data = array.array("B", cv2.imencode(".png", picture)[1].tobytes())
        message.header.stamp.sec = 9
        ros.subscriptions["image_in/compressed"].callback(message)
        wait_for(lambda: ros.publishers["class_mask"].published)
        node.destroy_node()
    out = ros.publishers["class_mask"].published[0]
    with Segmenter.open(model_path) as segmenter:
        assert bytes(out.data) == segmenter.segment(picture).mask.tobytes()
    assert out.header.stamp.sec == 9


def test_old_images_are_left_out_by_ros_time(ros: Ros2, picture: np.ndarray) -> None:
    ros.parameters["max_age"] = 1.0
    ros.now_ns = 1_700_000_003_000_000_000
    with loaded(ros) as module:
        node = module.SegmentationNode()
        ros.publishers["class_mask"].subscribers = 1
        ros.subscriptions["image_in"].callback(_image(ros, picture, "bgr8"))
        wait_for(lambda: node.worker.stats["stale"] == 1)
        node.destroy_node()


def test_what_cannot_be_used_is_logged(ros: Ros2, node: Any) -> None:
    ros.publishers["class_mask"].subscribers = 1
    ros.subscriptions["image_in"].callback(_image(ros, np.zeros((4, 8), np.uint8), "16UC1"))
    wait_for(lambda: [text for level, text in ros.log if level == "warning" and "16UC1" in text])


def test_counts_are_reported(ros: Ros2, node: Any) -> None:
    assert list(ros.timers) == [1.0, 10.0]
    ros.timers[10.0]()
    assert ros.log[-1] == ("info", "received 0 replaced 0 published 0 stale 0 unwanted 0 refused 0 age_ms 0")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, ExternalShutdownException, None])
def test_main_ends_in_order(ros: Ros2, ending: Any) -> None:
    def spin(node: Any) -> None:
        if ending is not None:
            raise ending

    ros.spin = spin
    with loaded(ros) as module, pytest.raises(SystemExit) as ended:
        module.main([])
    assert ended.value.code == 0 and not ros.running
    assert "rtda-segment" not in {thread.name for thread in threading.enumerate()}
    assert all(publisher.destroyed for publisher in ros.publishers.values())


@pytest.mark.parametrize(
    ("model", "code", "said"), [("", 2, "parameter model is not set"), ("/missing.onnx", 1, "/missing.onnx")]
)
def test_a_node_that_cannot_start_says_why(ros: Ros2, model: str, code: int, said: str) -> None:
    ros.parameters["model"] = model
    with loaded(ros) as module, pytest.raises(SystemExit) as ended:
        module.main([])
    assert ended.value.code == code and not ros.running
    assert [text for level, text in ros.log if level == "fatal" and said in text]


# --- The packages ---


def test_the_parameter_file_has_every_default(ros: Ros2) -> None:
    with loaded(ros) as module:
        defaults = dict(module._PARAMETERS)
    written = yaml.safe_load((_PACKAGE / "config" / "segmentation.yaml").read_text())["/**"]["ros__parameters"]
    defaults.pop("model")
    assert written == defaults
    assert {name: type(value) for name, value in written.items()} == {
        name: type(value) for name, value in defaults.items()
    }


def test_the_ros1_launch_file_sets_the_same_parameters(ros: Ros2) -> None:
    launch = ET.parse(_PACKAGE.parent / "ros1" / "launch" / "segmentation.launch").getroot()
    params = {one.attrib["name"]: one.attrib["value"] for one in launch.iter("param")}
    params.update({one.attrib["param"]: str(one.text) for one in launch.iter("rosparam")})
    arguments = {one.attrib["name"]: one.attrib.get("default") for one in launch.iter("arg")}
    with loaded(ros) as module:
        defaults = {name: value for name, value in module._PARAMETERS.items() if name not in ("reliability", "depth")}
    assert {name: f"$(arg {name})" for name in defaults} == params
    for name, value in defaults.items():
        if name == "groups":  # none: an empty list, which ROS 2 does not have
            assert (value, arguments[name]) == ([""], "[]")
        elif name != "model":
            assert arguments[name] == (str(value).lower() if isinstance(value, bool) else str(value))


@pytest.mark.parametrize("package", ["ros1", "ros2"])
def test_package_files_name_what_is_imported(package: str) -> None:
    root = ET.parse(_PACKAGE.parent / package / "package.xml").getroot()
    needed = {one.text for one in root.iter("exec_depend")}
    assert root.findtext("name") == "rtda_ros" and root.findtext("license") == "Apache-2.0"
    expected = {"rospy"} if package == "ros1" else {"rclpy", "vision_msgs", "launch", "launch_ros"}
    assert needed == expected | {"diagnostic_msgs", "sensor_msgs", "std_msgs"}


def test_colcon_and_catkin_each_see_one_of_the_two() -> None:
    assert (_PACKAGE / "CATKIN_IGNORE").exists() and (_PACKAGE.parent / "ros1" / "COLCON_IGNORE").exists()


def test_the_ament_package_installs_where_ros_looks(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="ament_python packages are built with setuptools")
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "build"), "egg_info"]
    command += ["--egg-base", str(tmp_path), "install", "--prefix", str(tmp_path / "install"), "--record"]
    command += [str(tmp_path / "files.txt"), "--single-version-externally-managed"]
    done = subprocess.run(command, cwd=_PACKAGE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    share = tmp_path / "install" / "share"
    assert (share / "ament_index" / "resource_index" / "packages" / "rtda_ros").exists()
    for name in ("package.xml", "launch/segmentation.launch.py", "config/segmentation.yaml"):
        assert (share / "rtda_ros" / name).exists()
    script = tmp_path / "install" / "lib" / "rtda_ros" / "segmentation_node"  # where ros2 run looks
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env python3\n")  # the Python of the venv that is active


def test_the_launch_file_starts_the_node_with_model_config_and_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stand-ins for ``launch`` and ``launch_ros`` that keep what they are given."""

    def keep(*args: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(args=args, **kwargs)

    contents = {
        "ament_index_python": {},
        "ament_index_python.packages": {"get_package_share_directory": lambda name: f"/share/{name}"},
        "launch": {"LaunchDescription": list},
        "launch.actions": {"DeclareLaunchArgument": keep},
        "launch.substitutions": {"LaunchConfiguration": lambda name: f"<{name}>"},
        "launch_ros": {},
        "launch_ros.actions": {"Node": keep},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    *arguments, node = runpy.run_path(str(_PACKAGE / "launch" / "segmentation.launch.py"))[
        "generate_launch_description"
    ]()
    defaults = {one.args[0]: getattr(one, "default_value", None) for one in arguments}
    assert defaults == {
        "model": None,
        "image": "/camera/image_raw",
        "config": "/share/rtda_ros/config/segmentation.yaml",
    }
    assert (node.package, node.executable, node.namespace) == ("rtda_ros", "segmentation_node", "segmentation")
    assert node.parameters == ["<config>", {"model": "<model>"}]
    assert node.remappings == [("image_in", "<image>"), ("image_in/compressed", ["<image>", "/compressed"])]
