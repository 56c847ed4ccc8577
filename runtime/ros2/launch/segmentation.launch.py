"""``ros2 launch rtda_ros segmentation.launch.py model:=/path/model.onnx image:=/camera/image_raw``"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ARGUMENTS = {
    "model": (None, "An .onnx, an .engine built on this machine, or models/NAME"),
    "image": ("/camera/image_raw", "Camera topic; with compressed in the config file without /compressed"),
    "config": (
        os.path.join(get_package_share_directory("rtda_ros"), "config", "segmentation.yaml"),
        "Parameters; model is taken from the argument",
    ),
}


def generate_launch_description() -> LaunchDescription:
    """One node in the namespace ``segmentation``."""
    declared = [
        DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
        for name, (default, text) in ARGUMENTS.items()
    ]
    image = LaunchConfiguration("image")
    node = Node(
        package="rtda_ros",
        executable="segmentation_node",
        name="segmentation",
        namespace="segmentation",
        output="screen",
        parameters=[LaunchConfiguration("config"), {"model": LaunchConfiguration("model")}],
        remappings=[("image_in", image), ("image_in/compressed", [image, "/compressed"])],
    )
    return LaunchDescription([*declared, node])
