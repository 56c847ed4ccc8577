"""Built by colcon (ament_python); the network's runtime itself is the wheel rtda-deploy."""

from setuptools import setup

NAME = "rtda_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/segmentation.launch.py"]),
        (f"share/{NAME}/config", ["config/segmentation.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="rtda-deploy developers",
    maintainer_email="rtda-deploy@users.noreply.github.com",
    description="Real-time semantic segmentation of camera images with rtda-deploy models.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"segmentation_node = {NAME}.segmentation_node:main"]},
)
