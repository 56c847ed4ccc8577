"""H.264 and H.265 in messages, one picture each: which of them begin anew, and their pictures in order, by PyAV.

Source: ITU-T H.264, 7.3.1 and table 7-1; H.265, 7.3.1.2 and table 7-1; both annex B.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

from rtda_deploy.errors import SourceError
from rtda_runtime.sources.ffmpeg import pyav

__all__ = ["CODECS", "Codec", "VideoDecoder", "VideoFacts", "bgr_of", "video_facts"]

_START = b"\0\0\1"


class Codec(NamedTuple):
    """Kinds of units of a codec: those of a picture, of a picture that needs no other, and of parameters."""

    shift: int
    mask: int
    picture: range
    key: range
    parameters: range


CODECS: Dict[str, Codec] = {
    "h264": Codec(0, 31, range(1, 6), range(5, 6), range(7, 9)),
    "h265": Codec(1, 63, range(32), range(16, 24), range(32, 35)),
}
_DECODERS = {"h264": "h264", "h265": "hevc"}


class VideoFacts(NamedTuple):
    """What one message holds.

    Attributes:
        picture: A picture, or a part of one.
        key: One that needs no other.
        parameters: Units of parameters by their kind, with their start codes; they precede the picture.
    """

    picture: bool
    key: bool
    parameters: Dict[int, bytes]


def video_facts(content: bytes, codec: Codec) -> VideoFacts:
    """Looks at a message up to its picture."""
    parameters: Dict[int, bytes] = {}
    begin = content.find(_START) + len(_START)
    while len(_START) <= begin < len(content):
        kind = content[begin] >> codec.shift & codec.mask
        if kind in codec.picture:
            return VideoFacts(True, kind in codec.key, parameters)
        end = content.find(_START, begin)
        if kind in codec.parameters:
            parameters[kind] = b"\0" + _START + content[begin : end if end >= 0 else len(content)]
        begin = end + len(_START)
    return VideoFacts(False, False, parameters)


class VideoDecoder:
    """Decodes messages in their order, from one that begins anew.

    Args:
        codec: A key of :data:`CODECS`.
    """

    def __init__(self, codec: str) -> None:
        self._av = pyav()
        self._context: Any = self._av.CodecContext.create(_DECODERS[codec], "r")
        self._context.thread_count = 1  # with more, FFmpeg keeps pictures back, and gives damaged ones as whole

    def feed(self, content: bytes, number: int) -> List[Tuple[int, Any]]:
        """The pictures that are complete with this message, with the numbers of theirs: ``av.VideoFrame``.

        Raises:
            SourceError: If one is damaged; so are then all that follow until the next key frame.
        """
        packet = self._av.Packet(content)
        packet.pts = packet.dts = number
        return self._pictures(packet)

    def rest(self) -> List[Tuple[int, Any]]:
        """What is still in the decoder; nothing can be fed afterwards."""
        return self._pictures(None)

    def _pictures(self, packet: Any) -> List[Tuple[int, Any]]:
        try:
            pictures = self._context.decode(packet)
        except self._av.FFmpegError as err:  # invalid data, or another word for damage
            raise _damaged() from err
        if any(picture.is_corrupt for picture in pictures):
            raise _damaged()
        return [(picture.pts, picture) for picture in pictures]


def bgr_of(picture: Any) -> np.ndarray:
    """uint8 (H, W, 3) BGR of an ``av.VideoFrame``."""
    return np.array(picture.to_ndarray(format="bgr24"), order="C")


def _damaged() -> SourceError:
    return SourceError("a message of its video is damaged", hint="the frames up to its next key frame are lost")
