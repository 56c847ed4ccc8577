"""A robot's other nodes, as a program of its own under the system's Python: publishes images, keeps what comes back.

``ros1_client.py FOLDER COMMAND``; everything that came back is written into FOLDER.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from patience import PATIENCE_S
from rosgraph_msgs.msg import Log
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

OUTPUTS = ("class_mask", "color_mask", "overlay")


class Client:
    """Listens to a node in the namespace ``/segmentation`` and talks to it on ``/cam``."""

    def __init__(self, kind: Any, topic: str, outputs: Any = OUTPUTS) -> None:
        self.changed = threading.Condition()
        self.received: Dict[str, List[Any]] = {name: [] for name in (*outputs, "label_info")}
        self.camera = rospy.Publisher(topic, kind, queue_size=1)
        self.subscribers = [
            rospy.Subscriber(f"/segmentation/{name}", Image, self._keep, name, queue_size=500, buff_size=1 << 25)
            for name in outputs
        ]
        self.wait(lambda: self.camera.get_num_connections() > 0, "node listens to the camera")
        self.wait(lambda: all(one.get_num_connections() for one in self.subscribers), "node offers its outputs")
        self.subscribers.append(rospy.Subscriber("/segmentation/label_info", String, self._keep, "label_info"))
        self.wait(lambda: bool(self.received["label_info"]), "latched label_info")

    def _keep(self, message: Any, name: str) -> None:
        with self.changed:
            self.received[name].append(message)
            self.changed.notify_all()

    def wait(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        with self.changed:
            while not condition():
                if time.monotonic() > deadline or rospy.is_shutdown():
                    raise SystemExit(f"waited in vain until {what}")
                self.changed.wait(0.02)


def image(pixels: np.ndarray, encoding: str, number: int) -> Image:
    message = Image()
    message.header.stamp = rospy.Time(1_700_000_000 + number, 123_456_789)
    message.header.frame_id = f"front_{number}"
    message.height, message.width = pixels.shape[:2]
    message.encoding, message.step = encoding, pixels.size // pixels.shape[0]
    message.data = pixels.tobytes()
    return message


def save(folder: Path, name: str, messages: List[Any]) -> None:
    """Pixels as ``NAME_0.npy`` ..., everything else as ``NAME.json``."""
    fields = []
    for index, one in enumerate(messages):
        pixels = np.frombuffer(one.data, np.uint8).reshape(one.height, one.step)
        np.save(folder / f"{name}_{index}.npy", pixels)
        stamp = [one.header.stamp.secs, one.header.stamp.nsecs]
        fields.append({"stamp": stamp, "frame_id": one.header.frame_id, "encoding": one.encoding, "width": one.width})
    (folder / f"{name}.json").write_text(json.dumps(fields))


def encodings(folder: Path) -> None:
    """One picture in each encoding, after one that the node refuses."""
    bgr = np.load(folder / "picture.npy")
    alpha = np.full((*bgr.shape[:2], 1), 9, np.uint8)
    kinds = {
        "bgr8": bgr,
        "rgb8": bgr[..., ::-1],
        "bgra8": np.concatenate([bgr, alpha], 2),
        "rgba8": np.concatenate([bgr[..., ::-1], alpha], 2),
        "mono8": bgr[..., 0],
    }
    client = Client(Image, "/cam")
    told: List[str] = []
    rospy.Subscriber("/rosout", Log, lambda line: told.append(line.msg))

    def refused() -> bool:
        client.camera.publish(image(np.zeros((4, 8), np.uint8), "16UC1", 99))
        return any("16UC1" in line for line in told)

    client.wait(refused, "the node refused a picture of 16 bits")
    for number, (encoding, pixels) in enumerate(kinds.items()):
        client.camera.publish(image(np.ascontiguousarray(pixels), encoding, number))
        client.wait(lambda n=number: all(len(client.received[name]) > n for name in OUTPUTS), f"{encoding} came back")
    for name in OUTPUTS:
        save(folder, name, client.received[name])
    (folder / "label_info.json").write_text(client.received["label_info"][0].data)


def compressed(folder: Path) -> None:
    """The file ``picture.png`` as a compressed image."""
    client = Client(CompressedImage, "/cam/compressed", ("class_mask",))
    message = CompressedImage()
    message.header.stamp, message.header.frame_id = rospy.Time(7, 8), "front"
    message.format, message.data = "bgr8; png compressed bgr8", (folder / "picture.png").read_bytes()
    client.camera.publish(message)
    client.wait(lambda: bool(client.received["class_mask"]), "the compressed image came back")
    save(folder, "class_mask", client.received["class_mask"])


def groups(folder: Path) -> None:
    """A node that was asked for groups, a region and the confidence."""
    names = ("class_mask", "confidence")
    client = Client(Image, "/cam", names)
    client.camera.publish(image(np.load(folder / "picture.npy"), "bgr8", 0))
    client.wait(lambda: all(client.received[name] for name in names), "mask and confidence came back")
    for name in names:
        save(folder, name, client.received[name])
    (folder / "label_info.json").write_text(client.received["label_info"][0].data)


def shift(folder: Path) -> None:
    """A drive of one picture a second by its stamps, by day and then in the dark; the node's health at the end."""
    client = Client(Image, "/cam", ("class_mask",))
    health: List[Any] = []
    rospy.Subscriber("/diagnostics", DiagnosticArray, lambda message: health.extend(message.status))
    client.wait(lambda: bool(health), "health before the first picture")
    for number, pixels in enumerate(np.load(folder / "drive.npy")):
        client.camera.publish(image(pixels, "bgr8", number))
        client.wait(lambda n=number: len(client.received["class_mask"]) > n, f"picture {number} came back")
    client.wait(lambda: bool(health) and health[-1].level == DiagnosticStatus.WARN, "health is a warning")
    status = health[-1]
    told = {"name": status.name, "message": status.message, **{one.key: one.value for one in status.values}}
    (folder / "health.json").write_text(json.dumps({**told, "first": min(one.level for one in health)}))


def flood(folder: Path) -> None:
    """Large images as fast as they go; the last one must come back."""
    client = Client(Image, "/cam", ("class_mask",))
    pixels = np.zeros((1080, 1920, 3), np.uint8)
    last = 60
    for number in range(last + 1):
        client.camera.publish(image(pixels, "bgr8", number))
    came = client.received["class_mask"]
    client.wait(lambda: bool(came) and came[-1].header.frame_id == f"front_{last}", "the last image came back")
    (folder / "stamps.json").write_text(json.dumps([one.header.stamp.secs - 1_700_000_000 for one in came]))


if __name__ == "__main__":
    rospy.init_node("client", anonymous=True, disable_signals=True)
    {"encodings": encodings, "compressed": compressed, "groups": groups, "shift": shift, "flood": flood}[sys.argv[2]](
        Path(sys.argv[1])
    )
    rospy.signal_shutdown("done")
