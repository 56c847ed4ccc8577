"""What a machine makes of the same small files: digests of the pixels that it decodes, and the network's mask.

Versions of libraries do not say whether pixels are equal: a distribution patches FFmpeg, a build of OpenCV brings
another libjpeg, and with the same package another processor converts colours and multiplies by other instructions. So
the files of ``probes/`` (a JPEG, a PNG, three videos of three frames) are decoded by the reader that decodes the
footage, and the network is run once on a frame that is computed. That takes one inference and some milliseconds.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import socket
import sys
import zlib
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Set, Tuple

import numpy as np

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import DataError, EngineError
from rtda_runtime._opencv import opencv
from rtda_runtime.fleet.frames import FrameReader
from rtda_runtime.fleet.units import Unit
from rtda_runtime.machine.cores import cpu_model
from rtda_runtime.segmenter import Segmenter

__all__ = ["Fingerprint", "probes_for", "take_fingerprint"]

_FOLDER = Path(__file__).with_name("probes")
_PICTURES = {"jpeg": "picture.jpg", "png": "picture.png"}
_VIDEOS = {"h264": "h264.mp4", "mjpeg": "mjpeg.avi", "mpeg4": "mpeg4.mp4"}
_VIDEO_FRAMES = 3
_FRAME_HW = (240, 320)  # of what the network is run on
_DIGITS = 16  # of a digest
NOT_DECODED = "not decoded"


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What decides the labels that a machine makes.

    Attributes:
        host: The machine's name.
        pixels: First digits of the SHA-256 of the pixels of each probe: ``jpeg``, ``png``, ``h264``, ``mjpeg``,
            ``mpeg4``; ``not decoded`` where the machine cannot.
        mask: The network's answer, uint8 (240, 320), packed as text; empty: it gave none, such as NaN.
        confidence: First digits of the SHA-256 of how sure it is; empty: it does not say.
        versions: Of the libraries and what the network runs on, for people.
    """

    host: str
    pixels: Mapping[str, str]
    mask: str
    confidence: str
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """As text of one line."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """What :meth:`to_json` gave.

        Raises:
            DataError: If it is something else.
        """
        with parsing(DataError, "this is no fingerprint of a machine", hint="choose another --out"):
            return cls.of(json_values(text, "a machine's fingerprint", DataError, hint="choose another --out"))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Fingerprint:
        """The fingerprint of its fields' values, which a stranger may have written.

        Raises:
            Exception: Whatever shows that it is none; read in a block of :func:`rtda_deploy.border.parsing`.
        """
        found = cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
        texts = [found.host, found.mask, found.confidence]
        for pairs in (found.pixels, found.versions):
            texts += [text for pair in pairs.items() for text in pair]
        strange = [text for text in texts if not isinstance(text, str)]
        unknown = [probe for probe in found.pixels if probe not in (*_PICTURES, *_VIDEOS)]
        if strange or unknown:
            raise ValueError(f"{(strange + unknown)[0]!r} in the description of the machine")
        _unpacked(found.mask)
        return found

    def changed_pixels(self, other: Fingerprint) -> float:
        """Share of the mask's pixels that are of another class in the other's, 0 to 1; 1 where one has no mask."""
        if self.mask == other.mask:
            return 0.0
        mine, theirs = _unpacked(self.mask), _unpacked(other.mask)
        if mine is None or theirs is None:
            return 1.0
        return float((mine != theirs).mean())

    def versions_of(self, part: str) -> str:
        """What a person wants to know: of the ``decoder`` or of the ``engine``."""
        names = ("engine", "opencv", "cpu") if part == "engine" else ("opencv", "libjpeg", "av", "libavcodec", "cpu")
        return (
            ", ".join(f"{name} {self.versions[name]}" for name in names if name in self.versions) or "unknown versions"
        )


def probes_for(kinds: Set[str]) -> Tuple[str, ...]:
    """The probes that matter to footage of these kinds: ``pictures``, ``video``, ``bag`` (which holds either)."""
    found = list(_PICTURES) if kinds & {"pictures", "bag"} else []
    found += list(_VIDEOS) if kinds & {"video", "bag"} else []
    return tuple(found)


def take_fingerprint(segmenter: Segmenter, probes: Iterable[str]) -> Fingerprint:
    """This machine's, of some probes and of a network that is open.

    Raises:
        MissingPackageError: If OpenCV is not installed.
    """
    pixels = {probe: _pixels(probe) for probe in probes}
    mask, confidence = _answer(segmenter)
    return Fingerprint(socket.gethostname(), pixels, mask, confidence, _versions(segmenter))


def _pixels(probe: str) -> str:
    digest = hashlib.sha256()
    for frame in FrameReader().frames(_unit(probe)):
        if frame.image is None:
            return NOT_DECODED
        digest.update(np.ascontiguousarray(frame.image).tobytes())
    return digest.hexdigest()[:_DIGITS]


def _unit(probe: str) -> Unit:
    """The probe as a unit of footage, so that it is read as footage is."""
    common = {"id": "", "topic": "", "folder": ""}
    if probe in _PICTURES:
        file = _PICTURES[probe]
        return Unit(kind="pictures", path=str(_FOLDER), files=(file,), numbers=(), names=(probe,), **common)
    numbers = tuple(range(_VIDEO_FRAMES))
    path = str(_FOLDER / _VIDEOS[probe])
    return Unit(kind="video", path=path, files=(), numbers=numbers, names=tuple(map(str, numbers)), **common)


def _answer(segmenter: Segmenter) -> Tuple[str, str]:
    """The mask as text, and the digest of the confidence."""
    try:
        result = segmenter.segment(_frame())
    except EngineError:  # such as NaN; of footage it is told unit by unit
        return "", ""
    sure = "" if result.confidence is None else hashlib.sha256(result.confidence.tobytes()).hexdigest()[:_DIGITS]
    return base64.b64encode(zlib.compress(result.mask.tobytes(), 9)).decode("ascii"), sure


def _frame() -> np.ndarray:
    """uint8 (240, 320, 3): blocks, ramps and stripes, computed in whole numbers and so the same on every machine."""
    rows, columns = np.mgrid[: _FRAME_HW[0], : _FRAME_HW[1]]
    blocks = (rows // 30 * 8 + columns // 40) * 37
    channels = (blocks + rows, blocks * 3 + columns, blocks * 7 + rows * columns // 64)
    return np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8)


def _unpacked(text: str) -> Optional[np.ndarray]:
    if not text:
        return None
    with parsing(DataError, "this is no fingerprint of a machine", hint="choose another --out"):
        unpacking = zlib.decompressobj()
        mask = unpacking.decompress(base64.b64decode(text), _FRAME_HW[0] * _FRAME_HW[1] + 1)
        return np.frombuffer(mask, np.uint8).reshape(_FRAME_HW)


def _versions(segmenter: Segmenter) -> Dict[str, str]:
    cv2: Any = opencv("to label footage")
    found = {"opencv": str(cv2.__version__), "cpu": cpu_model(), "engine": segmenter.description}
    if segmenter.path is not None:
        found["engine"] = segmenter.description.replace(f"{segmenter.path.name}, ", "", 1)
    for line in cv2.getBuildInformation().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "JPEG":
            found["libjpeg"] = value.strip()
    for module in ("av", "onnxruntime"):
        if module in sys.modules:
            found[module] = str(getattr(sys.modules[module], "__version__", ""))
    libraries: Any = getattr(sys.modules.get("av"), "library_versions", {})
    if "libavcodec" in libraries:
        found["libavcodec"] = ".".join(map(str, libraries["libavcodec"]))
    return found
