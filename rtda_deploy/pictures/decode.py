"""The one way from the bytes of a picture file to pixels: what every reader refuses, and what it makes of the rest.

- Refused: what is no picture, is not whole, or is larger than OpenCV decodes.
- EXIF's orientation is applied here, for every kind alike: OpenCV's versions differ on PNG, WEBP and TIFF.
- 16 bits become 8 by leaving the lower 8 away. 12 bits in a 16-bit file would be nearly black and are refused: a scale
  that follows each picture's largest value would let the brightness of a film jump.

``cv2`` is handed in, because a robot brings its own and a light import must not load it.
"""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any, Optional, Type

from rtda_deploy.errors import RtdaError
from rtda_deploy.pictures.content_kind import PICTURE_KINDS, describe
from rtda_deploy.pictures.tiff_tags import with_orientation_1
from rtda_deploy.pictures.whole import PictureFacts, look

__all__ = ["SixteenBits", "checked_picture", "decode_bgr", "decode_stored"]

_MAX_SIDE, _MAX_PIXELS = 1 << 20, 1 << 30  # OpenCV's own limits
_TWELVE_BITS = 4095
_COPY_AGAIN = "copy it again, or leave it out"


class SixteenBits:
    """What the pictures read so far say of a source: one beyond 12 bits proves that all of them have 16.

    Handed to :func:`decode_bgr` with every picture of a source, so that a dark picture among bright ones is taken.
    """

    proven = False


def checked_picture(content: bytes, name: str, error: Type[RtdaError]) -> PictureFacts:
    """The facts of a picture that may be decoded.

    Args:
        content: The whole file.
        name: What to call it in messages, such as ``label a.png``.
        error: The reader's kind of error.

    Raises:
        RtdaError: Of the kind ``error``, if it is no picture, is not whole, or is larger than OpenCV decodes.
    """
    facts = look(content)
    if not facts.kind:
        raise error(f"{name} is no picture of a known kind", hint="open it in a viewer; was it copied to its end?")
    if facts.kind not in PICTURE_KINDS:
        said = describe(facts.kind)
        raise error(f"{name} is no picture but {said.text}", hint=said.hint)
    kind = PICTURE_KINDS[facts.kind]
    if facts.size_wh is not None:
        width, height = facts.size_wh
        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE and width * height <= _MAX_PIXELS):
            raise error(
                f"{name} is a {kind} of {width}x{height}, as its header says",
                why=f"pictures of 1 to {_MAX_PIXELS} pixels are decoded, at most {_MAX_SIDE} a side",
                hint="is it damaged? If it is really so large, cut it into smaller ones",
            )
    if facts.fault:
        raise error(f"{name} is a damaged {kind} or cut off: {facts.fault}", hint=_COPY_AGAIN)
    return facts


def decode_bgr(
    cv2: Any,
    content: bytes,
    name: str,
    error: Type[RtdaError],
    *,
    path: Path = Path("FILE"),
    sixteen: Optional[SixteenBits] = None,
) -> Any:
    """A picture as uint8 (H, W, 3) BGR, turned as EXIF says: grey is repeated, alpha dropped, 16 bits cut to 8.

    Args:
        cv2: OpenCV.
        content: The whole file.
        name: What to call it in messages.
        error: The reader's kind of error.
        path: The file; hints name its folder.
        sixteen: What is known of the source; None for a picture by itself.

    Raises:
        RtdaError: Of the kind ``error``, if it is no picture that can be used.
    """
    facts = checked_picture(content, name, error)
    deep = facts.bits is None or facts.bits > 8
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if deep else 0)
    image = _decoded(cv2, content, flags, facts, name, error)
    if str(image.dtype) == "uint16":
        sixteen, largest = sixteen or SixteenBits(), int(image.max())
        sixteen.proven = sixteen.proven or largest > _TWELVE_BITS
        if largest and not sixteen.proven:
            raise error(
                f"{name} has 16 bits, and its largest value is {largest}: 12 bits in a 16-bit file",
                why="white is 65535 there, so it would be nearly black",
                hint=f"make 8 bits of all of them, in another folder: {_to_8_bits(path)}"
                "   (pictures that are meant to be this dark: without -evaluate multiply 16)",
            )
        image = (image >> 8).astype("uint8")
    elif str(image.dtype) != "uint8":
        raise error(f"{name} holds {image.dtype} values", hint="save it with 8 or 16 bits per channel")
    return _turned(cv2, image, facts.orientation)


def _to_8_bits(path: Path) -> str:
    """A command of ImageMagick that leaves the originals as they are: run twice on them it would make them white."""
    folder = shlex.quote(str(path.parent))
    return f"mkdir 8bit && mogrify -path 8bit -evaluate multiply 16 -depth 8 {folder}/*{path.suffix}"


def decode_stored(cv2: Any, content: bytes, name: str, error: Type[RtdaError]) -> Any:
    """A picture with the channels and depth it is stored with, (H, W) or (H, W, 3 or 4) BGR(A); never turned.

    Raises:
        RtdaError: Of the kind ``error``, if it is no picture that can be used.
    """
    return _decoded(cv2, content, cv2.IMREAD_UNCHANGED, checked_picture(content, name, error), name, error)


def _decoded(cv2: Any, content: bytes, flags: int, facts: PictureFacts, name: str, error: Type[RtdaError]) -> Any:
    numpy: Any = importlib.import_module("numpy")  # not above: shared modules import the standard library alone
    if facts.kind == "tiff" and facts.orientation != 1:
        content = with_orientation_1(content)  # OpenCV turns a TIFF whatever it is told
    try:
        image = cv2.imdecode(numpy.frombuffer(content, numpy.uint8), flags)
    except (cv2.error, MemoryError) as err:
        raise error(
            f"{name} cannot be decoded", why=str(getattr(err, "err", "") or err or "no memory"), hint=_COPY_AGAIN
        ) from err
    kind = PICTURE_KINDS[facts.kind]
    if image is None:
        raise error(f"{name} is a {kind} that OpenCV cannot decode", hint="damaged, or of a rare kind; save it as PNG")
    stored = (image.shape[1], image.shape[0])
    if facts.size_wh is not None and stored != facts.size_wh:
        raise error(
            f"{name} is a {kind} of {facts.size_wh[0]}x{facts.size_wh[1]}, as its header says, and has"
            f" {stored[0]}x{stored[1]} pixels",
            hint=_COPY_AGAIN,
        )
    return image


def _turned(cv2: Any, image: Any, orientation: int) -> Any:
    """The picture as it is to be shown. Source: EXIF 2.3, tag 274."""
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)  # rows and columns change places; what remains is a flip
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)  # 1: left and right, 0: up and down, -1: both
    return image if flip is None else cv2.flip(image, flip)
